"""The gateway's end of the pipe to its recorder: what is sent never waits, and never blocks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections import Counter
from itertools import count
from typing import Any, Literal

from deployments import environment
from tasks.serve.config import TrafficConfig
from tasks.serve.exchange import Exchange
from tasks.serve.traffic import Feedback

logger = logging.getLogger("retune.gateway")
Outcome = Literal["stored", "repeated", "refused", "away"]
_MOST_BYTES = 32 * 2**20  # on their way to a recorder that does not keep up
# The first correction waits until the recognisers of personal data are loaded.
_FEEDBACK_SECONDS = 60.0
_RESTART_SECONDS = 1.0
_END_SECONDS = 40.0


class Outbox:
    """Keeps a recorder running. ``lost`` counts the exchanges that were not kept, by reason."""

    def __init__(self, config: TrafficConfig) -> None:
        self._arguments = [str(config.flush_seconds), str(config.max_records)]
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self.lost: Counter[str] = Counter()

    async def open(self) -> None:
        await self._start()
        self._keeper = asyncio.create_task(self._keep())

    def send(self, exchange: Exchange) -> None:
        """Hand one over, or count it as lost where the recorder does not keep up."""
        if not self._write({"exchange": exchange.model_dump(mode="json")}):
            self.lost["busy"] += 1

    async def feedback(self, feedback: Feedback) -> Outcome:
        """Store feedback, and say what became of it."""
        number = next(self._numbers)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            if not self._write({"number": number, "feedback": feedback.model_dump(mode="json")}):
                return "away"
            return await asyncio.wait_for(future, _FEEDBACK_SECONDS)
        except TimeoutError:
            return "away"
        finally:
            del self._waiting[number]

    async def close(self) -> None:
        """Wait until everything that was sent is written."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        process = self._process
        if process is None or process.stdin is None:
            return
        process.stdin.close()
        reading = asyncio.create_task(self._listen(process))
        try:
            await asyncio.wait_for(process.wait(), _END_SECONDS)
            await reading
        except TimeoutError:
            logger.warning("the recorder did not end within %g s", _END_SECONDS)
            process.kill()

    def _write(self, message: dict[str, Any]) -> bool:
        stdin = self._process.stdin if self._process else None
        if stdin is None or stdin.is_closing():
            return False
        if stdin.transport.get_write_buffer_size() > _MOST_BYTES:
            return False
        stdin.write(json.dumps(message).encode() + b"\n")
        return True

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "deployments.services.recorder",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=environment.home(),
        )
        return self._process

    async def _keep(self) -> None:
        while self._process is not None:
            await self._listen(self._process)
            code = await self._process.wait()
            logger.error("the recorder ended with code %d: it is started again", code)
            self.lost["recorder_ended"] += 1
            await asyncio.sleep(_RESTART_SECONDS)
            await self._start()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        async for line in process.stdout:
            said = json.loads(line)
            if "lost" in said:
                self.lost.update(said["lost"])
            elif (future := self._waiting.get(said["number"])) and not future.done():
                future.set_result(said["outcome"])
