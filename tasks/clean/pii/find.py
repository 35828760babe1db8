"""Everything personal in many texts: names by the network, the rest by patterns, less our rules.

Each text is looked at once, however often it occurs, on as many processes as there are cores when
it is worth their start. What is found in a text depends on nothing but the text.
"""

from __future__ import annotations

import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import pyarrow as pa

from tasks.clean.config import PiiConfig
from tasks.clean.pii.patterns import Found, PatternFinder, check_entities

# Presidio's names of what spaCy finds, and the score that Presidio gives it.
_SPACY_LABELS = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "DATE": "DATE_TIME",
    "TIME": "DATE_TIME",
    "NORP": "NRP",
    "ORG": "ORGANIZATION",
    "FAC": "LOCATION",
}
NAME_SCORE = 0.85
_PHONE_DIGITS = 7  # at least; five pass for a number in Presidio's German region
_ID_PREFIX = re.compile(r"(?:\w[-_/]|#)$")
PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*?(?:_\d+)?>")
# A worker is ready after some ten seconds, in which a process looks at about this much by itself.
WORTH_WORKERS = 2_000_000  # characters
_TASK_CHARACTERS = 50_000


class Finder:
    """``find`` in this process; ``find_all`` spreads over the processes of ``workers``."""

    def __init__(self, config: PiiConfig) -> None:
        check_entities(config.entities)
        self._config = config
        self._patterns = PatternFinder(config.entities, config.score_threshold)
        wanted = set(config.entities) if config.score_threshold <= NAME_SCORE else set()
        self._labels = {k: v for k, v in _SPACY_LABELS.items() if v in wanted}
        self._pool: ProcessPoolExecutor | None = None

    def find_all(self, texts: Iterable[str], *, names: bool) -> dict[str, list[Found]]:
        """What is personal in the texts that hold anything; ``names`` asks the network too."""
        unique = list(dict.fromkeys(texts))
        if not names or not self._labels:
            array = pa.array(unique, pa.large_string())
            unique = [unique[i] for i in self._patterns.candidates(array).nonzero()[0]]
        tasks = list(_tasks(unique))
        if self._pool is None or len(tasks) < 2:
            results: Iterable[list[list[Found]]] = (self.find(t, names=names) for t in tasks)
        else:
            results = self._pool.map(_find_in_worker, tasks, [names] * len(tasks))
        return {
            text: found
            for task, founds in zip(tasks, results, strict=True)
            for text, found in zip(task, founds, strict=True)
            if found
        }

    def find(self, texts: Sequence[str], *, names: bool) -> list[list[Found]]:
        """What is personal in each of the texts."""
        candidates = self._patterns.candidates(pa.array(texts, pa.large_string())).tolist()
        found = [
            self._patterns.find(text) if candidate else []
            for text, candidate in zip(texts, candidates, strict=True)
        ]
        if names and self._labels:
            for items, entities in zip(found, _recogniser().find(texts), strict=True):
                items += [
                    Found(e.start, e.end, self._labels[e.label], NAME_SCORE)
                    for e in entities
                    if e.label in self._labels
                ]
        return [self._personal(t, f) if f else f for t, f in zip(texts, found, strict=True)]

    def seeks(self, entity: str) -> bool:
        """Whether the configuration asks for it."""
        return entity in self._config.entities

    def is_allowed(self, text: str) -> bool:
        """Whether ``text`` consists of allowed texts and of words such as "the" and "my" alone."""
        from spacy.lang.en.stop_words import STOP_WORDS

        allowed = self._config.allow_list
        rest = _allowed(allowed).sub(" ", text) if allowed else text
        return all(word in STOP_WORDS for word in re.findall(r"\w+", rest.lower()))

    def _personal(self, text: str, found: Iterable[Found]) -> list[Found]:
        """Of what was found, what is no id, not allowed and no placeholder; the surest first."""
        personal = {
            item
            for whole in found
            for item in _outside(whole, PLACEHOLDER.finditer(text))
            if not _is_id(text, item) and not self.is_allowed(text[item.start : item.end])
        }
        return sorted(personal, key=lambda item: (-item.score, item))

    @contextmanager
    def workers(self, processes: int) -> Iterator[None]:
        """Processes to spread over; spawned, since a fork of a process with threads may hang."""
        if processes < 2:
            yield
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _start_worker, (self._config,)) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tasks(texts: Sequence[str]) -> Iterator[list[str]]:
    task: list[str] = []
    size = 0
    for text in texts:
        task.append(text)
        size += len(text)
        if size >= _TASK_CHARACTERS:
            yield task
            task, size = [], 0
    if task:
        yield task


_worker: Finder | None = None  # of a worker process: set once, as it starts


def _start_worker(config: PiiConfig) -> None:
    global _worker  # noqa: PLW0603
    _worker = Finder(config)


def _find_in_worker(texts: list[str], names: bool) -> list[list[Found]]:
    assert _worker is not None  # noqa: S101
    return _worker.find(texts, names=names)


def _outside(found: Found, taken: Iterable[re.Match[str]]) -> list[Found]:
    """The parts of a find that no placeholder covers."""
    parts, start = [], found.start
    for match in taken:
        if match.end() <= start or match.start() >= found.end:
            continue
        if match.start() > start:
            parts.append(found._replace(start=start, end=match.start()))
        start = match.end()
    if start < found.end:
        parts.append(found._replace(start=start))
    return parts


def _is_id(text: str, item: Found) -> bool:
    """An id: people have no digits and underscores in their names, phone numbers no prefix."""
    digits = sum(c.isdigit() for c in text[item.start : item.end])
    if item.entity == "PHONE_NUMBER":
        return digits < _PHONE_DIGITS or bool(_ID_PREFIX.search(text, 0, item.start))
    return item.entity == "PERSON" and (digits > 0 or "_" in text[item.start : item.end])


@lru_cache(maxsize=8)
def _allowed(allow_list: tuple[str, ...]) -> Any:
    longest_first = sorted(allow_list, key=len, reverse=True)
    either = "|".join(re.escape(text) for text in longest_first)
    return re.compile(rf"(?<!\w)(?:{either})(?!\w)", re.IGNORECASE)


@lru_cache(maxsize=1)
def _recogniser() -> Any:
    from tasks.clean.pii.names import NameRecogniser  # spaCy: only who looks for names pays

    return NameRecogniser()
