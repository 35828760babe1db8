"""Texts as sequences of words, in Arrow columns by the million: where could a phrase begin?

A word is a run of letters and digits, lower case and compatibility-composed; everything else
separates. In scripts without spaces each character is a word. Escapes that JSON, HTML and URLs put
into texts are looked through. A short hash of the first words of a phrase finds the few places
where it may stand; whoever asks then compares the words themselves.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

PREFIX_WORDS, PREFIX_BITS = 4, 22
_PRIME, _MIX, _MASK = 0x100000001B3, 0xFF51AFD7ED558CCD, (1 << 64) - 1
_SEPARATOR, _LETTER, _ALONE, _MARK = range(4)
# Scripts that put no spaces between words: Thai to Myanmar, Khmer, kana, and Han.
_UNSPACED = ((0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF))
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_ESCAPES = r"\\|%[0-9a-fA-F]{2}|&#?\w+;"
# With the letter before, which an accent may join: an ASCII character joins nothing before it.
_FOREIGN = re.compile(r"[\x01-\x7f]?[^\x00-\x7f]+")
_SHORT = 32
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
_JSON_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([nrtbf])|(.))", re.DOTALL)
Indices = npt.NDArray[np.int64]


class Candidate(NamedTuple):
    """Where a phrase with this hash of its first words may begin: text, character, hash."""

    text: int
    start: int
    prefix: int


@dataclass(frozen=True)
class Texts:
    """Folded texts one after the other as code points; text ``i`` belongs to row ``row_of[i]``."""

    codes: npt.NDArray[np.uint32]
    offsets: Indices
    row_of: Indices

    def candidates(
        self, wanted: npt.NDArray[np.bool_], lengths: npt.NDArray[np.bool_], seed: int
    ) -> Iterator[Candidate]:
        """Places where as many words as one of ``lengths`` have a hash that is ``wanted``."""
        size = 1024
        while True:
            found = np.empty((size, 3), dtype=np.int64)
            count = _kernel("find")(
                self.codes, self.offsets, _classes(), wanted, lengths, np.uint64(seed), found
            )
            if count <= size:
                return (Candidate(*row) for row in found[:count].tolist())
            size = count

    def words_from(self, text: int, start: int, at_most: int) -> list[str]:
        """The words from a character of a text on."""
        codes = self.codes[start : self.offsets[text + 1]]
        spans = np.empty((at_most, 2), dtype=np.int64)
        count = _kernel("split")(codes, _classes(), spans)
        return [_text(codes[begin:end]) for begin, end in spans[:count].tolist()]


def words(text: str) -> list[str]:
    """The words of one text."""
    folded = np.frombuffer(fold(text).encode("utf-32-le", "replace"), dtype=np.uint32)
    return Texts(folded, np.array([0, len(folded)]), np.zeros(1, np.int64)).words_from(
        0, 0, len(folded)
    )


def prefix_hash(found: Sequence[str], seed: int) -> int:
    """The short hash of a phrase's first words, as ``Texts.candidates`` computes it."""
    first = found[:PREFIX_WORDS]
    combined = seed
    for word in first:
        hashed = seed
        for character in word:
            hashed = ((hashed ^ ord(character)) * _PRIME) & _MASK
        combined = (((combined ^ hashed) * _MIX) & _MASK) ^ len(first)
        combined ^= combined >> 29
    return ((combined * _MIX) & _MASK) >> (64 - PREFIX_BITS)


def fold(text: str) -> str:
    """Equal for texts that differ in case, in composition or in invisible characters alone.

    But for the case of ASCII letters, which the kernel sees to: what is ASCII is to cost nothing.
    """
    return text if text.isascii() else _FOREIGN.sub(_fold_foreign, text)


def _fold_foreign(match: re.Match[str]) -> str:
    text = match.group()
    return _fold_known(text) if len(text) <= _SHORT else _fold(text)


@lru_cache(maxsize=1 << 16)
def _fold_known(text: str) -> str:
    return _fold(text)


def _fold(text: str) -> str:
    visible = _invisible().sub("", text)
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def texts_of(batch: pa.RecordBatch) -> Iterator[Texts]:
    """All texts of a batch, however nested: as they are, and where that differs, without escapes.

    Bytes are read as UTF-8, and where they are not that, in the encodings they may be in.
    """
    rows = np.arange(batch.num_rows)
    for column in batch.columns:
        for texts, row_of in _leaves(column, rows):
            yield from _folded(texts, row_of)
            escaped = pc.match_substring_regex(texts, _ESCAPES)
            if pc.any(escaped).as_py():
                plain = [unescape(text) for text in texts.filter(escaped).to_pylist()]
                yield from _folded(pa.array(plain, pa.large_string()), row_of[_mask(escaped)])


