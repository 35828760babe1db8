"""When rows that webhooks brought start a run, once for each cause.

What is about to be started is written down before it is, and what was started after: a process that
is killed in between starts the same run again under the same key, which Prefect answers with the
run that there is.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pydantic import ValidationError

from tasks.artifacts import Record
from tasks.collect.config import HookConfig
from tasks.collected import CollectedRow, Generation, Hook, ready
from tasks.errors import ArtifactMissingError, StorageError
from tasks.objects import Store


class Start(Record):
    """A run that new rows start, up to a generation; ``flow_run_id`` once it is started.

    ``since`` is when the oldest of them came.
    """

    generation: int
    since: str
    num_rows: int
    reason: str
    flow_run_id: str | None = None

    def key(self, hook: Hook) -> str:
        """The same for the same cause; another in a store that begins anew."""
        return f"{hook}-{self.generation}-{self.since}"


Starter = Callable[[Hook, Start], str]


def start_if_due(
    store: Store,
    hook: Hook,
    generation: Generation,
    config: HookConfig,
    now: datetime,
    start: Starter,
) -> Start | None:
    """Start a run where the rows ask for one, or one that was begun and not told; None else.

    ``start`` answers the run's id, and may raise: it is then tried again at the next call.
    """
    last = _last(store, hook)
    if last is None or last.flow_run_id is not None:
        wanted = due(generation, 0 if last is None else last.generation, config, now)
        if wanted is None:
            return None
        _write(store, hook, wanted)
        last = wanted
    started = last.model_copy(update={"flow_run_id": start(hook, last)})
    _write(store, hook, started)
    return started


def due(generation: Generation, after: int, config: HookConfig, now: datetime) -> Start | None:
    """The run that the rows changed after a generation ask for, if they do."""
    fresh: list[CollectedRow] = [r for r in ready(generation.rows.values()) if r.changed > after]
    if not fresh or not config.start_runs:
        return None
    since = min(row.received for row in fresh)
    oldest = datetime.fromisoformat(since)
    waited = now - oldest
    if len(fresh) >= config.min_rows:
        reason = f"{len(fresh):,} new rows, at least {config.min_rows:,}"
    elif waited >= timedelta(hours=config.max_age_hours):
        reason = f"{len(fresh):,} new rows, the oldest of {oldest:%Y-%m-%d %H:%M} UTC"
    else:
        return None
    return Start(generation=generation.number, since=since, num_rows=len(fresh), reason=reason)


def started_up_to(store: Store, hook: Hook) -> int:
    """The generation whose rows have all started a run; 0 where there was none."""
    last = _last(store, hook)
    return 0 if last is None else last.generation


def _last(store: Store, hook: Hook) -> Start | None:
    try:
        return Start.model_validate_json(store.get_bytes(_key(hook)))
    except ArtifactMissingError:
        return None
    except ValidationError as error:
        raise StorageError(f"{_key(hook)} tells of no run: {error}") from error


def _write(store: Store, hook: Hook, start: Start) -> None:
    store.put_bytes(_key(hook), start.model_dump_json().encode())


def _key(hook: Hook) -> str:
    return f"collected/{hook}/started.json"
