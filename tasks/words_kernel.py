"""The compiled half of ``tasks.words``: apart, so that numba is imported only where it is used.

The constants are those of ``tasks.words``; a hash that differed would find nothing in its tests.
"""

from __future__ import annotations

import numba
import numpy as np

_PRIME, _MIX = np.uint64(0x100000001B3), np.uint64(0xFF51AFD7ED558CCD)
_WORDS, _BITS = 4, 22
_LETTER, _ALONE, _MARK = 1, 2, 3
_SHIFT, _TOP = np.uint64(29), np.uint64(64 - _BITS)


@numba.njit(cache=True, inline="always")
def _next(codes, at, end, classes):  # type: ignore[no-untyped-def]
    """The next word at or after ``at``: where it begins and ends; ``end`` twice after the last."""
    while at < end and classes[codes[at]] != _LETTER and classes[codes[at]] != _ALONE:
        at += 1
    if at >= end:
        return end, end
    begin = at
    at += 1
    if classes[codes[begin]] == _LETTER:
        while at < end and (classes[codes[at]] == _LETTER or classes[codes[at]] == _MARK):
            at += 1
    return begin, at


@numba.njit(cache=True)
def split(codes, classes, spans):  # type: ignore[no-untyped-def]
    """Begin and end of the first words, as many as ``spans`` has room for; answers how many."""
    count, at = 0, 0
    while count < len(spans):
        begin, at = _next(codes, at, len(codes), classes)
        if begin == at:
            break
        spans[count, 0], spans[count, 1] = begin, at
        count += 1
    return count


@numba.njit(cache=True)
def find(codes, offsets, classes, wanted, lengths, seed, found):  # type: ignore[no-untyped-def]
    """(text, begin, hash) of each run of words with a wanted hash; answers how many there are.

    Those that ``found`` has no room for are counted only.
    """
    hashes = np.zeros(_WORDS, dtype=np.uint64)
    begins = np.zeros(_WORDS, dtype=np.int64)
    count = 0
    for text in range(len(offsets) - 1):
        at, number = offsets[text], 0
        while True:
            begin, at = _next(codes, at, offsets[text + 1], classes)
            if begin == at:
                break
            hashed = seed
            for i in range(begin, at):
                code = np.uint64(codes[i])
                if np.uint64(65) <= code <= np.uint64(90):
                    code += np.uint64(32)
                hashed = (hashed ^ code) * _PRIME
            hashes[number % _WORDS], begins[number % _WORDS] = hashed, begin
            number += 1
            for length in range(1, min(number, _WORDS) + 1):
                if not lengths[length]:
                    continue
                combined = seed
                for i in range(number - length, number):
                    combined = ((combined ^ hashes[i % _WORDS]) * _MIX) ^ np.uint64(length)
                    combined ^= combined >> _SHIFT
                prefix = (combined * _MIX) >> _TOP
                if wanted[prefix]:
                    if count < len(found):
                        found[count, 0], found[count, 1] = text, begins[(number - length) % _WORDS]
                        found[count, 2] = np.int64(prefix)
                    count += 1
    return count
