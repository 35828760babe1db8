"""Drift of a snapshot against the last one, by figures that hold no text and no rare value.

A ``Profile`` counts rows by length, source and label, and rows that hold a word by bucket of the
word's hash. What fewer than ``_RARE`` rows have is counted together: no single person shows.

Length, source and label are compared by the population stability index, the sum over the classes
of (q - p) ln(q / p), with the usual bands: below 0.1 no shift, to 0.25 a moderate one, above a
strong one (Siddiqi, Credit Risk Scorecards, 2006). Vocabulary is compared by the Jensen-Shannon
divergence in bits, 0 to 1. Of few rows both are large by chance alone: nothing is called a shift
that 99 of 100 pairs of samples of one and the same data, of these sizes, would stay below.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError

from tasks.artifacts import Record
from tasks.clean.decontaminate import shingle
from tasks.clean.rows import Indices, Rows
from tasks.errors import ArtifactMissingError
from tasks.objects import Store

Verdict = Literal["none", "moderate", "strong"]
Counts = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]
logger = logging.getLogger(__name__)

_RARE = 5  # rows; what fewer have is counted together
_EXPECTED = 2 * _RARE
_MOST_CLASSES = 500
_OTHER = "(other)"
_NONE = "(none)"
_LENGTH_BINS = 44  # by half powers of two: characters up to four million
_BUCKETS = 1 << 12
_BUCKET_SHIFT = np.uint64(64 - 12)
_PSI_BANDS = (0.1, 0.25)
# None are customary for vocabulary. Measured: halves of BANKING77 0.003, BANKING77 against other
# customers of a bank (NLU++) 0.08, against the support tickets of the sample data 0.24.
_DIVERGENCE_BANDS = (0.05, 0.15)
_DRAWS = 400
_SPLITS = 20
_MOST_SPLIT_ROWS = 20_000
_QUANTILE = 0.99
_SMOOTHING = 0.5  # rows added to each class, or an empty one would be infinitely far
_BLOCK = 65_536


class Profile(Record):
    """Aggregates of the rows of one snapshot."""

    num_rows: int
    prompt_lengths: tuple[int, ...] = Field(description="Rows by half powers of two characters")
    answer_lengths: tuple[int, ...] = Field(description="The same of the answers")
    sources: dict[str, int] = Field(description="Rows by source")
    labels: dict[str, int] = Field(description="Rows by label, rare ones together")
    vocabulary: tuple[int, ...] = Field(
        description="Rows that hold a word, by bucket of its hash; last those of rare buckets"
    )
    vocabulary_noise: float = Field(
        description="Divergence between random halves of the rows, times a quarter of their number"
    )


class Shift(Record):
    """One figure of drift; ``by_chance`` is what sampling alone stays below 99 times of 100."""

    name: Literal["prompt_length", "answer_length", "source", "label", "vocabulary"]
    statistic: Literal["psi", "jensen_shannon"]
    value: float
    by_chance: float
    verdict: Verdict
    detail: str


class Drift(Record):
    """What changed since the last snapshot; no shifts where there was none before."""

    num_before: int | None = None
    num_now: int
    shifts: tuple[Shift, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The strongest of all."""
        order: tuple[Verdict, ...] = ("none", "moderate", "strong")
        return max((shift.verdict for shift in self.shifts), key=order.index, default="none")


def drift(now: Rows, before: Profile | None) -> Drift:
    """The drift of rows against the profile of an earlier snapshot."""
    return compare(before, profile(now))


def profile(rows: Rows) -> Profile:
    """The aggregates of the rows."""
    vocabulary, noise = _vocabulary(rows.prompts)
    return Profile(
        num_rows=len(rows),
        prompt_lengths=_length_bins(rows.prompts),
        answer_lengths=_length_bins(rows.answers),
        sources=_shares(rows.column("source")),
        labels=_shares(rows.column("label")),
        vocabulary=tuple(vocabulary),
        vocabulary_noise=noise,
    )


def compare(before: Profile | None, now: Profile) -> Drift:
    """Each figure with its verdict; deterministic, the null distribution is drawn with a seed."""
    if before is None:
        return Drift(num_now=now.num_rows)
    if not before.num_rows or not now.num_rows:
        return Drift(num_before=before.num_rows, num_now=now.num_rows)
    return Drift(
        num_before=before.num_rows,
        num_now=now.num_rows,
        shifts=(
            _by_psi("prompt_length", _binned(before.prompt_lengths), _binned(now.prompt_lengths)),
            _by_psi("answer_length", _binned(before.answer_lengths), _binned(now.answer_lengths)),
            _by_psi("source", before.sources, now.sources),
            _by_psi("label", before.labels, now.labels),
            _by_divergence(before, now),
        ),
    )