def unescape(text: str) -> str:
    """The text without the escapes of JSON, URLs and HTML."""
    if "\\" in text:
        plain = _JSON_ESCAPE.sub(_json_character, text)
        text = plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return html.unescape(unquote(text))


def _json_character(match: re.Match[str]) -> str:
    code, white, other = match.groups()
    return chr(int(code, 16)) if code else " " if white else other


def _leaves(column: pa.Array, rows: Indices) -> Iterator[tuple[pa.Array, Indices]]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield from _leaves(column.dictionary_decode(), rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if _holds_text(kind):
            parents = np.asarray(pc.list_parent_indices(column), dtype=np.int64)
            yield from _leaves(column.flatten(), rows[parents])
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _leaves(child, rows)
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        found = [
            (text, row)
            for raw, row in zip(column.to_pylist(), rows, strict=True)
            if raw
            for text in readings(raw)
        ]
        texts = pa.array([text for text, _ in found], pa.large_string())
        yield texts, np.array([row for _, row in found], dtype=np.int64)
    elif _holds_text(kind):
        yield pc.fill_null(column.cast(pa.large_string()), ""), rows


def _holds_text(kind: pa.DataType) -> bool:
    """Whether the type has texts anywhere inside; token ids have none, and are many."""
    if pa.types.is_dictionary(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _holds_text(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_text(field.type) for field in kind)
    is_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(
        matches(kind) for matches in (*is_text, pa.types.is_binary, pa.types.is_large_binary)
    )


def readings(raw: bytes) -> list[str]:
    """What bytes may say: UTF-8, or else the encodings that old tables and exports come in."""
    readings = [raw.decode("utf-8", "replace")]
    if b"\0" in raw:
        readings += [raw.decode(name, "replace") for name in ("utf-16-le", "utf-16-be")]
    if not raw.isascii() and "\ufffd" in readings[0]:
        readings.append(raw.decode("cp1252", "replace"))
    return readings


def _folded(texts: pa.Array, row_of: Indices) -> Iterator[Texts]:
    """ASCII as it lies in Arrow's buffer; the rest folded in one piece, no call a row."""
    is_ascii = pc.string_is_ascii(texts)
    plain = texts.filter(is_ascii)
    if len(plain):
        offsets = np.frombuffer(plain.buffers()[1], np.int64)[plain.offset :][: len(plain) + 1]
        data = np.frombuffer(plain.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
        yield Texts(data.astype(np.uint32), offsets - offsets[0], row_of[_mask(is_ascii)])
    other = texts.filter(pc.invert(is_ascii))
    if len(other):
        # A separator that is never a letter and joins with nothing.
        other = pc.replace_substring(other, "\0", " ")
        one = pa.LargeListArray.from_arrays(pa.array([0, len(other)], pa.int64()), other)
        joined = pc.binary_join(one, pa.scalar("\0", pa.large_string()))[0].as_py()
        codes = np.frombuffer(fold(joined).encode("utf-32-le", "replace"), dtype=np.uint32)
        ends = np.flatnonzero(codes == 0)
        # Each text keeps the separator after it, which is no word.
        offsets = np.concatenate([[0], ends + 1, [len(codes)]]).astype(np.int64)
        yield Texts(codes, offsets, row_of[_mask(pc.invert(is_ascii))])


def _mask(array: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def _text(codes: npt.NDArray[np.uint32]) -> str:
    return codes.tobytes().decode("utf-32-le", "replace").translate(_ASCII_LOWER)


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """What each code point is to a word."""
    classes = np.full(0x110000, _SEPARATOR, dtype=np.uint8)
    for code in range(0x110000):
        character = chr(code)
        if character.isalnum():
            classes[code] = _LETTER
        elif unicodedata.category(character) in {"Mn", "Mc"}:
            classes[code] = _MARK
    for first, last in (*_UNSPACED, *_HAN):
        span = classes[first : last + 1]
        span[span == _LETTER] = _ALONE
    return classes


@cache
def _invisible() -> re.Pattern[str]:
    """Format characters and variation selectors: they change how a word looks, not what it is."""
    codes = [c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cf"]
    selectors = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
    return re.compile(f"[{''.join(map(chr, codes))}{selectors}]+")


@cache
def _kernel(name: str) -> Callable[..., int]:
    """The compiled kernels. numba takes a second to import: only who has something to find pays."""
    from tasks import words_kernel

    found: Any = getattr(words_kernel, name)
    kernel: Callable[..., int] = found
    return kernel
