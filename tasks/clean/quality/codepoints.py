"""Arrow texts as numba reads them: UTF-8 bytes, and what each code point is."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

NUM_CODEPOINTS = 0x110000
Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]

# First code point of each block and the script of its letters; 0 is no script of its own (digits,
# signs, and what is not listed). Han and kana are one: Japanese is written in both.
_SCRIPTS = (
    (0x0000, 0),
    (0x0041, 1),  # Latin
    (0x0250, 1),
    (0x02B0, 0),
    (0x0370, 2),  # Greek
    (0x0400, 3),  # Cyrillic
    (0x0530, 4),  # Armenian
    (0x0590, 5),  # Hebrew
    (0x0600, 6),  # Arabic
    (0x0700, 7),
    (0x0750, 6),
    (0x0780, 7),
    (0x08A0, 6),
    (0x0900, 8),  # Devanagari
    (0x0980, 9),  # Bengali
    (0x0A00, 10),  # Gurmukhi
    (0x0A80, 11),  # Gujarati
    (0x0B00, 12),  # Oriya
    (0x0B80, 13),  # Tamil
    (0x0C00, 14),  # Telugu
    (0x0C80, 15),  # Kannada
    (0x0D00, 16),  # Malayalam
    (0x0D80, 17),  # Sinhala
    (0x0E00, 18),  # Thai
    (0x0E80, 19),  # Lao
    (0x0F00, 20),  # Tibetan
    (0x1000, 21),  # Myanmar
    (0x10A0, 22),  # Georgian
    (0x1100, 23),  # Hangul
    (0x1200, 24),  # Ethiopic
    (0x13A0, 7),
    (0x1780, 25),  # Khmer
    (0x1800, 7),
    (0x1C80, 3),
    (0x1C90, 22),
    (0x1CC0, 7),
    (0x1D00, 1),
    (0x1F00, 2),
    (0x2000, 0),
    (0x2C00, 7),
    (0x2DE0, 3),
    (0x2E80, 26),  # Han and kana
    (0x3130, 23),
    (0x3190, 26),
    (0xA000, 7),
    (0xAC00, 23),
    (0xD7B0, 23),
    (0xF900, 26),
    (0xFB00, 1),
    (0xFB1D, 5),
    (0xFB50, 6),
    (0xFE00, 0),
    (0xFE70, 6),
    (0xFF00, 1),
    (0xFF66, 26),
    (0xFFA0, 23),
    (0xFFE0, 0),
    (0x10000, 7),
    (0x1F000, 0),
    (0x20000, 26),
    (0x40000, 0),
)
NUM_SCRIPTS = 27
LATIN = 1

# What a code point is to the words around it.
SKIPPED, SPACE, LETTER, DIGIT, WHOLE_WORD = range(5)
_UNSPACED = (18, 19, 20, 21, 25, 26)  # written without spaces between words


@lru_cache(maxsize=1)
def scripts() -> npt.NDArray[np.uint8]:
    """The script of each code point that is a letter or a mark; 0 for all others."""
    starts = np.array([start for start, _ in _SCRIPTS])
    of_block = np.array([script for _, script in _SCRIPTS], dtype=np.uint8)
    table = of_block[np.searchsorted(starts, np.arange(NUM_CODEPOINTS), side="right") - 1]
    table[~np.isin(_categories(), [ord("L"), ord("M")])] = 0
    return table


@lru_cache(maxsize=1)
def word_classes() -> npt.NDArray[np.uint8]:
    """What each code point is to a word: skipped, space, letter, digit, or a word by itself."""
    category = _categories()
    table = np.full(NUM_CODEPOINTS, SKIPPED, dtype=np.uint8)
    table[np.isin(category, [ord("L"), ord("M")])] = LETTER
    table[category == ord("N")] = DIGIT
    table[(category == ord("L")) & np.isin(scripts(), _UNSPACED)] = WHOLE_WORD
    spaces = [c for c in range(0x3001) if chr(c).isspace()]
    table[spaces] = SPACE
    return table


@lru_cache(maxsize=1)
def _categories() -> npt.NDArray[np.uint8]:
    """The first letter of each code point's general category."""
    letters = (unicodedata.category(chr(c))[0] for c in range(NUM_CODEPOINTS))
    return np.frombuffer("".join(letters).encode(), dtype=np.uint8)


def utf8(texts: pa.Array) -> tuple[Bytes, Offsets]:
    """The bytes of all texts, and where each begins; a null is an empty text."""
    filled = pc.fill_null(texts, "").cast(pa.large_string())
    _, ends, data = filled.buffers()
    offsets = np.frombuffer(ends, dtype=np.int64)[filled.offset :][: len(filled) + 1]
    empty = np.zeros(0, dtype=np.uint8)
    return empty if data is None else np.frombuffer(data, dtype=np.uint8), offsets


@njit(cache=True)
def decode(data: Bytes, position: int) -> tuple[int, int]:
    """The code point at a position of valid UTF-8, and the position after it."""
    first = int(data[position])
    if first < 0x80:
        return first, position + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (int(data[position + 1]) & 0x3F), position + 2
    second, third = int(data[position + 1]) & 0x3F, int(data[position + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, position + 3
    fourth = int(data[position + 3]) & 0x3F
    return (first & 0x07) << 18 | second << 12 | third << 6 | fourth, position + 4