def read_previous(store: Store, name: str, data_digest: str | None = None) -> Profile | None:
    """The profile of the last snapshot of a model that is not ``data_digest`` itself, if any.

    A run that is repeated on the same data compares with what the first run compared with.
    """
    for entry in _entries(store, name):
        if entry["data_digest"] != data_digest:
            try:
                return Profile.model_validate(entry["profile"])
            except ValidationError:
                logger.warning("drift: the last profile of %s is of another form: left out", name)
    return None


def write_latest(store: Store, name: str, latest: Profile, data_digest: str) -> None:
    """Remember the profile of a snapshot, and the one before it; the same one twice counts once.

    One object, replaced whole: of two writers at once the later stays, and the next comparison is
    with its snapshot instead of the other's.
    """
    entry = {"data_digest": data_digest, "profile": latest.model_dump(mode="json")}
    others = [e for e in _entries(store, name) if e["data_digest"] != data_digest]
    store.put_bytes(_key(name), json.dumps([entry, *others[:1]]).encode())


def _key(name: str) -> str:
    return f"clean/{name}/latest-profiles.json"


def _entries(store: Store, name: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(store.get_bytes(_key(name)))
    except ArtifactMissingError:
        return []
    except ValueError:
        logger.warning("drift: %s/%s is not JSON: left out", store.root, _key(name))
        return []
    return [e for e in entries if isinstance(e, dict) and {"data_digest", "profile"} <= e.keys()]


def _length_bins(texts: pa.LargeStringArray) -> tuple[int, ...]:
    lengths = np.asarray(pc.utf8_length(texts), dtype=np.float64)
    bins = np.minimum(np.round(2 * np.log2(1 + lengths)), _LENGTH_BINS - 1).astype(np.int64)
    return tuple(np.bincount(bins, minlength=_LENGTH_BINS).tolist())


def _binned(counts: Sequence[int]) -> dict[str, int]:
    return {f"about {round(2 ** (i / 2) - 1)} characters": n for i, n in enumerate(counts) if n}


def _shares(column: pa.Array) -> dict[str, int]:
    """Rows by value, the most frequent first; rare values, and those after many, together."""
    counted = pc.value_counts(pc.fill_null(column, _NONE)).to_pylist()
    counted.sort(key=lambda c: (-c["counts"], c["values"]))
    own = {c["values"]: c["counts"] for c in counted[:_MOST_CLASSES] if c["counts"] >= _RARE}
    rest = len(column) - sum(own.values())
    return {**own, _OTHER: own.get(_OTHER, 0) + rest} if rest else own


def _vocabulary(prompts: pa.LargeStringArray) -> tuple[list[int], float]:
    """Rows by bucket of the words they hold, the rare buckets together in the end; the noise."""
    counts = np.zeros(_BUCKETS, dtype=np.int64)
    # A sample by hash, so that the noise does not cost more than the counting.
    step = np.uint64(-(-len(prompts) // _MOST_SPLIT_ROWS) or 1)
    sample: list[tuple[Indices, Hashes]] = [(np.empty(0, np.int64), np.empty(0, np.uint64))]
    num_sampled = 0
    for start in range(0, len(prompts), _BLOCK):
        words = shingle(prompts.slice(start, _BLOCK), 1)
        buckets = (words.hashes >> _BUCKET_SHIFT).astype(np.int64)
        counts += np.bincount(buckets, minlength=_BUCKETS)
        chosen = words.wholes % step == 0
        num_sampled += int(chosen.sum())
        sizes = np.diff(words.offsets)
        of_chosen = np.repeat(chosen, sizes)
        sample.append((buckets[of_chosen], np.repeat(words.wholes, sizes)[of_chosen]))
    rare = counts < _RARE
    kept = np.where(rare, 0, counts).tolist()
    of_words, of_texts = zip(*sample, strict=True)
    noise = _noise(np.concatenate(of_words), np.concatenate(of_texts), num_sampled)
    return [*kept, int(counts[rare].sum())], noise


def _noise(buckets: Indices, texts: Hashes, num_rows: int) -> float:
    """Divergence between random halves of the rows, for the chance that rows bring with them.

    Words come in rows and not one by one, so a null of independent words would be too narrow. The
    halves are drawn by the hash of the whole text, which no order of the rows changes.
    """
    if num_rows < 2 * _RARE:
        return float(num_rows)  # too few to split: everything may be chance
    found = []
    for factor in np.random.default_rng(0).integers(1 << 62, size=_SPLITS, dtype=np.uint64):
        upper = (texts * (2 * factor + np.uint64(1))) >> np.uint64(63) == 1
        halves = [np.bincount(buckets[side], minlength=_BUCKETS) for side in (upper, ~upper)]
        found.append(_divergence(*(half.astype(np.float64) for half in halves)))
    # Chance divergence falls with 1/n + 1/m, which is 4/n for two halves of n.
    return round(float(np.quantile(found, _QUANTILE)) * num_rows / 4, 6)


def _by_psi(
    name: Literal["prompt_length", "answer_length", "source", "label"],
    before: Mapping[str, int],
    now: Mapping[str, int],
) -> Shift:
    classes = [*sorted({*before, *now} - {_OTHER}), _OTHER]
    p, q = _comparable([before.get(c, 0) for c in classes], [now.get(c, 0) for c in classes])
    used = (p + q) > 0
    value, by_chance = float(_psi(p[used], q[used])), _psi_by_chance(p[used], q[used])
    moved = q / q.sum() - p / p.sum()
    largest = sorted(range(len(classes)), key=lambda i: (-abs(moved[i]), classes[i]))[:3]
    changes = [
        f"{classes[i]} {p[i] / p.sum():.1%} -> {q[i] / q.sum():.1%}" for i in largest if moved[i]
    ]
    return Shift(
        name=name,
        statistic="psi",
        value=round(value, 4),
        by_chance=round(by_chance, 4),
        verdict=_verdict(value, by_chance, _PSI_BANDS),
        detail=", ".join(changes) or "no change",
    )


def _by_divergence(before: Profile, now: Profile) -> Shift:
    p, q = _comparable(before.vocabulary, now.vocabulary)
    value = _divergence(p, q)
    noise = max(before.vocabulary_noise, now.vocabulary_noise)
    by_chance = min(1.0, noise * (1 / before.num_rows + 1 / now.num_rows))
    return Shift(
        name="vocabulary",
        statistic="jensen_shannon",
        value=round(value, 4),
        by_chance=round(by_chance, 4),
        verdict=_verdict(value, by_chance, _DIVERGENCE_BANDS),
        detail=f"{(q > 0).sum()} of {_BUCKETS} word buckets in use, before {(p > 0).sum()}",
    )


def _comparable(before: Sequence[int], now: Sequence[int]) -> tuple[Counts, Counts]:
    """The same classes on both sides, the last of which takes in those with too few rows to tell.

    A class counts by itself when both together let expect ``_EXPECTED`` rows of it on the smaller
    side: else that the one counts it among the rare, and the other by luck does not, would look
    like drift.
    """
    p, q = np.array(before, dtype=np.float64), np.array(now, dtype=np.float64)
    total = p.sum() + q.sum()
    few = (p + q)[:-1] * min(p.sum(), q.sum()) < _EXPECTED * total
    for counts in (p, q):
        counts[-1] += counts[:-1][few].sum()
        counts[:-1][few] = 0
    return p, q


def _psi(p: Counts, q: Counts) -> Any:
    """Along the last axis."""
    p, q = p + _SMOOTHING, q + _SMOOTHING
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return ((q - p) * np.log(q / p)).sum(-1)


def _psi_by_chance(p: Counts, q: Counts) -> float:
    """What pairs of samples of these sizes from the pooled rows stay below 99 times of 100."""
    pooled = (p + q) / (p + q).sum()
    generator = np.random.default_rng(0)
    draws = [generator.multinomial(int(n.sum()), pooled, size=_DRAWS) for n in (p, q)]
    return float(np.quantile(_psi(*(d.astype(np.float64) for d in draws)), _QUANTILE))


def _divergence(p: Counts, q: Counts) -> float:
    """Jensen-Shannon in bits; 0 where either side has nothing."""
    if not p.sum() or not q.sum():
        return 0.0
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float(sum(_relative_entropy(side, middle) for side in (p, q)) / 2)


def _relative_entropy(p: Counts, q: Counts) -> float:
    at = p > 0
    return float((p[at] * np.log2(p[at] / q[at])).sum())


def _verdict(value: float, by_chance: float, bands: tuple[float, float]) -> Verdict:
    if value <= by_chance or value < bands[0]:
        return "none"
    return "moderate" if value < bands[1] else "strong"
