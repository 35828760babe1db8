"""Texts that were decoded wrongly on their way here, mended by ftfy: ``sÃ³`` was ``só``.

Only damage is mended: mojibake, C1 controls, control characters, foreign line ends, Latin ligatures
of printed pages. Curly quotes, full-width characters and HTML entities are how people write, and
stay. What is not damaged comes back canonically composed (NFC), which is the same text.
"""

from __future__ import annotations

import json
import unicodedata
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ftfy import TextFixerConfig, fix_text

from tasks.clean.config import UnicodeConfig
from tasks.clean.rows import Indices, Rows

# Mojibake of UTF-8 is a run of two or more characters of the single-byte encodings that ftfy knows
# (Windows-125x, Latin-1, Latin-2, Mac Roman, CP437); one alone tells only beside a space.
_SINGLE_BYTE = (
    r"\x{a0}-\x{24f}\x{2b0}-\x{2ff}\x{370}-\x{4ff}\x{2010}-\x{2044}\x{207f}\x{20a0}-\x{25ff}"
    r"\x{f8ff}\x{fb01}\x{fb02}\x{fffd}"
)
# What ftfy takes out or replaces wherever it stands: control characters, separators of lines,
# marks of byte order, ligatures.
_ALONE = (
    r"\x{00}-\x{08}\x{0b}-\x{1f}\x{7f}-\x{9f}\x{132}\x{133}\x{149}\x{1c4}-\x{1cc}\x{1f1}-\x{1f3}"
    r"\x{2028}\x{2029}\x{206a}-\x{206f}\x{fb00}-\x{fb06}\x{feff}\x{fff9}-\x{fffc}"
)
# What may not be canonically composed: combining marks, Hangul jamo and characters kept for old
# encodings. Arrow's utf8_normalize cannot say: its "NFC" decomposes (pyarrow 25).
_MAY_COMPOSE = (
    r"[\pM\x{374}-\x{387}\x{900}-\x{fff}\x{1100}-\x{11ff}\x{1f00}-\x{1fff}\x{2000}\x{2001}"
    r"\x{2126}-\x{212b}\x{2329}\x{232a}\x{2adc}\x{f900}-\x{faff}\x{fb1d}-\x{fb4e}"
    r"\x{1d15e}-\x{1d1c0}\x{2f800}-\x{2fa1d}]"
)
_SUSPECT = f"[{_ALONE}ŒœÃÂ]|[{_SINGLE_BYTE}]{{2}}"
_MOST_PASSES = 8
# ftfy reads the finer options of fix_encoding only when it explains, so they keep their defaults.
_TEXT = TextFixerConfig(
    unescape_html=False,
    fix_character_width=False,
    uncurl_quotes=False,
    normalization="NFC",
    explain=False,
)
# A line separator may stand in a string of JSON, a line feed may not.
_JSON = _TEXT._replace(fix_line_breaks=False)


def repair(rows: Rows, config: UnicodeConfig) -> tuple[Rows, int]:
    """The rows with every turn, call and tool definition mended, and how many rows that changed."""
    if not config.enabled:
        return rows, 0
    turns = rows.turns
    contents, in_contents = _mended(turns.contents)
    calls, in_calls = _mended(turns.tool_calls)
    tools, in_tools = _mended(rows.tools)
    changed = np.unique([*turns.row_of[in_contents], *turns.row_of[in_calls], *in_tools])
    if not len(changed):
        return rows, 0
    return rows.with_contents(contents, calls).with_column("tools", tools), len(changed)


def _mended(texts: pa.Array) -> tuple[pa.Array, Indices]:
    """(the texts mended, where that changed them)."""
    suspect = _suspects(texts)
    encoded = texts.filter(suspect).dictionary_encode()
    mended = pa.array(map(repair_text, encoded.dictionary.to_pylist()), texts.type)
    replaced = pc.equal(mended, encoded.dictionary).take(encoded.indices)
    changed = np.flatnonzero(np.asarray(suspect))[~np.asarray(replaced, dtype=bool)]
    if not len(changed):
        return texts, changed
    return pc.replace_with_mask(texts, suspect, mended.take(encoded.indices)), changed


def _suspects(texts: pa.Array) -> pa.Array:
    """Where ftfy may have something to do: a search that costs far less than asking it."""
    suspect = np.asarray(_matches(texts, _SUSPECT)).copy()
    may_compose = np.flatnonzero(np.asarray(_matches(texts, _MAY_COMPOSE)) & ~suspect)
    for index, text in zip(may_compose, texts.take(pa.array(may_compose)).to_pylist(), strict=True):
        suspect[index] = not unicodedata.is_normalized("NFC", text)
    return pa.array(suspect)


def _matches(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False)


def samples(before: Rows, after: Rows, count: int = 3) -> list[tuple[str, str]]:
    """A few turns that ``repair`` changed: (before, after)."""
    old, new = before.turns.contents, after.turns.contents
    differs = np.flatnonzero(np.asarray(pc.fill_null(pc.not_equal(old, new), False)))
    return [(old[i].as_py(), new[i].as_py()) for i in islice(differs.tolist(), count)]


def repair_text(text: str) -> str:
    """The text mended until mending changes nothing more; JSON keeps its structure."""
    first = text
    for _ in range(_MOST_PASSES):
        mended = _mended_once(text)
        if mended == text:
            return text
        text = mended
    return first  # pragma: no cover - ftfy settles after one or two passes; if not, hands off


def _mended_once(text: str) -> str:
    parsed = _parsed(text)
    if parsed is None:
        return fix_text(text, _TEXT)
    mended = fix_text(text, _JSON)
    try:
        is_equal = _each_string(_parsed(mended)) == _each_string(parsed)
    except (RecursionError, ValueError):
        is_equal = False
    return mended if is_equal else text


def _parsed(text: str) -> Any:
    """A JSON object or array, numbers as they are written; None for other texts."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None


def _each_string(value: Any) -> Any:
    """The same value with every string mended by itself."""
    if isinstance(value, str):
        return fix_text(value, _JSON)
    if isinstance(value, list):
        return [_each_string(item) for item in value]
    if isinstance(value, dict):
        mended = {fix_text(name, _JSON): _each_string(item) for name, item in value.items()}
        if len(mended) < len(value):
            raise ValueError("mended, two members would have the same name")
        return mended
    return value
