"""Rows too close to one that decides: the same words, most of its words, or the same meaning.

Every shingle of every held-out row is indexed, so the comparison by words is exact: what MinHash
estimates and misses now and then, Jaccard similarity and containment, is computed. It is quick all
the same, since only rows that share one of a held-out row's rarest shingles are looked at: to reach
a share t of n shingles a row must hold one of any n - ceil(t n) + 1 of them (prefix filtering,
Chaudhuri, Ganti and Kaushik 2006). What words do not show, a paraphrase, sentence embeddings may.

Reasons begin with what the rows are held against, ``golden``, ``test`` or ``holdout``:
``golden_exact`` the same words in the same order, or the same conversation; ``golden_similar`` by
Jaccard; ``golden_containment`` one holds most of the other; ``golden_meaning`` by embeddings.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.config import DecontaminationConfig
from tasks.clean.minhash import kernel
from tasks.clean.rows import Finding, Indices, Rows

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
HeldOutAs = Literal["golden", "test", "holdout"]
logger = logging.getLogger(__name__)

_BLOCK = 65_536  # rows whose shingles are in memory at once
_EMBEDDED_AT_ONCE = 8_192
_COMPARED_AT_ONCE = 16_384  # held-out vectors a block is multiplied by at once
# An answer that stands in more rows than this is a form of words, and no sign of a leak.
_CANNED = 5
_EXACT, _SIMILAR, _HOLDS, _HELD = 4, 3, 2, 1
_KINDS = {_EXACT: "exact", _SIMILAR: "similar", _HOLDS: "containment", _HELD: "containment"}


def decontaminate(
    rows: Rows,
    held_out_prompts: pa.LargeStringArray,
    held_out_ids: Sequence[str],
    held_out_answers: pa.LargeStringArray | None,
    config: DecontaminationConfig,
    shingle_words: int,
    embed: Embed | None,
    held_out_as: HeldOutAs = "golden",
) -> list[Finding]:
    """The rows that are too close to a held-out row, each with the closest of them.

    ``held_out_answers``: of a task with free-text answers, to find long ones copied into rows; None
    where answers are labels or structured, and many rows rightly share one. ``embed``: None to
    compare words alone.
    """
    order = sorted(range(len(held_out_ids)), key=lambda i: held_out_ids[i])
    ids = [held_out_ids[i] for i in order]
    prompts = held_out_prompts.take(pa.array(order, pa.int64()))
    if not ids or not len(rows):
        return []
    found = _by_words(rows, prompts, shingle_words, config)
    if held_out_answers is not None:
        answers = held_out_answers.take(pa.array(order, pa.int64()))
        _merge(found, _by_answers(rows, prompts, answers, shingle_words, config))
    same = pc.index_in(rows.column("id"), value_set=pa.array(ids, rows.column("id").type))
    for index, number in zip(np.flatnonzero(same.is_valid()), same.drop_null(), strict=True):
        found[int(index)] = _Match(_EXACT, 1.0, number.as_py(), "")
    findings = [_finding(i, match, ids, held_out_as) for i, match in found.items()]
    if embed is not None:
        left = np.setdiff1d(np.arange(len(rows)), np.array(list(found), dtype=np.int64))
        findings += [
            Finding(i, f"{held_out_as}_meaning", f"cosine {cosine:.2f} to {ids[number]}")
            for i, cosine, number in by_meaning(rows.prompts, left, prompts, embed, config.cosine)
        ]
    return sorted(findings, key=lambda finding: finding.index)


def by_meaning(
    prompts: pa.LargeStringArray,
    candidates: Indices,
    held_out: pa.LargeStringArray,
    embed: Embed,
    threshold: float,
) -> Iterator[tuple[int, float, int]]:
    """(row, cosine, number of the held-out prompt) of the candidates at the threshold or above.

    Prompts with other numbers in them are different questions, which embeddings hardly see.
    """
    # Of prompts without a letter the model has nothing to say.
    numbers = np.flatnonzero(pc.match_substring_regex(held_out, r"\pL"))
    candidates = candidates[np.asarray(pc.match_substring_regex(prompts, r"\pL"))[candidates]]
    if not len(numbers) or not len(candidates):
        return
    held_texts = held_out.take(pa.array(numbers)).to_pylist()
    against = embed(held_texts)
    for start in range(0, len(candidates), _EMBEDDED_AT_ONCE):
        block = candidates[start : start + _EMBEDDED_AT_ONCE]
        texts = prompts.take(pa.array(block)).to_pylist()
        vectors = embed(texts)
        best, cosines = _nearest(vectors, against)
        for at in np.flatnonzero(cosines >= threshold):
            nearest, cosine = int(best[at]), float(cosines[at])
            if _digits(texts[at]) != _digits(held_texts[nearest]):
                near = _near(against @ vectors[at], threshold)
                same = (k for k in near if _digits(texts[at]) == _digits(held_texts[k]))
                if (nearest := next(same, -1)) < 0:
                    continue
                cosine = float(against[nearest] @ vectors[at])
            yield int(block[at]), cosine, int(numbers[nearest])
        done = start + len(block)
        logger.info("decontaminate: meaning of %d of %d rows compared", done, len(candidates))


def _digits(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text))


def _near(cosines: npt.NDArray[np.float32], threshold: float) -> list[int]:
    """Those at the threshold or above, the nearest first."""
    near = np.flatnonzero(cosines >= threshold)
    ordered: list[int] = near[np.argsort(-cosines[near], kind="stable")].tolist()
    return ordered


def _nearest(
    vectors: npt.NDArray[np.float32], against: npt.NDArray[np.float32]
) -> tuple[Indices, npt.NDArray[np.float32]]:
    """For each vector the nearest of ``against`` and the cosine, in bounded memory."""
    best = np.zeros(len(vectors), dtype=np.int64)
    cosine = np.full(len(vectors), -2, dtype=np.float32)
    for start in range(0, len(against), _COMPARED_AT_ONCE):
        products = vectors @ against[start : start + _COMPARED_AT_ONCE].T
        nearest = products.argmax(axis=1)
        value = products[np.arange(len(vectors)), nearest]
        better = value > cosine
        best[better], cosine[better] = nearest[better] + start, value[better]
    return best, cosine


class _Match(NamedTuple):
    """The closest held-out text to a row; what is greater is closer."""

    kind: int
    value: float
    number: int
    of: str


@dataclass(frozen=True)
class Shingles:
    """The distinct shingles of each text as sorted 64-bit hashes, and a hash of all its words."""

    offsets: Indices
    hashes: npt.NDArray[np.uint64]
    wholes: npt.NDArray[np.uint64]


@dataclass(frozen=True)
class _Index:
    """Held-out texts by shingle: all postings, and those of each text's rarest shingles alone."""

    texts: Shingles
    keys: npt.NDArray[np.uint64]
    starts: Indices
    postings: npt.NDArray[np.int32]
    rare: npt.NDArray[np.bool_]
    bitmap: npt.NDArray[np.bool_]


