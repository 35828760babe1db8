"""Whatever bytes come: rows, bad rows or an error of Retune, and every byte accounted for."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.errors import RetuneError
from tasks.example import to_table
from tasks.ingest import json_array, streams
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.readers import BadRow, Row, read
from tasks.ingest.snapshot import read_source

PAIR = ColumnMapping(user="q", assistant="a")
Body = bytes
FAST = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def zst(body: Body) -> Body:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return bytes(sink.getvalue())


def as_jsonl(rows: list[dict[str, str]]) -> Body:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[dict[str, str]]) -> Body:
    return json.dumps(rows, indent=1).encode()


def as_csv(rows: list[dict[str, str]]) -> Body:
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, ["q", "a"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def as_parquet(rows: list[dict[str, str]]) -> Body:
    buffer = io.BytesIO()
    schema = pa.schema([("q", pa.string()), ("a", pa.string())])
    pq.write_table(pa.Table.from_pylist(rows, schema), buffer)
    return buffer.getvalue()


FORMS = {"jsonl": as_jsonl, "json": as_json, "csv": as_csv, "parquet": as_parquet}
COMPRESSIONS: dict[str, Callable[[Body], Body]] = {"": bytes, ".gz": gzip.compress, ".zst": zst}
KINDS = [(form, end) for form in FORMS for end in COMPRESSIONS if form != "parquet" or not end]

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.text('\\"[]{},\r\n', max_size=12),
)
rows_of_text = st.lists(st.fixed_dictionaries({"q": texts, "a": texts}), min_size=1, max_size=8)


def read_bytes(folder: Path, name: str, body: Body, **config: Any) -> list[Row | BadRow]:
    path = folder / name
    path.write_bytes(body)
    return list(read(SourceConfig(path=str(path), columns=PAIR, **config)))


@FAST
@given(
    batches=st.lists(st.tuples(st.sampled_from(KINDS), rows_of_text), min_size=1, max_size=4),
    chunk=st.integers(1, 40),
)
def test_rows_come_back_from_any_mixture_of_forms(
    tmp_path: Path, batches: list[tuple[tuple[str, str], list[dict[str, str]]]], chunk: int
) -> None:
    """Whatever the chunks are in which the bytes come."""
    read_back, expected = [], []
    for number, ((form, end), rows) in enumerate(batches):
        body = COMPRESSIONS[end](FORMS[form](rows))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "CHUNK", chunk)
            patch.setattr(json_array, "CHUNK", chunk)
            found = read_bytes(tmp_path, f"{number}.{form}{end}", body)
        read_back += [row.values if isinstance(row, Row) else row for row in found]
        expected += rows
    assert read_back == expected


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Body]:
    """A valid file with some of its bytes changed, cut out or put in; or any bytes at all."""
    form, end = draw(st.sampled_from(KINDS))
    body = FORMS[form](draw(rows_of_text))
    inside = draw(st.booleans())
    body = bytearray(body if inside else COMPRESSIONS[end](body))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 9))
        body[place : place + length] = draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\n", b"\r", b"{", b"[" * 300, b"\0"])
        )
    if draw(st.integers(0, 9)) == 0:
        body = bytearray(draw(st.binary(max_size=200)))
    return f"any.{form}{end}", COMPRESSIONS[end](bytes(body)) if inside else bytes(body)


@settings(FAST, max_examples=500)
@given(mutated())
@example(("any.jsonl", b"\xff\xfe\x00"))
@example(("any.json", b"[" * 2000))
@example(("any.parquet", b"PAR1" + b"\xff" * 8 + b"PAR1"))
@example(("any.csv", b'q,a\n"'))
@example(("any.jsonl", b'{"q": "x", "a": 1e99999999999999999999}'))
def test_no_file_crashes_a_reader_or_a_mapping(tmp_path: Path, file: tuple[str, Body]) -> None:
    name, body = file
    (tmp_path / name).write_bytes(body)
    source = SourceConfig(path=str(tmp_path / name), columns=PAIR, max_row_bytes=100_000)
    try:
        good, bad = read_source(source, TaskConfig())
    except RetuneError:
        return
    to_table(good)
    for row in bad:
        assert row.reason
        assert (row.detail + (row.field or "")).encode()


line_bytes = st.lists(
    st.binary(max_size=20) | st.sampled_from([b'{"q": 1}', b"[]", b'"', b"a,b", b"\n", b"\r", b""]),
    max_size=12,
).map(b"\n".join)


@settings(FAST, max_examples=300)
@given(body=line_bytes, chunk=st.integers(1, 40), compress=st.sampled_from([bytes, gzip.compress]))
def test_every_byte_of_lines_is_accounted_for(
    tmp_path: Path, body: Body, chunk: int, compress: Callable[[Body], Body]
) -> None:
    """Whatever the chunks are in which the bytes come."""
    body = b'{"first": 1}\n' + body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        rows = read_bytes(tmp_path, "any.jsonl", compress(body))
    lines = body.split(b"\n")
    assert [(row.line, row.raw) for row in rows] == [
        (number, line.rstrip(b"\r\n")) for number, line in enumerate(lines, start=1) if line.strip()
    ]


@settings(FAST, max_examples=300)
@given(body=line_bytes, chunk=st.integers(1, 40))
def test_every_byte_of_csv_is_accounted_for(tmp_path: Path, body: Body, chunk: int) -> None:
    body = b"q,a\n" + body
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(streams, "CHUNK", chunk)
            rows = read_bytes(tmp_path, "any.csv", body)
    except RetuneError:
        return
    left = body
    for raw in (b"q,a", *(row.raw for row in rows)):
        separators, found, left = left.partition(raw)
        assert found == raw
        assert not separators.strip(b"\r\n")
    assert not left.strip(b"\r\n")
    lines = body.splitlines(keepends=True)
    assert all(b"".join(lines[row.line - 1 :]).startswith(row.raw) for row in rows)


@pytest.mark.parametrize("chunk", range(1, 16))
def test_a_crlf_cut_by_a_chunk_is_one_line_end(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK", chunk)
    body = b"q,a\r\none,1\r\n\r\ntwo,2\r\nthree,3\rfour,4\r"
    assert [row.line for row in read_bytes(tmp_path, "rows.csv", body)] == [2, 4, 5, 6]


@FAST
@given(body=line_bytes, limit=st.integers(1, 30), chunk=st.integers(1, 9))
def test_a_line_above_the_limit_is_the_only_one_cut(
    tmp_path: Path, body: Body, limit: int, chunk: int
) -> None:
    body = b"{}\n" + body
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        rows = read_bytes(tmp_path, "any.jsonl", body, max_row_bytes=limit)
    lines = body.splitlines(keepends=False) if b"\n" not in body else body.split(b"\n")
    long = {
        number
        for number, line in enumerate(lines, start=1)
        if len(line) + (number < len(lines)) > limit
    }
    assert long == {r.line for r in rows if isinstance(r, BadRow) and r.reason == "row_too_long"}
