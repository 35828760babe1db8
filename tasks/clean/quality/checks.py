"""The checks of quality in their order: what teaches a model bad habits."""

from __future__ import annotations

from tasks.clean.config import QualityConfig
from tasks.clean.quality.boilerplate import boilerplate
from tasks.clean.quality.gibberish import find, strangeness
from tasks.clean.quality.language import wrong_language
from tasks.clean.quality.lengths import length_outliers
from tasks.clean.quality.perplexity import Score, perplexity
from tasks.clean.quality.repetition import repetition
from tasks.clean.rows import Finding, Rows


def quality_findings(
    rows: Rows, config: QualityConfig, score: Score | None = None
) -> list[Finding]:
    """The rows that a check speaks against, in their order, each with the first finding.

    ``score`` gives the base model's perplexity of texts; without it, or where the configuration
    does not ask for it, borderline rows stay.
    """
    found: dict[int, Finding] = {}
    for findings in (
        _strange(rows, config, score),
        boilerplate(rows.answers) if config.reject_boilerplate else [],
        wrong_language(rows.prompts, config),
        length_outliers(rows.prompts, config.max_length_deviations, "prompt_length_outlier"),
        length_outliers(rows.answers, config.max_length_deviations, "answer_length_outlier"),
        repetition(rows.answers, config.max_repeated_share),
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
    for name, texts in (("prompt", rows.prompts), ("answer", rows.answers)):
        strange = strangeness(texts, config.gibberish)
        gibberish += _named(name, find(texts, strange, config.gibberish))
        if config.perplexity.enabled and score is not None:
            settings = (config.gibberish, config.perplexity, score)
            borderline += _named(name, perplexity(texts, strange, *settings))
    return gibberish + borderline


def _named(name: str, findings: list[Finding]) -> list[Finding]:
    return [Finding(f.index, f.reason, f"{name}: {f.detail}") for f in findings]
