"""The inbox into rows, each event once: a generation names the events that it is made of.

An event leaves the inbox only after a generation holds it. A drain that is killed between the two
is finished by the next, which finds those events named, and takes them out without reading them.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks import collected
from tasks.collect import inbox
from tasks.collect.changes import MalformedError, Unresolved, changes
from tasks.collect.inbox import Event
from tasks.collect.merge import Rows
from tasks.collect.trigger import started_up_to
from tasks.collected import Generation, Hook
from tasks.errors import ArtifactMissingError
from tasks.objects import Store

logger = logging.getLogger(__name__)
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Drained:
    """The rows as they stand now, how many events were read, and what became of them."""

    generation: Generation
    num_events: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unresolved: tuple[str, ...] = ()


def drain(store: Store, hook: Hook, known: Generation | None = None) -> Drained:
    """Empty the inbox of a hook into its next generation; nothing is written where it is empty.

    ``known`` saves reading the newest generation where it is still that one.

    Raises:
        RuntimeError: other processes wrote the next generation first, several times in a row.
    """
    for _ in range(_ATTEMPTS):
        # What another process took meanwhile, an event or a generation that grew old, is read anew.
        with contextlib.suppress(ArtifactMissingError):
            found = _drain(store, hook, known)
            if found is not None:
                return found
    raise RuntimeError(f"the rows of {hook} are written by too many processes at once")


def _drain(store: Store, hook: Hook, known: Generation | None) -> Drained | None:
    """None where another process wrote the next generation first."""
    number = collected.newest_number(store, hook)
    if known is None or known.number != number:
        known = collected.load(store, hook, number)
    waiting = inbox.keys(store, hook)
    inbox.remove(store, known.consumed.intersection(waiting))
    fresh = [key for key in waiting if key not in known.consumed]
    if not fresh:
        return Drained(known)
    events = inbox.read(store, fresh)
    rows = Rows(known.rows, known.number + 1, started_up_to(store, hook))
    outcomes, unresolved = _apply(hook, events, rows)
    made = collected.write(store, hook, known, rows.rows, rows.changed, fresh)
    if made is None:
        return None
    inbox.remove(store, fresh)
    return Drained(made, len(events), outcomes, tuple(unresolved))


def _apply(hook: Hook, events: Iterable[Event], rows: Rows) -> tuple[Counter[str], list[str]]:
    """What became of the events, and what of them the tool must be asked about."""
    outcomes: Counter[str] = Counter()
    unresolved = []
    for event in sorted(events, key=lambda event: event.received):
        try:
            said = changes(hook, event.body)
        except MalformedError as error:
            logger.warning("%s: an event cannot be read: %s", hook, error)
            outcomes["malformed"] += 1
            continue
        if isinstance(said, Unresolved):
            unresolved.append(said.detail)
            outcomes["unresolved"] += 1
        elif said is None:
            outcomes["ignored"] += 1
        else:
            received = event.received.isoformat()
            news = [rows.apply(change, received) for change in said]
            outcomes["news" if any(news) else "repeated"] += 1
    return outcomes, unresolved