def shingle(texts: pa.LargeStringArray, words: int) -> Shingles:
    """Shingles of ``words`` words, whatever their case and what stands between them.

    A text of fewer words is one shingle, one without words has none. In scripts without spaces each
    character counts as a word.
    """
    plain = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    plain = pc.replace_substring_regex(plain, r"[^\pL\pM\pN]+", " ")
    unspaced = r"([\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}])"
    if pc.any(pc.match_substring_regex(plain, unspaced)).as_py():
        plain = pc.replace_substring_regex(plain, unspaced, r" \1 ")
    plain = plain.cast(pa.large_string())
    _, offsets, data = plain.buffers()
    bounds = np.frombuffer(offsets, np.int64)[plain.offset : plain.offset + len(plain) + 1]
    body = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return Shingles(*_shingle_hashes(bounds, body, words))


def _by_words(
    rows: Rows, held_out: pa.LargeStringArray, words: int, config: DecontaminationConfig
) -> dict[int, _Match]:
    """Prompts against prompts; long held-out prompts are looked for in answers too."""
    index = _index(shingle(held_out, words), min(config.jaccard, config.containment))
    found = _matches(rows.prompts, index, words, config, whole=True)
    _merge(found, _matches(rows.answers, index, words, config, whole=False))
    return found


def _by_answers(
    rows: Rows,
    prompts: pa.LargeStringArray,
    answers: pa.LargeStringArray,
    words: int,
    config: DecontaminationConfig,
) -> dict[int, _Match]:
    """Rows that hold a long held-out answer of its own, in whichever turn."""
    held_out = shingle(answers, words)
    index = _index(_only(held_out, _unique(held_out.wholes)), config.containment)
    found: dict[int, _Match] = {}
    for texts in (rows.prompts, rows.answers):
        _merge(found, _matches(texts, index, words, config, whole=False))
    holders = np.bincount([m.number for m in found.values()], minlength=len(prompts))
    canned = set(np.flatnonzero(holders > _CANNED).tolist())
    if canned:
        logger.info("decontaminate: %d held-out answers are canned: not compared", len(canned))
    return {i: m._replace(of="the answer of ") for i, m in found.items() if m.number not in canned}


