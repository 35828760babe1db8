"""Personal data out of all turns but the system's, out of ``meta``, ``label`` and ``group``.

Of a call of a tool the arguments are redacted, of a tool's turn what it says; ids, names of
functions and their definitions, which like the system's turn are the task's own, stay.

After redaction the result is looked at again: changed turns with everything, all others by their
patterns. What that second scan finds is redacted in its turn, for a few rounds; a row in which
something is left then is rejected. ``group`` and the values "file" and "line" of ``meta`` are ours;
a group that holds personal data becomes its own digest, so that equal groups stay equal. The digest
has no key: who knows an address can tell whether it was there. The split reads the group's hash:
compute it before.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex  # type: ignore[import-untyped]

from tasks.clean.config import PiiConfig
from tasks.clean.pii.find import WORTH_WORKERS, Finder, usable_cores
from tasks.clean.pii.kernel import Flags
from tasks.clean.pii.patterns import FULL_NAME
from tasks.clean.pii.pieces import join
from tasks.clean.pii.placeholders import Placeholders, linked, replaced
from tasks.clean.pii.scan import Kind, Scan
from tasks.clean.rows import Finding, Indices, Rows
from tasks.errors import DataError

logger = logging.getLogger(__name__)

_CHUNK_ROWS = 50_000
_ROUNDS = 3
# A meta in which only where the row came from stands; most do, and need no reading.
_ORIGIN_ONLY = r'^\{(?:\s*"(?:file|line)"\s*:\s*"(?:[^"\\]|\\.)*"\s*,?)*\s*\}$'
_NAME = regex.compile(FULL_NAME)


@dataclass(frozen=True, slots=True)
class Redaction:
    """The rows with personal data replaced, as many as came in, and what was found.

    ``counts`` is what was replaced by entity; ``residual`` what of it the second scan still found;
    ``dropped`` the rows to reject.
    """

    rows: Rows
    counts: Counter[str] = field(default_factory=Counter)
    residual: Counter[str] = field(default_factory=Counter)
    dropped: list[Finding] = field(default_factory=list)


def redact(rows: Rows, config: PiiConfig, *, processes: int | None = None) -> Redaction:
    """Replace personal data by placeholders, ``<PERSON_1>``; or drop, or fail, as configured.

    The result is the same however many ``processes`` there are; by default one a core where there
    is enough to do. Raises ConfigError for an entity that Presidio does not know and, where the
    action is to fail, DataError that names the first place.
    """
    if not config.enabled:
        return Redaction(rows)
    finder = Finder(config)
    done: list[Redaction] = []
    with finder.workers(_num_processes(rows) if processes is None else processes):
        for start in range(0, len(rows), _CHUNK_ROWS):
            done.append(_redact_chunk(Rows(rows.table.slice(start, _CHUNK_ROWS)), finder, config))
            entities = sum(part.counts.total() for part in done)
            seen = min(start + _CHUNK_ROWS, len(rows))
            logger.info("clean pii: %d of %d rows, %d entities", seen, len(rows), entities)
    if not done:
        return Redaction(rows)
    dropped = [
        replace(finding, index=finding.index + number * _CHUNK_ROWS)
        for number, part in enumerate(done)
        for finding in part.dropped
    ]
    return Redaction(
        Rows(pa.concat_tables([part.rows.table for part in done])),
        sum((part.counts for part in done), Counter()),
        sum((part.residual for part in done), Counter()),
        dropped,
    )


def redact_texts(texts: Sequence[str], config: PiiConfig, counts: Counter[str]) -> list[str]:
    """The texts redacted, each by itself and in order; ``counts`` is added to by entity."""
    finder = Finder(config)
    scan = Scan(finder)
    scan.look(texts, names=True)
    result = []
    for text in texts:
        placeholders = Placeholders([text], numbered=config.numbered)
        [new], found = _redact_row([_Text(text)], scan, finder, placeholders)
        counts.update(found)
        result.append(new)
    return result


def _num_processes(rows: Rows) -> int:
    size = pc.sum(pc.utf8_length(rows.turns.contents)).as_py() or 0
    return usable_cores() if size >= WORTH_WORKERS else 1


def _redact_chunk(rows: Rows, finder: Finder, config: PiiConfig) -> Redaction:
    """Scan and redact until a scan finds nothing, or the rounds are used up."""
    result = Redaction(_with_safe_groups(rows, finder))
    placeholders: dict[int, Placeholders] = {}
    asked = np.ones(len(rows.turns.roles), dtype=bool)
    for number in range(_ROUNDS + 1):
        scan, hits = _scan(result.rows, finder, asked)
        if not len(hits):
            break
        if config.action != "redact":
            return _refused(result, hits, scan, finder, config)
        if number == _ROUNDS:
            left = [
                Finding(i, "personal_data_left", f"after {number} rounds") for i in hits.tolist()
            ]
            return replace(result, dropped=left)
        for i in hits.tolist():
            if i not in placeholders:
                texts = [text.text for text in _texts(result.rows, i)]
                placeholders[i] = Placeholders(texts, numbered=config.numbered)
        redacted, counts, asked = _redact_rows(result.rows, hits, scan, finder, placeholders)
        result.counts.update(counts)
        if number:
            result.residual.update(counts)
        result = replace(result, rows=redacted)
    return result


def _scan(rows: Rows, finder: Finder, asked: Flags) -> tuple[Scan, Indices]:
    """(what is personal, in which rows); names are sought in the turns that are asked for."""
    turns, scan = rows.turns, Scan(finder)
    is_read = pc.not_equal(turns.roles, "system").to_numpy(zero_copy_only=False)
    for names, mask in ((True, is_read & asked), (False, is_read & ~asked)):
        scan.look(_distinct(turns.contents.filter(pa.array(mask))), names=names)
        scan.look(_distinct(turns.tool_calls.filter(pa.array(mask))), names=names, kind="calls")
    hits = _where_found(turns.contents, scan, names=True) & is_read
    hits |= _where_found(turns.tool_calls, scan, names=True, kind="calls")
    found = np.zeros(len(rows), dtype=bool)
    found[turns.row_of[hits]] = True
    meta = rows.column("meta")
    meta = pc.if_else(pc.match_substring_regex(meta, pattern=_ORIGIN_ONLY), None, meta)
    columns: tuple[tuple[pa.Array, bool, Kind], ...] = (
        (meta, True, "meta"),
        (rows.column("label"), False, "turn"),
    )
    for column, names, kind in columns:
        scan.look(_distinct(column), names=names, kind=kind)
        found |= _where_found(column, scan, names=names, kind=kind)
    return scan, np.flatnonzero(found)


def _distinct(texts: pa.Array) -> list[str]:
    distinct: list[str] = texts.drop_null().unique().to_pylist()
    return distinct


def _where_found(texts: pa.Array, scan: Scan, *, names: bool, kind: Kind = "turn") -> Flags:
    holding = [t for t in _distinct(texts) if scan.holds_anything(t, names=names, kind=kind)]
    mask: Flags = pc.is_in(texts, pa.array(holding, texts.type)).to_numpy(zero_copy_only=False)
    return mask


@dataclass(frozen=True, slots=True)
class _Text:
    """A text of a row: its turn (-1: meta, label) and whether names are sought in it."""

    text: str
    turn: int = -1
    names: bool = True
    kind: Kind = "turn"


def _texts(rows: Rows, index: int) -> list[_Text]:
    """The texts of a row that may be redacted: turns, their calls, meta, label."""
    turns = rows.turns
    places = range(turns.offsets[index], turns.offsets[index + 1])
    texts = [
        _Text(turns.contents[i].as_py(), i) for i in places if turns.roles[i].as_py() != "system"
    ]
    calls = [(turns.tool_calls[i].as_py(), i) for i in places]
    texts += [_Text(text, i, kind="calls") for text, i in calls if text is not None]
    meta, label = (rows.column(name)[index].as_py() for name in ("meta", "label"))
    return [*texts, _Text(meta, kind="meta"), _Text(label or "", names=False)]


def _redact_rows(
    rows: Rows, hits: Indices, scan: Scan, finder: Finder, placeholders: Mapping[int, Placeholders]
) -> tuple[Rows, Counter[str], Flags]:
    """(the rows redacted, what was replaced, which turns changed)."""
    counts: Counter[str] = Counter()
    turns: dict[Kind, dict[int, str]] = {"turn": {}, "calls": {}}
    columns: dict[str, dict[int, str]] = {"meta": {}, "label": {}}
    for index in hits.tolist():
        texts = _texts(rows, index)
        new_texts, found = _redact_row(texts, scan, finder, placeholders[index])
        counts.update(found)
        *said, meta, label = zip(texts, new_texts, strict=True)
        for old, new in said:
            if new != old.text:
                turns[old.kind][old.turn] = new
        for name, (old, new) in (("meta", meta), ("label", label)):
            if new != old.text:
                columns[name][index] = new
    contents, in_contents = _replaced(rows.turns.contents, turns["turn"])
    calls, in_calls = _replaced(rows.turns.tool_calls, turns["calls"])
    redacted = rows.with_contents(contents, calls)
    for name, values in columns.items():
        redacted = redacted.with_column(name, _replaced(redacted.column(name), values)[0])
    return redacted, counts, in_contents | in_calls


def _redact_row(
    texts: Sequence[_Text], scan: Scan, finder: Finder, placeholders: Placeholders
) -> tuple[list[str], Counter[str]]:
    """(the texts of one row redacted, what was replaced); a name in one goes from all."""
    pieces = [scan.pieces(text.text, text.kind) for text in texts]
    flat = [(piece, text.names) for text, of in zip(texts, pieces, strict=True) for piece in of]
    values = [piece.text for piece, _ in flat]
    found = [scan.found(piece, names=names) for piece, names in flat]
    found = linked(values, found, finder.is_allowed)
    mentions = [
        (item.entity, value[item.start : item.end])
        for value, items in zip(values, found, strict=True)
        for item in items
    ]
    placeholders.learn(mentions)
    new = iter([replaced(v, items, placeholders) for v, items in zip(values, found, strict=True)])
    joined = [
        join(text.text, of, [next(new) for _ in of]) for text, of in zip(texts, pieces, strict=True)
    ]
    return joined, Counter(entity for entity, _ in mentions)


def _refused(
    result: Redaction, hits: Indices, scan: Scan, finder: Finder, config: PiiConfig
) -> Redaction:
    """The rows that hold personal data as findings; DataError where the action is to fail."""
    for index in hits.tolist():
        texts = _texts(result.rows, index)
        _, counts = _redact_row(texts, scan, finder, Placeholders((), numbered=False))
        detail = ", ".join(f"{entity}: {n}" for entity, n in sorted(counts.items()))
        if config.action == "fail":
            raise DataError(
                f"{result.rows.place(index)} holds personal data ({detail}) and clean.pii.action "
                f"is fail. Remove it there, or set the action to redact or drop. {len(hits)} rows "
                "of its part of the data hold some."
            )
        result.counts.update(counts)
        result.dropped.append(Finding(index, "personal_data", detail))
    return result


def _with_safe_groups(rows: Rows, finder: Finder) -> Rows:
    """Groups that are a name or hold an address or a number, as their digest."""
    groups = rows.column("group")
    distinct = groups.drop_null().unique().to_pylist()
    held = finder.find_all(distinct, names=False)
    personal = [g for g in distinct if g in held or _is_name(g, finder)]
    digests = [f"sha256:{hashlib.sha256(group.encode()).hexdigest()}" for group in personal]
    at = pc.index_in(groups, pa.array(personal, groups.type))
    safe = pc.if_else(pc.is_valid(at), pa.array(digests, groups.type).take(at), groups)
    return rows.with_column("group", safe)


def _is_name(group: str, finder: Finder) -> bool:
    return (
        finder.seeks("PERSON")
        and _NAME.fullmatch(group) is not None
        and not finder.is_allowed(group)
    )


def _replaced(values: pa.Array, new: Mapping[int, str]) -> tuple[pa.Array, Flags]:
    """(the array with new values at these places, where they are)."""
    mask: Flags = np.zeros(len(values), dtype=bool)
    mask[list(new)] = True
    ordered = pa.array([new[i] for i in sorted(new)], values.type)
    return pc.replace_with_mask(values, pa.array(mask), ordered), mask
