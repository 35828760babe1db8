"""Near-identical prompts: those whose answers agree are duplicates, the others contradict.

A difference that the prompts explain is none: of "Where is order A-1?" and "Where is order A-2?"
each answer names its own order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifacts import TaskConfig
from tasks.clean.config import ConflictConfig
from tasks.clean.rows import Finding, Indices
from tasks.example import normalise

_WORD = re.compile(r"\w+")
_FREE_TEXT_WORDS = 3  # a value of more words is worded freely: two wordings are no contradiction
_CALLS_BEGIN = '[{"name": '


@dataclass(frozen=True, slots=True)
class Conflict:
    """Rows that ask the same and answer differently; ``stays`` is the one that policy keeps."""

    rows: tuple[int, ...]
    similarity: float
    stays: int | None


@dataclass(slots=True)
class Resolved:
    """What became of the clusters of near-identical prompts."""

    findings: list[Finding] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)


@dataclass(frozen=True)
class Cluster:
    """Rows near one kept row, which stands first; best first, each with its similarity to it."""

    rows: tuple[int, ...]
    similarities: tuple[float, ...]


def clusters_of(kept_of: Indices, similarity: Any, order: Indices) -> list[Cluster]:
    """The clusters of more than one row, in the order of their kept rows."""
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    crowded = np.flatnonzero(np.bincount(kept_of, minlength=len(kept_of)) > 1)
    members = np.flatnonzero(np.isin(kept_of, crowded))
    members = members[np.lexsort((rank[members], rank[kept_of[members]]))]
    starts = np.flatnonzero(np.diff(kept_of[members], prepend=-1))
    return [
        Cluster(tuple(part.tolist()), tuple(float(similarity[i]) for i in part))
        for part in np.split(members, starts[1:])
        if len(part)
    ]


def resolve(
    clusters: Sequence[Cluster],
    prompts: pa.LargeStringArray,
    answers: pa.LargeStringArray,
    ids: pa.Array,
    ranks: Indices,
    config: ConflictConfig,
    task: TaskConfig,
) -> Resolved:
    """Duplicates and contradictions of each cluster; ``ranks`` is the source's rank of each row.

    Of rows that agree the best stays. Of rows that do not, all are a conflict where their prompts
    are at least ``config.similarity`` alike and the difference is not explained by the prompts;
    otherwise they are different examples, and the best of each answer stays.
    """
    result = Resolved()
    for cluster in clusters:
        _resolve(cluster, prompts, answers, ids, ranks, config, task, result)
    return result


def _resolve(
    cluster: Cluster,
    prompts: pa.LargeStringArray,
    answers: pa.LargeStringArray,
    ids: pa.Array,
    ranks: Indices,
    config: ConflictConfig,
    task: TaskConfig,
    result: Resolved,
) -> None:
    similarity = dict(zip(cluster.rows, cluster.similarities, strict=True))
    said = {i: _Said.of(prompts[i].as_py(), answers[i].as_py(), task) for i in cluster.rows}
    classes: list[list[int]] = []
    for row in cluster.rows:
        agreeing = (c for c in classes if said[c[0]].agrees(said[row], config.agreement))
        if (found := next(agreeing, None)) is None:
            classes.append([row])
        else:
            found.append(row)
            result.findings.append(_duplicate(row, similarity[row], ids[found[0]].as_py()))
    opposed = [
        c
        for c in classes
        if similarity[c[0]] >= config.similarity
        and any(
            other is not c
            and similarity[other[0]] >= config.similarity
            and not said[c[0]].explains(said[other[0]])
            for other in classes
        )
    ]
    if len(opposed) > 1:
        stays = _choose(opposed, ranks, config)
        heads = tuple(c[0] for c in opposed)
        result.conflicts.append(Conflict(heads, min(similarity[h] for h in heads), stays))
        if config.policy != "keep":
            result.findings += [
                _contradiction(head, heads, stays, ids) for head in heads if head != stays
            ]


def _choose(classes: Sequence[Sequence[int]], ranks: Indices, config: ConflictConfig) -> int | None:
    """The row that stays: of the answer most rows give, or of the best source; of a tie none."""
    if config.policy in ("drop", "keep"):
        return None
    if config.policy == "majority":
        weight = [(len(c), c[0]) for c in classes]
    else:
        weight = [(-int(min(ranks[i] for i in c)), c[0]) for c in classes]
    best = max(count for count, _ in weight)
    heads = [head for count, head in weight if count == best]
    return heads[0] if len(heads) == 1 else None


def _duplicate(row: int, similarity: float, kept: str) -> Finding:
    return Finding(row, "near_duplicate", f"similarity {similarity:.2f} to {kept}")


def _contradiction(row: int, heads: Sequence[int], stays: int | None, ids: pa.Array) -> Finding:
    other = stays if stays is not None else next(h for h in heads if h != row)
    fate = "which stays" if stays is not None else "none of which stays"
    detail = f"asks the same as {ids[other].as_py()} and answers differently, {fate}"
    return Finding(row, "conflict", detail)


@dataclass(frozen=True)
class _Said:
    """An answer in comparable parts: the values of a JSON object, or the whole text as one."""

    prompt: str
    values: dict[str, str]
    is_free: bool
    is_label: bool

    @classmethod
    def of(cls, prompt: str, answer: str, task: TaskConfig) -> _Said:
        parts = _json_object(answer) if task.kind != "classification" else None
        values = {"": answer} if parts is None else {k: _written(v) for k, v in parts.items()}
        normal = {key: normalise(value) for key, value in values.items()}
        is_label = task.kind == "classification"
        return cls(normalise(prompt), normal, parts is None and not is_label, is_label)

    def agrees(self, other: _Said, agreement: float) -> bool:
        """Whether both say the same; freely worded parts need not be worded alike."""
        if self.values == other.values:
            return True
        if self.is_free or other.is_free:
            return _word_jaccard(_joined(self), _joined(other)) >= agreement
        return not self._differences(other)

    def explains(self, other: _Said) -> bool:
        """Whether each difference is a value that one prompt names and the other does not."""
        if self.is_label or self.is_free or other.is_free:
            return False
        return all(
            _named(self.values.get(key, ""), self.prompt, other.prompt)
            or _named(other.values.get(key, ""), other.prompt, self.prompt)
            for key in self._differences(other)
        )

    def _differences(self, other: _Said) -> list[str]:
        keys = sorted(self.values.keys() | other.values.keys())
        pairs = {key: (self.values.get(key, ""), other.values.get(key, "")) for key in keys}
        return [
            key
            for key, (ours, theirs) in pairs.items()
            if ours != theirs
            and (self.is_label or not (_is_free_text(ours) and _is_free_text(theirs)))
        ]


def _named(value: str, own: str, other: str) -> bool:
    return bool(value) and value in own and value not in other


def _json_object(text: str) -> dict[str, Any] | None:
    """The members of a JSON object, or of the calls of tools by their places."""
    said, begins, _ = text.partition(_CALLS_BEGIN)
    if begins and (not said or said.endswith("\n")):
        return _members_of_calls(said, text[len(said) :])
    if not text.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _members_of_calls(said: str, text: str) -> dict[str, Any] | None:
    """As ``rows.said_with_calls`` writes them: of two calls every difference counts by itself."""
    try:
        calls = json.loads(text)
        members = {"said": said}
        for number, call in enumerate(calls):
            members[f"{number} name"] = call["name"]
            members |= {f"{number} {key}": value for key, value in call["arguments"].items()}
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
        return None  # an answer that only looks like calls
    return members


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(_unordered(value), sort_keys=True)


def _unordered(value: Any) -> Any:
    """Lists sorted: two annotators who name the same things in another order agree."""
    if isinstance(value, dict):
        return {key: _unordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted(
            (_unordered(item) for item in value), key=lambda i: json.dumps(i, sort_keys=True)
        )
    return value


def _is_free_text(text: str) -> bool:
    return len(_WORD.findall(text)) > _FREE_TEXT_WORDS


def _joined(said: _Said) -> str:
    return " ".join(said.values.values())


def _word_jaccard(a: str, b: str) -> float:
    ours, theirs = set(_WORD.findall(a)), set(_WORD.findall(b))
    union = len(ours | theirs)
    return len(ours & theirs) / union if union else 1.0