def _matches(
    texts: pa.LargeStringArray,
    index: _Index,
    words: int,
    config: DecontaminationConfig,
    *,
    whole: bool,
) -> dict[int, _Match]:
    """The closest held-out text of each; ``whole``: likeness counts, not only holding one."""
    found = {}
    least = config.jaccard if whole else 2.0, config.containment, config.min_shingles
    for start in range(0, len(texts), _BLOCK):
        block = shingle(texts.slice(start, _BLOCK), words)
        kinds, values, numbers = _closest(
            (block.offsets, block.hashes, block.wholes),
            (index.texts.offsets, index.texts.hashes, index.texts.wholes),
            (index.keys, index.starts, index.postings, index.rare, index.bitmap),
            *least,
        )
        for at in np.flatnonzero(kinds):
            match = _Match(int(kinds[at]), float(values[at]), int(numbers[at]), "")
            found[start + int(at)] = match
    return found


def _merge(found: dict[int, _Match], more: dict[int, _Match]) -> None:
    for index, match in more.items():
        if index not in found or match[:2] > found[index][:2]:
            found[index] = match


def _finding(index: int, match: _Match, ids: Sequence[str], held_out_as: HeldOutAs) -> Finding:
    text = {
        _EXACT: "the same as",
        _SIMILAR: f"similarity {match.value:.2f} to",
        _HOLDS: f"holds {match.value:.2f} of",
        _HELD: f"{match.value:.2f} of it stand in",
    }[match.kind]
    reason = f"{held_out_as}_{_KINDS[match.kind]}"
    return Finding(index, reason, f"{text} {match.of}{ids[match.number]}")


def _unique(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] == 1)


def _only(texts: Shingles, chosen: npt.NDArray[np.bool_]) -> Shingles:
    """The same texts, those not chosen without shingles."""
    sizes = np.diff(texts.offsets)
    offsets = np.concatenate([[0], np.cumsum(np.where(chosen, sizes, 0))])
    return Shingles(offsets, texts.hashes[np.repeat(chosen, sizes)], texts.wholes)


def _index(texts: Shingles, least_share: float) -> _Index:
    sizes = np.diff(texts.offsets)
    owners = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    by_key = np.argsort(texts.hashes, kind="stable")
    keys, starts, counts = np.unique(texts.hashes[by_key], return_index=True, return_counts=True)
    # The rarest shingles of each text: its first n - ceil(t n) + 1 by number of postings.
    num_postings = np.empty(len(by_key), dtype=np.int64)
    num_postings[by_key] = np.repeat(counts, counts)
    by_rarity = np.lexsort((texts.hashes, num_postings, owners))
    rank = np.empty(len(by_key), dtype=np.int64)
    rank[by_rarity] = np.arange(len(by_key)) - texts.offsets[:-1][owners]
    needed = np.ceil(least_share * sizes - 1e-9).astype(np.int64)
    rare = rank < (sizes - needed + 1)[owners]
    bits = int(np.clip(64 * len(keys), 1 << 12, 1 << 27)).bit_length() - 1
    bitmap = np.zeros(1 << bits, dtype=np.bool_)
    bitmap[(keys & np.uint64((1 << bits) - 1)).astype(np.int64)] = True
    return _Index(texts, keys, np.append(starts, len(by_key)), owners[by_key], rare[by_key], bitmap)


