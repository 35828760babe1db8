"""The checks of quality in their order: what teaches a model bad habits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks.clean.config import QualityConfig
from tasks.clean.quality.boilerplate import boilerplate
from tasks.clean.quality.gibberish import find, strangeness
from tasks.clean.quality.language import wrong_language
from tasks.clean.quality.lengths import length_outliers
from tasks.clean.quality.perplexity import Score, perplexity
from tasks.clean.quality.repetition import repetition
from tasks.clean.rows import Finding, Indices, Rows


def quality_findings(
    rows: Rows, config: QualityConfig, score: Score | None = None
) -> list[Finding]:
    """The rows that a check speaks against, in their order, each with the first finding.

    ``score`` gives the base model's perplexity of texts; without it, or where the configuration
    does not ask for it, borderline rows stay.
    """
    found: dict[int, Finding] = {}
    worded, answers = _worded_answers(rows)
    for findings in (
        _strange(rows, config, score),
        _at(worded, boilerplate(answers)) if config.reject_boilerplate else [],
        wrong_language(rows.prompts, config),
        length_outliers(rows.prompts, config.max_length_deviations, "prompt_length_outlier"),
        _at(
            worded,
            length_outliers(answers, config.max_length_deviations, "answer_length_outlier"),
        ),
        _at(worded, repetition(answers, config.max_repeated_share)),
    ):
        for finding in findings:
            found.setdefault(finding.index, finding)
    return [found[index] for index in sorted(found)]


def _strange(rows: Rows, config: QualityConfig, score: Score | None) -> list[Finding]:
    """Gibberish in prompts and answers, then what the base model says of the borderline."""
    if not config.gibberish.enabled:
        return []
    gibberish: list[Finding] = []
    borderline: list[Finding] = []
    everywhere = np.arange(len(rows))
    judged = (("prompt", everywhere, rows.prompts), ("answer", *_worded_answers(rows)))
    for name, at, texts in judged:
        strange = strangeness(texts, config.gibberish)
        gibberish += _named(name, _at(at, find(texts, strange, config.gibberish)))
        if config.perplexity.enabled and score is not None:
            settings = (config.gibberish, config.perplexity, score)
            borderline += _named(name, _at(at, perplexity(texts, strange, *settings)))
    return gibberish + borderline


def _worded_answers(rows: Rows) -> tuple[Indices, pa.LargeStringArray]:
    """(the rows whose answer is text, those answers): a call of a tool is not written prose."""
    worded = np.flatnonzero(~np.asarray(rows.answers_by_call))
    answers = rows.answers if len(worded) == len(rows) else rows.answers.take(pa.array(worded))
    return worded, answers


def _at(rows: Indices, findings: list[Finding]) -> list[Finding]:
    return [Finding(int(rows[f.index]), f.reason, f.detail) for f in findings]


def _named(name: str, findings: list[Finding]) -> list[Finding]:
    return [Finding(f.index, f.reason, f"{name}: {f.detail}") for f in findings]
