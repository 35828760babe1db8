"""Examples in, clean split examples out: each check once, in order, every rejection kept."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.artifacts import TaskConfig
from tasks.clean.config import CleanConfig, SplitConfig
from tasks.clean.form import form_check
from tasks.clean.gibberish import gibberish
from tasks.clean.pii import redact, redact_texts
from tasks.clean.similar import Match, exact_duplicates, golden_overlaps, near_duplicates
from tasks.errors import DataError
from tasks.example import Example, to_table

logger = logging.getLogger(__name__)
_SAMPLES_PER_REASON = 3
_SAMPLE_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row that goes: which, why (a stable reason) and the evidence."""

    example: Example
    reason: str
    detail: str


@dataclass(slots=True)
class Cleaned:
    """What cleaning made of a snapshot."""

    examples: list[Example]
    splits: list[str]
    rejections: list[Rejection]
    num_redacted: dict[str, int]
    steps: list[tuple[str, int]] = field(default_factory=list)

    @property
    def num_rejected(self) -> dict[str, int]:
        """Rejected rows by reason, in the order of the checks."""
        return dict(Counter(r.reason for r in self.rejections))


def clean_examples(
    examples: Sequence[Example], golden: Sequence[Example], config: CleanConfig, task: TaskConfig
) -> Cleaned:
    """Run the checks in order: form, exact and near duplicates, leakage, gibberish; then redact.

    Duplicates are sought over everything before the split, so that no two splits share one.
    Raises DataError when nothing is left.
    """
    kept = list(examples)
    rejections: list[Rejection] = []
    steps: list[tuple[str, int]] = [("read", len(kept))]
    for name, find in _checks(golden, config, task):
        found = find(kept)
        gone = {r.example_index for r in found}
        rejections += [Rejection(kept[r.example_index], r.reason, r.detail) for r in found]
        kept = [e for i, e in enumerate(kept) if i not in gone]
        steps.append((name, len(kept)))
        logger.info("clean %s: %d rejected, %d left", name, len(found), len(kept))
    if not kept:
        counts = ", ".join(f"{r}: {n}" for r, n in Counter(r.reason for r in rejections).items())
        raise DataError(
            f"All {len(examples)} rows were rejected ({counts}). First: "
            f"{_where(rejections[0].example)}: {rejections[0].detail}. Correct the rows, or the "
            "check in the `clean` section."
        )
    redaction = redact(kept, config.pii)
    logger.info("clean redact: %d entities in %d rows", redaction.counts.total(), len(kept))
    splits = [split_of(e.group, config.split) for e in kept]
    num_redacted = dict(sorted(redaction.counts.items()))
    return Cleaned(redaction.examples, splits, rejections, num_redacted, steps)


def split_of(group: str, config: SplitConfig) -> str:
    """``train``, ``validation`` or ``test`` by the hash of the group alone."""
    point = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") / 2**64
    if point < config.train:
        return "train"
    return "validation" if point < config.train + config.validation else "test"


def write(cleaned: Cleaned, config: CleanConfig, folder: Path) -> None:
    """``examples.parquet`` with its split, ``rejected.parquet``, and ``stats.json`` to look at."""
    table = to_table(cleaned.examples).append_column("split", pa.array(cleaned.splits, pa.string()))
    pq.write_table(table, folder / "examples.parquet")
    rejected = to_table([r.example for r in cleaned.rejections])
    for name in ("reason", "detail"):
        column = pa.array([getattr(r, name) for r in cleaned.rejections], pa.string())
        rejected = rejected.append_column(name, column)
    pq.write_table(rejected, folder / "rejected.parquet")
    stats = {
        "steps": cleaned.steps,
        "num_rejected": cleaned.num_rejected,
        "num_redacted": cleaned.num_redacted,
        "samples": _samples(cleaned.rejections, config),
    }
    text = json.dumps(stats, ensure_ascii=False, indent=1)
    (folder / "stats.json").write_text(text, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Finding:
    example_index: int
    reason: str
    detail: str


_Find = Callable[[Sequence[Example]], list[_Finding]]


def _checks(
    golden: Sequence[Example], config: CleanConfig, task: TaskConfig
) -> list[tuple[str, _Find]]:
    check = form_check(task)
    words = config.duplicates.shingle_words

    def form(examples: Sequence[Example]) -> list[_Finding]:
        verdicts = ((i, check(e)) for i, e in enumerate(examples))
        return [_Finding(i, *verdict) for i, verdict in verdicts if verdict]

    def senseless(examples: Sequence[Example]) -> list[_Finding]:
        found = gibberish([e.prompt for e in examples], config.gibberish)
        return [_Finding(i, "gibberish", f"{bits:.1f} bits a character") for i, bits in found]

    return [
        ("form", form),
        ("exact_duplicate", _matches("exact_duplicate", exact_duplicates)),
        (
            "golden_overlap",
            _matches(
                "golden_overlap",
                lambda rows: golden_overlaps(rows, golden, config.golden_overlap, words),
            ),
        ),
        (
            "near_duplicate",
            _matches("near_duplicate", lambda rows: near_duplicates(rows, config.duplicates)),
        ),
        ("gibberish", senseless),
    ]


def _matches(reason: str, find: Callable[[Sequence[Example]], list[Match]]) -> _Find:
    def found(examples: Sequence[Example]) -> list[_Finding]:
        return [
            _Finding(m.index, reason, f"similarity {m.similarity:.2f} to {m.kept_id}")
            for m in find(examples)
        ]

    return found


def _samples(rejections: Sequence[Rejection], config: CleanConfig) -> list[dict[str, str]]:
    """A few rejected rows by reason for the report, redacted: rejected rows hold raw text."""
    chosen: list[Rejection] = []
    taken: Counter[str] = Counter()
    for rejection in rejections:
        if taken[rejection.reason] < _SAMPLES_PER_REASON:
            taken[rejection.reason] += 1
            chosen.append(rejection)
    texts, details = [r.example.prompt for r in chosen], [r.detail for r in chosen]
    if config.pii.enabled:
        safe = redact_texts([*texts, *details], config.pii, Counter())
        texts, details = safe[: len(texts)], safe[len(texts) :]
    # Cut after redaction: half a mail address is not recognised as one.
    return [
        {
            "reason": r.reason,
            "where": _where(r.example),
            "detail": detail[:_SAMPLE_CHARACTERS],
            "text": text[:_SAMPLE_CHARACTERS],
        }
        for r, detail, text in zip(chosen, details, texts, strict=True)
    ]


def _where(example: Example) -> str:
    return f"{example.meta.get('file', '?')}:{example.meta.get('line', '?')}"