@kernel
def _mixed(value: Any) -> Any:
    """MurmurHash3's finaliser: each bit of the input moves half of the output's."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))


@kernel
def _word_hashes(begin: int, end: int, data: Any, out: Any) -> int:
    """FNV-1a of each word between ``begin`` and ``end``; answers their number."""
    num_words = 0
    value, inside = np.uint64(0), False
    for at in range(begin, end + 1):
        if at < end and data[at] != 32:
            if not inside:
                value, inside = np.uint64(0xCBF29CE484222325), True
            value = (value ^ np.uint64(data[at])) * np.uint64(0x100000001B3)
        elif inside:
            out[num_words] = value
            num_words += 1
            inside = False
    return num_words


@kernel
def _combined(hashes: Any, begin: int, end: int) -> Any:
    value = np.uint64(end - begin)
    for at in range(begin, end):
        value = _mixed(value ^ hashes[at])
    return value


@kernel
def _shingle_hashes(bounds: Any, data: Any, words: int) -> Any:
    num_texts = len(bounds) - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, bounds[text + 1] - bounds[text])
    scratch = np.empty(longest // 2 + 1, dtype=np.uint64)
    offsets = np.zeros(num_texts + 1, dtype=np.int64)
    wholes = np.zeros(num_texts, dtype=np.uint64)
    out = np.empty((bounds[num_texts] - bounds[0]) // 2 + num_texts, dtype=np.uint64)
    size = 0
    for text in range(num_texts):
        num_words = _word_hashes(bounds[text], bounds[text + 1], data, scratch)
        first = size
        if num_words:
            wholes[text] = _combined(scratch, 0, num_words)
            for at in range(max(1, num_words - words + 1)):
                out[size] = _combined(scratch, at, min(at + words, num_words))
                size += 1
            out[first:size].sort()
            kept = first + 1
            for at in range(first + 1, size):
                if out[at] != out[at - 1]:
                    out[kept] = out[at]
                    kept += 1
            size = kept
        offsets[text + 1] = size
    return offsets, out[:size].copy(), wholes


@kernel
def _num_shared(a: Any, b: Any) -> int:
    i = k = shared = 0
    while i < len(a) and k < len(b):
        if a[i] == b[k]:
            shared, i, k = shared + 1, i + 1, k + 1
        elif a[i] < b[k]:
            i += 1
        else:
            k += 1
    return shared


@kernel
def _closest(
    rows: Any, held_out: Any, index: Any, jaccard: float, containment: float, min_shingles: int
) -> Any:
    """Of each row the kind and value of its closest held-out text, and which; kind 0: none."""
    offsets, hashes, wholes = rows
    held_offsets, held_hashes, held_wholes = held_out
    keys, starts, postings, rare, bitmap = index
    num_rows, mask = len(offsets) - 1, np.uint64(len(bitmap) - 1)
    kinds = np.zeros(num_rows, dtype=np.int8)
    values = np.zeros(num_rows, dtype=np.float64)
    numbers = np.full(num_rows, -1, dtype=np.int32)
    seen_by = np.full(len(held_offsets) - 1, -1, dtype=np.int64)
    for row in range(num_rows):
        own = hashes[offsets[row] : offsets[row + 1]]
        places = np.empty(len(own), dtype=np.int64)
        num_known = 0
        for value in own:
            if bitmap[value & mask]:
                place = np.searchsorted(keys, value)
                if place < len(keys) and keys[place] == value:
                    places[num_known] = place
                    num_known += 1
        if num_known == 0:
            continue
        # A row that stands in a held-out text shares one of its own rarest shingles with it; those
        # that no held-out text has are the rarest of all.
        num_rarest = 0
        if jaccard <= 1 and len(own) >= min_shingles:
            needed = int(np.ceil(containment * len(own) - 1e-9))
            num_rarest = max(0, len(own) - needed + 1 - (len(own) - num_known))
        sizes = starts[places[:num_known] + 1] - starts[places[:num_known]]
        by_size = np.argsort(sizes, kind="mergesort")
        for rank in range(num_known):
            place = places[by_size[rank]]
            for at in range(starts[place], starts[place + 1]):
                number = postings[at]
                if seen_by[number] == row or not (rare[at] or rank < num_rarest):
                    continue
                seen_by[number] = row
                other = held_hashes[held_offsets[number] : held_offsets[number + 1]]
                shared = _num_shared(own, other)
                kind, score = 0, 0.0
                if jaccard <= 1 and wholes[row] == held_wholes[number]:
                    kind, score = 4, 1.0
                elif shared >= jaccard * (len(own) + len(other) - shared) - 1e-9:
                    kind, score = 3, shared / (len(own) + len(other) - shared)
                elif len(other) >= min_shingles and shared >= containment * len(other) - 1e-9:
                    kind, score = 2, shared / len(other)
                elif (
                    jaccard <= 1
                    and len(own) >= min_shingles
                    and shared >= containment * len(own) - 1e-9
                ):
                    kind, score = 1, shared / len(own)
                if (kind, score, -number) > (kinds[row], values[row], -numbers[row]):
                    kinds[row], values[row], numbers[row] = kind, score, number
    return kinds, values, numbers
