"""Gibberish by letters: a character trigram model of all texts, each text judged by the others.

A text's surprise is its mean -log2 P(character | the two before it), with the text's own trigrams
taken out of the counts: random letters would otherwise vouch for themselves. Each script has a
model of its own. Gibberish is what

1. surprises far more than the other texts do,
2. has its letters at random: the two before a letter tell next to nothing about it, and
3. is neither plainly another language, which is for the check of the language to say, nor code or
   figures, in which letters do not make up the text.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from tasks.clean.config import GibberishConfig
from tasks.clean.quality.codepoints import (
    LATIN,
    NUM_CODEPOINTS,
    NUM_SCRIPTS,
    Bytes,
    Offsets,
    decode,
    scripts,
    utf8,
)
from tasks.clean.rows import Finding
from tasks.example import normalise
from tasks.languages import NO_LANGUAGE, identify

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Counts = tuple[Integers, Integers, Integers]  # of characters, of pairs and of trigrams

_SMOOTHING = 0.1  # pseudo-count of each unseen continuation
# Of rows that are all alike the deviation is nearly nothing; then no row may stand out for a hair.
_LEAST_DEVIATION = 0.05  # bits
# Bits a character that the two before it tell. Of the messages of BANKING77 the least is 0.5, of
# the sample data's gibberish the most is 0.2. One character counts for no more than three bits: a
# rare one would else decide alone.
_LEAST_ORDER = 0.3
_MOST_TOLD = 3.0
# Fewer texts of a script say nothing about what is normal in it.
_LEAST_TEXTS = 20
# Characters told apart, the most frequent ones; all others are one. 256^3 counters are 128 MiB.
_MOST_CHARACTERS = 256
_LEAST_LETTERS = 0.8  # share of a text that is no code
_LEAST_SURENESS = 0.2  # that a candidate is written in a language
_BATCH_TEXTS = 50_000


@dataclass(frozen=True, slots=True)
class Strangeness:
    """How strange each text is; NaN where a text is too short, or its script too rare, to judge."""

    bits: Floats  # a character
    order: Floats  # bits that the two characters before each tell of it
    deviations: Floats  # of the bits above their median


def gibberish(texts: pa.Array, config: GibberishConfig) -> list[Finding]:
    """The texts that stand out from the others of their script, and whose letters are at random."""
    return find(texts, strangeness(texts, config), config) if config.enabled else []


def find(texts: pa.Array, strange: Strangeness, config: GibberishConfig) -> list[Finding]:
    """The gibberish among texts whose strangeness is known."""
    is_far = strange.deviations > config.max_deviations
    is_random = strange.order < _LEAST_ORDER
    candidates = np.flatnonzero(is_far & is_random)
    return [
        Finding(
            i,
            "gibberish",
            f"{strange.bits[i]:.1f} bits a character, {strange.deviations[i]:.1f} deviations above "
            f"the median; at most {config.max_deviations:g} are allowed",
        )
        for i in candidates.tolist()
        if not _is_excused(texts[i].as_py())
    ]


def strangeness(texts: pa.Array, config: GibberishConfig) -> Strangeness:
    """How strange the texts are that are long enough to judge, given those of the same script.

    A text without letters is held against the most frequent script.
    """
    sizes = np.asarray(pc.fill_null(pc.utf8_length(texts), 0))
    script = dominant_scripts(texts)
    script[script == 0] = np.bincount(script[script > 0], minlength=1).argmax()
    bits, order, deviations = np.full((3, len(texts)), np.nan)
    for one in np.unique(script):
        members = np.flatnonzero((script == one) & (sizes >= config.min_characters))
        if len(members) >= _LEAST_TEXTS:
            bits[members], order[members] = _surprises(texts.take(pa.array(members)))
            deviations[members] = _deviations(bits[members])
    return Strangeness(bits, order, deviations)


def surprises(texts: pa.Array) -> Floats:
    """Mean bits a character of each text, given all the other texts."""
    return _surprises(texts)[0]


def dominant_scripts(texts: pa.Array) -> Bytes:
    """The script of most letters of each text; 0 for a text without letters."""
    data, offsets = utf8(texts)
    return np.asarray(_dominant_scripts(data, offsets, scripts()))


def _deviations(bits: Floats) -> Floats:
    """How many median absolute deviations each lies above the median."""
    above = bits - np.median(bits)
    return np.asarray(above / max(float(np.median(np.abs(above))), _LEAST_DEVIATION))


def _surprises(texts: pa.Array) -> tuple[Floats, Floats]:
    """(mean bits of a character given the two before it, mean bits that those two told)."""
    data, offsets = utf8(_normalised(texts))
    classes, num_classes, num_seen = _classes(data, offsets)
    singles, contexts, trigrams = (np.zeros(num_classes**n, dtype=np.int64) for n in (1, 2, 3))
    counts = (singles, contexts, trigrams)
    longest = int(np.diff(offsets).max(initial=0)) + 3
    scratch = np.empty(longest, dtype=np.uint8)
    _count(data, offsets, classes, counts, scratch)
    unseen = _SMOOTHING * max(num_seen, 1)
    bits, order = _leave_one_out(data, offsets, classes, counts, scratch, unseen)
    return bits, order


def _is_excused(text: str) -> bool:
    """Whether a text is code or figures, or written in a language, if not in that of its fellows.

    The language is asked of Latin letters alone: random letters of another script look like the
    language written in it.
    """
    visible = "".join(text.split())
    letters = sum(unicodedata.category(character)[0] in "LM" for character in visible)
    if letters < _LEAST_LETTERS * len(visible):
        return True
    if dominant_scripts(pa.array([text], pa.large_string()))[0] != LATIN:
        return False
    language, probability = identify(text)
    return language != NO_LANGUAGE and probability >= _LEAST_SURENESS


def _normalised(texts: pa.Array) -> pa.Array:
    """As ``tasks.example.normalise``, but that ASCII is left to the kernels."""
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), True)
    others = np.flatnonzero(~np.asarray(is_ascii))
    if not len(others):
        return texts
    parts = [
        pa.array(map(normalise, texts.take(pa.array(batch)).to_pylist()), texts.type)
        for batch in np.split(others, range(_BATCH_TEXTS, len(others), _BATCH_TEXTS))
    ]
    return pc.replace_with_mask(texts, pc.invert(is_ascii), pa.concat_arrays(parts))


def _classes(data: Bytes, offsets: Offsets) -> tuple[Bytes, int, int]:
    """(class of each code point, number of classes, number of characters told apart).

    Class 0 is all characters that are not among the most frequent.
    """
    counts = np.zeros(NUM_CODEPOINTS, dtype=np.int64)
    _count_characters(data, offsets, counts)
    seen = np.flatnonzero(counts)
    frequent = seen[np.argsort(-counts[seen], kind="stable")][: _MOST_CHARACTERS - 1]
    classes = np.zeros(NUM_CODEPOINTS, dtype=np.uint8)
    classes[np.sort(frequent)] = np.arange(1, len(frequent) + 1)
    return classes, len(frequent) + 1, min(len(seen), _MOST_CHARACTERS)


@njit(cache=True)
def _spell(data: Bytes, start: int, end: int, classes: Bytes, out: Bytes) -> int:
    """Write the text's classes, lower case, white space collapsed, two spaces before, one after."""
    space = classes[32]
    out[0] = out[1] = space
    size, position, is_gap = 2, start, False
    while position < end:
        codepoint, position = decode(data, position)
        if codepoint == 32 or 9 <= codepoint <= 13 or 28 <= codepoint <= 31:
            is_gap = size > 2
            continue
        if is_gap:
            out[size] = space
            size += 1
            is_gap = False
        if 65 <= codepoint <= 90:
            codepoint += 32
        out[size] = classes[codepoint]
        size += 1
    out[size] = space
    return size + 1


