"""Where did the model get better or worse? The primary metric on parts of the golden set.

A part is what an expression of the config gives for a row: its source, its label, its length, a
field of its meta, or any JMESPath expression. Many parts are looked at, and by chance some of them
differ: they say where to look, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jmespath  # type: ignore[import-untyped]
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]

from tasks.errors import ConfigError
from tasks.evidence import SliceScore
from tasks.example import Example
from tasks.intervals import interval, paired_difference
from tasks.languages import identify
from tasks.report.config import ReportConfig
from tasks.scores import MetricScores

_LENGTHS = ((15, "up to 15 words"), (40, "16 to 40 words"), (120, "41 to 120 words"))
_LEAST_LETTERS = 20  # fewer do not tell a language


def slice_scores(
    rows: Sequence[Example], ours: MetricScores, theirs: MetricScores, config: ReportConfig
) -> tuple[list[SliceScore], dict[str, int]]:
    """The parts of every expression, the largest first, and how many more there are by expression.

    ``ours`` and ``theirs`` name the rows that they measured in the same order. An expression that
    gives the same for every row, or nothing for any, shows nothing.

    Raises:
        ConfigError: an expression cannot be evaluated over a row.
    """
    position = {identity: i for i, identity in enumerate(ours.ids or ())}
    known = [row for row in rows if row.id in position]
    fields = [row_fields(row) for row in known]
    scores: list[SliceScore] = []
    more: dict[str, int] = {}
    for name, expression in config.slices.items():
        parts: dict[str, list[int]] = {}
        for row, values in zip(known, fields, strict=True):
            for value in _values(name, expression, values):
                parts.setdefault(value, []).append(position[row.id])
        if len(parts) < 2:
            continue
        largest = sorted(parts.items(), key=lambda part: (-len(part[1]), part[0]))
        scores += [
            _score(name, value, _of(ours, at), _of(theirs, at), config)
            for value, at in largest[: config.max_parts]
        ]
        if len(parts) > config.max_parts:
            more[name] = len(parts) - config.max_parts
    return scores, more


def row_fields(row: Example) -> dict[str, Any]:
    """What an expression sees of a row."""
    num_words = len(row.prompt.split())
    letters = sum(character.isalpha() for character in row.prompt)
    return {
        "source": row.source,
        "label": row.label,
        "group": row.group,
        "meta": dict(row.meta),
        "prompt": row.prompt,
        "answer": row.answer,
        "messages": [message.as_chat() for message in row.messages],
        "num_turns": sum(message.role == "user" for message in row.messages),
        "num_words": num_words,
        "length": next((text for most, text in _LENGTHS if num_words <= most), "over 120 words"),
        "language": identify(row.prompt)[0] if letters >= _LEAST_LETTERS else None,
    }


def _values(name: str, expression: str, fields: Mapping[str, Any]) -> Iterator[str]:
    """The parts that a row belongs to: several where the expression gives a list."""
    try:
        found = jmespath.search(expression, fields)
    except JMESPathError as error:
        raise ConfigError(f"report.slices.{name}: {expression!r}: {error}") from error
    for value in found if isinstance(found, list) else [found]:
        if isinstance(value, bool):
            yield "yes" if value else "no"
        elif value is not None and not isinstance(value, dict | list):
            yield str(value)


def _of(scores: MetricScores, at: Sequence[int]) -> MetricScores:
    return replace(scores, stats=scores.stats[list(at)], ids=None)


def _score(
    name: str, value: str, ours: MetricScores, theirs: MetricScores, config: ReportConfig
) -> SliceScore:
    difference = paired_difference(ours, theirs)
    return SliceScore(
        name=name,
        value=value,
        n=difference.n,
        is_small=difference.n < config.min_slice,
        candidate=interval(ours),
        baseline=interval(theirs),
        difference=difference.value,
        ci_low=difference.ci_low,
        ci_high=difference.ci_high,
    )
