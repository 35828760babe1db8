"""Asks Label Studio what no webhook told of, now and then and whenever an event says too little."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path

from tasks.collect import inbox
from tasks.collect.config import HookConfig
from tasks.collect.missed import missed
from tasks.collected import Generation
from tasks.ingest.label_studio_api import api_key, download_export
from tasks.objects import Store
from tasks.storage import scratch

_CHUNK = 500
Export = Callable[[str, int, Path], None]


def export(url: str, project: int, target: Path) -> None:
    """The project's annotated tasks as a JSON file; raises as ``download_export`` does."""
    download_export(url, project, api_key(), target)


class Reconciliation:
    """The poll of one project."""

    def __init__(
        self, export: Export = export, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._export, self._clock = export, clock
        self._last = -math.inf  # a receiver that was down asks at once

    def want(self) -> None:
        """An event said that something changed, and not what."""
        self._last = -math.inf

    def is_due(self, config: HookConfig) -> bool:
        """Whether to ask now."""
        waited = self._clock() - self._last
        return config.label_studio_url is not None and waited >= 60 * config.reconcile_minutes

    def run(self, store: Store, config: HookConfig, known: Generation, now: datetime) -> int:
        """Put what was missed into the inbox; answers how many events that were."""
        started = self._clock()
        with scratch() as folder:
            target = folder / "export.json"
            self._export(str(config.label_studio_url), config.label_studio_project or 0, target)
            tasks = json.loads(target.read_text(encoding="utf-8"))
        events = missed(tasks, config.label_studio_project or 0, known.rows, now)
        found = 0
        while chunk := list(islice(events, _CHUNK)):
            inbox.write(store, "label-studio", chunk)
            found += len(chunk)
        self._last = started
        return found