@njit(cache=True)
def _count_characters(data: Bytes, offsets: Offsets, counts: npt.NDArray[np.int64]) -> None:
    for row in range(len(offsets) - 1):
        position = offsets[row]
        while position < offsets[row + 1]:
            codepoint, position = decode(data, position)
            if 9 <= codepoint <= 13 or 28 <= codepoint <= 31:
                continue
            counts[codepoint + 32 if 65 <= codepoint <= 90 else codepoint] += 1
        counts[32] += 1


@njit(cache=True)
def _count(data: Bytes, offsets: Offsets, classes: Bytes, counts: Counts, scratch: Bytes) -> None:
    for row in range(len(offsets) - 1):
        size = _spell(data, offsets[row], offsets[row + 1], classes, scratch)
        _add(scratch, size, counts, 1)


@njit(cache=True)
def _add(text: Bytes, size: int, counts: Counts, step: int) -> None:
    singles, contexts, trigrams = counts
    num_classes = len(singles)
    for i in range(size - 2):
        context = np.int64(text[i]) * num_classes + text[i + 1]
        singles[text[i + 2]] += step
        contexts[context] += step
        trigrams[context * num_classes + text[i + 2]] += step


@njit(cache=True)
def _leave_one_out(
    data: Bytes, offsets: Offsets, classes: Bytes, counts: Counts, scratch: Bytes, unseen: float
) -> tuple[Floats, Floats]:
    singles, contexts, trigrams = counts
    num_classes, total = len(singles), singles.sum()
    bits, order = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1)
    for row in range(len(bits)):
        size = _spell(data, offsets[row], offsets[row + 1], classes, scratch)
        length = size - 2
        _add(scratch, size, counts, -1)
        for i in range(length):
            last = scratch[i + 2]
            context = np.int64(scratch[i]) * num_classes + scratch[i + 1]
            seen = trigrams[context * num_classes + last] + _SMOOTHING
            bits[row] -= math.log2(seen / (contexts[context] + unseen))
            # The same with the letter's own frequency for what was never seen: that tells nothing.
            alone = (singles[last] + _SMOOTHING) / (total - length + unseen)
            expected = (seen - _SMOOTHING) / alone + unseen
            told = math.log2(expected / (contexts[context] + unseen))
            order[row] += min(max(told, -_MOST_TOLD), _MOST_TOLD)
        _add(scratch, size, counts, 1)
        bits[row] /= length
        order[row] /= length
    return bits, order


@njit(cache=True)
def _dominant_scripts(data: Bytes, offsets: Offsets, scripts: Bytes) -> Bytes:
    dominant = np.zeros(len(offsets) - 1, dtype=np.uint8)
    for row in range(len(dominant)):
        counts = np.zeros(NUM_SCRIPTS, dtype=np.int64)
        position = offsets[row]
        while position < offsets[row + 1]:
            codepoint, position = decode(data, position)
            counts[scripts[codepoint]] += 1
        counts[0] = 0
        dominant[row] = counts.argmax()  # 0, of no letters: the first of the equal ones
    return dominant
