"""The vLLM servers behind the gateway: which answer, what each holds, how busy each is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp

logger = logging.getLogger("retune.gateway")
KEY = "VLLM_API_KEY"  # what the servers themselves are given their key by
_LOOK_SECONDS = 2.0
# A busy server may miss a look; only one that misses several is taken for gone.
_MISSES = 3


@dataclass
class Replica:
    """One server. ``loaded`` are the names of its models; none of one that does not answer."""

    url: str
    loaded: frozenset[str] = frozenset()
    in_flight: int = 0
    misses: int = field(default=_MISSES, repr=False)

    @property
    def is_up(self) -> bool:
        return self.misses < _MISSES

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class Fleet:
    """All replicas. To be opened in the event loop that uses it."""

    def __init__(self, urls: Sequence[str], connect_seconds: float) -> None:
        self.replicas = [Replica(url) for url in urls]
        self._connect_seconds = connect_seconds
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        key = os.environ.get(KEY)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            # Answers go on as they came.
            auto_decompress=False,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_seconds),
            trust_env=False,
        )

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the fleet is not open")
        return self._session

    @property
    def loaded(self) -> frozenset[str]:
        """The names that some replica answers to."""
        return frozenset().union(*(r.loaded for r in self.replicas if r.is_up))

    def holding(self, served: str) -> list[Replica]:
        """The replicas that hold a model, the least busy first."""
        found = [r for r in self.replicas if r.is_up and served in r.loaded]
        return sorted(found, key=lambda replica: replica.in_flight)

    async def refresh(self) -> None:
        """Look at every replica."""
        await asyncio.gather(*(self._look(replica) for replica in self.replicas))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _look(self, replica: Replica) -> None:
        was_up = replica.is_up
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                async with self.session.get(f"{replica.url}/v1/models") as answer:
                    answer.raise_for_status()
                    models = (await answer.json(content_type=None))["data"]
            replica.loaded = frozenset(str(model["id"]) for model in models)
            replica.misses = 0
        except (
            aiohttp.ClientError,
            TimeoutError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ) as error:
            replica.misses += 1
            if was_up and not replica.is_up:
                logger.warning("%s does not answer: %s", replica.url, error)
        if replica.is_up and not was_up:
            logger.info("%s answers, and holds %s", replica.url, ", ".join(sorted(replica.loaded)))
