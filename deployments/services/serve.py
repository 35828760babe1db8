"""A replica: vLLM, and the adapters that the registry's aliases ask for, each checked for parity.

    python -m deployments.services.serve

Starts vLLM with the base model of the first champion (RETUNE_SERVE_MODEL names another model) and
starts it again when it ends. Every second it looks who is champion, challenger and ``previous``,
which is kept warm for a rollback; what is missing is loaded, what nobody asks for any more goes
once requests have drained. RETUNE_SERVE=0 keeps it from serving.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import FrameType

import httpx
from mlflow.tracking import MlflowClient

from deployments import environment, vllm
from tasks.artifacts import BaseModelRef, ModelVersion
from tasks.errors import ConfigError, RetuneError, is_transient
from tasks.objects import Store, open_store
from tasks.registry.versions import record_of
from tasks.serve.activation import activate, name_of, rank_of, superfluous
from tasks.serve.aliases import CHALLENGER, CHAMPION, PARITY, PARITY_FAILED, PREVIOUS, models
from tasks.serve.config import ServeConfig
from tasks.serve.parity import Dtype, ParityError
from tasks.serve.vllm_server import ServerError, VllmServer

logger = logging.getLogger("retune.serve")
_LOOK_SECONDS = 1.0
_START_SECONDS = 600.0
# Requests that were routed before an alias moved are answered within this time, or cut.
_DRAIN_SECONDS = 30.0
_RETRY_SECONDS = 60.0  # after a version was refused for what may pass
_ADAPTERS, _CONCURRENCY = 4, 8
# Room for adapters of this rank; more is made when one needs it. On a CPU every token of every
# adapter pays for the room, whether it is used or not.
_LEAST_RANK = 16
# The registry is asked again in a moment: a client that waits for minutes would know too late.
_IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class OutgrownError(RetuneError):
    """An adapter needs a server with room for a larger rank."""

    def __init__(self, name: str, rank: int) -> None:
        super().__init__(f"{name} has rank {rank}")
        self.rank = rank


class Adapters:
    """Keeps on one server, with room for adapters of ``rank``, what the registry asks for."""

    def __init__(
        self,
        server: VllmServer,
        client: MlflowClient,
        store: Store,
        base_model: BaseModelRef,
        dtype: Dtype,
        rank: int,
        drain_seconds: float = _DRAIN_SECONDS,
    ) -> None:
        self._server, self._client, self._store = server, client, store
        self._base_model, self._dtype = base_model, dtype
        self._rank, self._drain_seconds = rank, drain_seconds
        self._refused: dict[str, float] = {}  # until when
        self._unwanted_since: dict[str, float] = {}

    def look(self) -> None:
        """One look: load what is missing, let go what is not wanted.

        Raises OutgrownError where there is no room for one, and what the registry, storage and the
        server raise while they are away.
        """
        wanted = {
            name_of(version): version
            for version in wanted_versions(self._client)
            if version.base_model.digest == self._base_model.digest
        }
        held = self._server.adapters()
        now = time.monotonic()
        for name, version in wanted.items():
            if name not in held and self._refused.get(name, 0.0) <= now:
                self._activate(version)
        self._let_go(superfluous(held, wanted), now)

    def _activate(self, version: ModelVersion) -> None:
        name, started = name_of(version), time.monotonic()
        if (rank := rank_of(self._store, version)) > self._rank:
            raise OutgrownError(name, rank)
        try:
            parity = activate(self._server, self._store, version, self._dtype)
        except ParityError as error:
            # It stays so until somebody does something about it.
            self._refuse(version, f"{PARITY_FAILED}: {error}", float("inf"))
        except ServerError as error:
            self._refuse(version, f"not loaded: {error}", time.monotonic() + _RETRY_SECONDS)
        else:
            taken = time.monotonic() - started
            logger.info("%s is loaded after %.1f s: %s", name, taken, parity.sentence)
            self._tell(version, f"passed: {parity.sentence}")

    def _refuse(self, version: ModelVersion, why: str, until: float) -> None:
        logger.error("%s is not routed: %s", name_of(version), why)
        self._refused[name_of(version)] = until
        self._tell(version, why)

    def _tell(self, version: ModelVersion, said: str) -> None:
        self._client.set_model_version_tag(version.name, version.version, PARITY, said[:4000])

    def _let_go(self, names: list[str], now: float) -> None:
        self._unwanted_since = {name: self._unwanted_since.get(name, now) for name in names}
        for name, since in self._unwanted_since.items():
            if now - since >= self._drain_seconds:
                self._server.unload(name)
                logger.info("%s is unloaded", name)


class Replica:
    """vLLM as a child, and its adapters."""

    def __init__(self, client: MlflowClient, store: Store, model: str | None) -> None:
        self._client, self._store, self._model = client, store, model
        self._dtype = ServeConfig().served_dtype()
        self._rank = _LEAST_RANK
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()

    def stop(self, *_: int | FrameType | None) -> None:
        """End, whatever is being asked of vLLM at this moment; a handler of signals."""
        self._ended.set()
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Do nothing until it is stopped."""
        self._ended.wait()

    def run(self) -> None:
        """Until it is stopped; vLLM is started again as often as it ends."""
        url = f"http://{environment.LOOPBACK}:{environment.vllm_port()}"
        server = VllmServer(url, os.environ.get("VLLM_API_KEY"))
        try:
            while not self._ended.is_set():
                base_model = self._base_model()
                if base_model is None:
                    self._ended.wait(_LOOK_SECONDS)
                elif self._start(base_model, server):
                    rank, dtype = self._rank, self._dtype
                    self._keep(Adapters(server, self._client, self._store, base_model, dtype, rank))
        finally:
            self._end()
            server.close()

    def _base_model(self) -> BaseModelRef | None:
        """That of the model to serve, once it has a champion."""
        try:
            found = [
                version
                for version in wanted_versions(self._client)
                if version.alias == CHAMPION and self._model in (None, version.name)
            ]
        except Exception as error:
            # MLflow's client raises many classes: what may pass is waited for, the rest ends it.
            if not is_transient(error):
                raise
            return None
        return found[0].base_model if found else None

    def _start(self, base_model: BaseModelRef, server: VllmServer) -> bool:
        """Start vLLM and wait until it is well; False where it ended, or is to end, before."""
        started = vllm.command_of(
            base_model,
            environment.vllm_port(),
            dtype=self._dtype,
            rank=self._rank,
            adapters=_ADAPTERS,
            concurrency=_CONCURRENCY,
        )
        logger.info("vLLM starts with %s in %s", base_model.id, self._dtype)
        self._end()  # vLLM's workers outlive a server that was killed, and keep its memory
        self._process = subprocess.Popen(
            started, env=vllm.variables(os.environ), start_new_session=True
        )
        began = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            if self._process.poll() is not None:
                logger.error("vLLM ended with code %d before it was well", self._process.returncode)
                self._ended.wait(_RETRY_SECONDS)
                return False
            if server.is_up():
                logger.info("vLLM is well after %.0f s", time.monotonic() - began)
                return True
            if time.monotonic() - began > _START_SECONDS:
                logger.error("vLLM was not well within %.0f s: it is started again", _START_SECONDS)
                self._end()
                return False
        return False

    def _keep(self, adapters: Adapters) -> None:
        away = False
        while self._process is not None and self._process.poll() is None:
            try:
                adapters.look()
                away = False
            except OutgrownError as error:
                logger.warning("%s, more than there is room for: vLLM is started again", error)
                self._rank = error.rank
                self._end()
                return
            except (RetuneError, httpx.HTTPError) as error:
                logger.warning("a look failed: %s", error)
            except Exception as error:
                # MLflow's and S3's clients raise many classes: what may pass is waited for.
                if not is_transient(error):
                    raise
                if not away:
                    logger.warning("registry or storage is away: %s", str(error)[:200])
                away = True
            if self._ended.wait(_LOOK_SECONDS):
                return
        if not self._ended.is_set():
            logger.error("vLLM ended: it is started again")

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wanted_versions(client: MlflowClient) -> list[ModelVersion]:
    """Every champion, challenger and ``previous``, by the name of its model."""
    found = []
    for model in sorted(models(client), key=lambda model: str(model.name)):
        for alias in (CHAMPION, CHALLENGER, PREVIOUS):
            if alias in model.aliases:
                version = client.get_model_version(model.name, str(model.aliases[alias]))
                found.append(record_of(version, alias))
    return found


def serves(environ: Mapping[str, str]) -> bool:
    """Whether this machine is to serve. Raises ConfigError for what is neither 0 nor 1."""
    wanted = environ.get("RETUNE_SERVE") or "1"
    if wanted not in ("0", "1"):
        raise ConfigError(f"RETUNE_SERVE={wanted}: expected 1, or 0 to serve nothing.")
    return wanted == "1"


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        environment.apply()
        os.environ.update(_IMPATIENT)
        replica = Replica(MlflowClient(), open_store(), os.environ.get("RETUNE_SERVE_MODEL"))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, replica.stop)
        if not serves(os.environ):
            return _idle(replica, "RETUNE_SERVE is 0")
        try:
            vllm.python()
        except ConfigError as error:
            # The stack's other services are of use without it.
            return _idle(replica, str(error))
        replica.run()
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _idle(replica: Replica, why: str) -> int:
    logger.warning("nothing is served: %s", why)
    replica.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
