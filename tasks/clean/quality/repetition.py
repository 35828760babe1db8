"""Answers that go round in circles: repeated word 4-grams; reason ``repeated_ngrams``.

After the quality rules of Gopher (Rae et al. 2021, table A1), which bound the share of a document
that lies in duplicate n-grams. Here, over the words w_1 ... w_n of an answer:

    share = |{i : w_i lies in a 4-gram that began earlier in the answer, too}| / n

Words are letters and digits between spaces, in lower case; a word without a letter is none, so that
columns of figures do not count. Of scripts written without spaces each character is a word.

Data repeats itself by nature. Where an answer is JSON its texts are judged each by itself, and of
an answer of several lines only what repeats inside a line, and lines that stood there before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from tasks.clean.quality.codepoints import (
    DIGIT,
    LETTER,
    SPACE,
    WHOLE_WORD,
    Bytes,
    Offsets,
    decode,
    utf8,
    word_classes,
)
from tasks.clean.rows import Finding

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

_NGRAM = 4
_LEAST_WORDS = 20
_LEAST_LINES = 3
_LIST_MARK = re.compile(r"^\s*(?:\d+[.):]|[-*+•])\s*")


def repetition(answers: pa.Array, max_share: float) -> list[Finding]:
    """The answers of which repeated 4-grams cover too large a share."""
    candidates = np.flatnonzero(repeated_shares(answers) > max_share)
    texts = answers.take(pa.array(candidates)).to_pylist()
    found = ((int(i), _share_of_prose(text)) for i, text in zip(candidates, texts, strict=True))
    return [
        Finding(
            index,
            "repeated_ngrams",
            f"{share:.0%} of the answer's words lie in repeated {_NGRAM}-grams, at most "
            f"{max_share:.0%} are allowed",
        )
        for index, share in found
        if share > max_share
    ]


def repeated_shares(texts: pa.Array) -> Floats:
    """Share of each text's words that repeated 4-grams cover; 0 for texts too short to judge."""
    covered, words = _counts(texts)
    return np.where(words >= _LEAST_WORDS, covered / np.maximum(words, 1), 0.0)


def _share_of_prose(text: str) -> float:
    """The share again, for a text that may be data: JSON, a table, a list."""
    leaves = _texts_of_json(text)
    if leaves is not None:
        return max((_share_of_prose(leaf) for leaf in leaves), default=0.0)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < _LEAST_LINES:
        return float(repeated_shares(pa.array([text], pa.large_string()))[0])
    covered, words = _counts(pa.array(lines, pa.large_string()))
    unmarked = [_LIST_MARK.sub("", line).strip().lower() for line in lines]
    _, first = np.unique(unmarked, return_index=True)
    is_again = np.ones(len(lines), dtype=bool)
    is_again[first] = False
    return float(np.where(is_again, words, covered).sum() / max(words.sum(), 1))


def _texts_of_json(text: str) -> list[str] | None:
    """All strings in a JSON object or array; None for other texts."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return list(_strings(json.loads(text)))
    except (ValueError, RecursionError):
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _counts(texts: pa.Array) -> tuple[Floats, Floats]:
    """(words covered by repeated 4-grams, words) of each text."""
    data, offsets = utf8(texts)
    covered, words = _count(data, offsets, word_classes())
    return covered, words


@njit(cache=True)
def _count(data: Bytes, offsets: Offsets, classes: Bytes) -> tuple[Floats, Floats]:
    covered, words = np.zeros(len(offsets) - 1), np.zeros(len(offsets) - 1)
    longest = np.diff(offsets).max() if len(offsets) > 1 else 0
    most = longest // 2 + 1  # a word and its space are two bytes at least
    hashes = np.empty(most, dtype=np.uint64)
    size = 16
    while size < 2 * most:
        size *= 2
    slots, owners = np.zeros(size, dtype=np.uint64), np.full(size, -1, dtype=np.int64)
    for row in range(len(words)):
        count = _hash_words(data, offsets[row], offsets[row + 1], classes, hashes)
        words[row] = count
        done = 0  # words up to here are known to be covered, or not
        for i in range(count - _NGRAM + 1):
            if not _is_new(_gram(hashes, i), row, slots, owners):
                covered[row] += i + _NGRAM - max(done, i)
                done = i + _NGRAM
    return covered, words


@njit(cache=True)
def _hash_words(data: Bytes, start: int, end: int, classes: Bytes, hashes: Hashes) -> int:
    """Write the FNV-1a hash of each word; how many there are."""
    count, position, value, has_letter = 0, start, np.uint64(14695981039346656037), False
    while position < end:
        codepoint, after = decode(data, position)
        kind = classes[codepoint]
        if kind in (SPACE, WHOLE_WORD):
            if has_letter:
                hashes[count] = value
                count += 1
            value, has_letter = np.uint64(14695981039346656037), False
        if kind == WHOLE_WORD:
            hashes[count] = np.uint64(codepoint)
            count += 1
        elif kind in (LETTER, DIGIT):
            has_letter = has_letter or kind == LETTER
            if 65 <= codepoint <= 90:
                codepoint += 32
            value = (value ^ np.uint64(codepoint)) * np.uint64(1099511628211)
        position = after
    if has_letter:
        hashes[count] = value
        count += 1
    return count


@njit(cache=True)
def _gram(hashes: Hashes, start: int) -> np.uint64:
    value = np.uint64(0)
    for i in range(start, start + _NGRAM):
        value = (value ^ hashes[i]) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return value


@njit(cache=True)
def _is_new(gram: np.uint64, row: int, slots: Hashes, owners: Offsets) -> bool:
    """Whether the row's set lacked the gram; a slot of another row counts as free."""
    mask = np.uint64(len(slots) - 1)
    place = gram & mask
    while owners[place] == row:
        if slots[place] == gram:
            return False
        place = (place + np.uint64(1)) & mask
    slots[place], owners[place] = gram, row
    return True
