"""Which versions there are to route to: looked up again and again, and kept through absences."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from deployments.services.fleet import Fleet
from tasks.errors import is_transient
from tasks.serve.aliases import Registry, keep, kept
from tasks.serve.keys import Keys
from tasks.serve.routing import Route, Routes, Version

logger = logging.getLogger("retune.gateway")


class Directory:
    """What the registry says, over what the replicas hold. Raises nothing while either is away."""

    def __init__(self, registry: Registry, fleet: Fleet, file: Path, keys: Keys | None) -> None:
        self._registry, self._fleet, self._file, self._keys = registry, fleet, file, keys
        self.routes: Routes = kept(file)
        self.asked_at = 0.0  # monotonic, of the registry's last answer
        self._is_away = False
        self._loops: list[asyncio.Task[None]] = []

    @property
    def is_known(self) -> bool:
        """Whether there is anything to route by: the registry's word, now or before."""
        return self.asked_at > 0 or bool(self.routes)

    def route(self, model: str) -> Route | None:
        """Who answers for a model, or for one version by its served name; None for no such model.

        A version can be named while it is champion or challenger; what is neither is not reached.
        """
        route = self.routes.get(model)
        if route is not None:
            return route
        named = self.routes.get(model.rpartition("@")[0])
        if named is None:
            return None
        live = [v for v in (named.champion, named.challenger) if v and v.served == model]
        return _pinned(live[0]) if live else None

    async def open(self, seconds: float) -> None:
        """Look once, then again every so many seconds."""
        await asyncio.gather(self._ask_registry(), self._fleet.refresh())
        looks = [self._ask_registry, self._fleet.refresh]
        if self._keys is not None:
            looks.append(partial(asyncio.to_thread, self._keys.refresh))
        self._loops = [asyncio.create_task(_repeated(look, seconds)) for look in looks]

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _ask_registry(self) -> None:
        try:
            found = await asyncio.to_thread(self._registry.routes)
        except Exception as error:
            # MLflow's client raises many classes: what may pass is waited for, the rest is told.
            if not is_transient(error):
                logger.exception("the registry cannot be read")
            elif not self._is_away:
                logger.warning("the registry is away: %s", str(error).splitlines()[0][:200])
            self._is_away = True
            return
        if self._is_away:
            logger.info("the registry answers")
        self._is_away, self.asked_at = False, time.monotonic()
        if found != self.routes:
            for name, route in found.items():
                if route != self.routes.get(name):
                    logger.info("%s: champion %s, %s", name, route.champion.served, route)
            self.routes = found
            await asyncio.to_thread(keep, self._file, found)


def _pinned(version: Version) -> Route:
    return Route(champion=version)


async def _repeated(look: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await look()
        except Exception:
            # Whatever it is, the next look may find better; without looks nothing would change.
            logger.exception("a look failed")
