"""Every line of a file comes out once, as a row or as a bad row that keeps the original bytes."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import ConfigError, DataError, MissingFileError
from tasks.ingest.config import SourceConfig
from tasks.ingest.readers import BadRow, Row, read


def rows_of(path: Path, **config: Any) -> list[Row | BadRow]:
    return list(read(SourceConfig(path=str(path), **config)))


def written(folder: Path, name: str, body: bytes) -> Path:
    path = folder / name
    path.write_bytes(body)
    return path


def values_of(path: Path) -> list[dict[str, Any]]:
    rows = rows_of(path)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.values for row in rows if isinstance(row, Row)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [(1, 1), (2, 2)]),
        (b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}', [(1, 1), (2, 2)]),
        (b'\n\n{"a": 1}\n  \t\n{"a": 2}\n\n', [(3, 1), (5, 2)]),
        (b'{"a": "\\u0000"}\n', [(1, "\0")]),
        ('{"a": "grüße \u2028 \x85"}\n'.encode(), [(1, "grüße \u2028 \x85")]),
        (b'{"a": "\\ud83d\\ude00"}', [(1, "😀")]),
        (b'{"a": 1, "a": 2}', [(1, 2)]),  # as JSON parsers agree: the last one counts
    ],
)
def test_jsonl(tmp_path: Path, body: bytes, expected: list[tuple[int, object]]) -> None:
    rows = rows_of(written(tmp_path, "rows.jsonl", body))
    assert [(r.line, r.values["a"]) for r in rows if isinstance(r, Row)] == expected
    assert len(rows) == len(expected)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": "\xff\xfe"}', "invalid_utf8"),
        ('{"a": 1}'.encode("utf-16"), "invalid_utf8"),
        (b"{'a': 1}", "invalid_json"),
        (b'{"a": 1', "invalid_json"),
        (b'{"a": 1} {"a": 2}', "invalid_json"),
        (b'{"a": "\x00"}', "invalid_json"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "invalid_json"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
    ids=range(12),
)
def test_jsonl_line_that_cannot_be_read(tmp_path: Path, line: bytes, reason: str) -> None:
    good = b'{"a": 1}\n'
    rows = rows_of(written(tmp_path, "rows.jsonl", good + line.replace(b"\n", b"") + b"\n" + good))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason, bad.raw) == (2, reason, line.replace(b"\n", b""))
    assert "expected" in bad.detail


def test_huge_lines(tmp_path: Path) -> None:
    text = "x" * 5_000_000
    body = json.dumps({"a": text}).encode() + b"\n" + b"{" + b"y" * 5_000_000
    good, bad = rows_of(written(tmp_path, "rows.jsonl", body))
    assert isinstance(good, Row)
    assert good.values["a"] == text
    assert isinstance(bad, BadRow)
    assert len(bad.raw) == 5_000_001
    assert len(bad.detail) < 200


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b'{"a": 1}', b"[]", b"1", b"{}"])))
def test_every_line_of_any_bytes_comes_out_once(tmp_path: Path, lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"").removeprefix(b"\xef\xbb\xbf") for line in lines]
    path = written(tmp_path, "any.jsonl", b"\n".join([b"{}", *lines]))
    expected = [(n, line) for n, line in enumerate(lines, start=2) if line.strip()]
    rows = rows_of(path)[1:]
    assert [(row.line, row.raw) for row in rows] == [(n, ln.rstrip(b"\r\n")) for n, ln in expected]


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(cells, cells), max_size=6))
def test_csv_round_trip(tmp_path: Path, pairs: list[tuple[str, str]]) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("q", "a"), *pairs])
    path = written(tmp_path, "any.csv", buffer.getvalue().encode())
    assert [(v["q"], v["a"]) for v in values_of(path)] == pairs


def test_csv_lines_are_counted_where_a_row_begins(tmp_path: Path) -> None:
    body = b'\xef\xbb\xbfq,a\r\n"one\r\ntwo",1\r\n\r\nthree,2\r\nfour\r\nfive,3,x\r\nsix,4\r\n'
    rows = rows_of(written(tmp_path, "rows.csv", body))
    assert [(row.line, type(row)) for row in rows] == [
        (2, Row),
        (5, Row),
        (6, BadRow),
        (7, BadRow),
        (8, Row),
    ]
    bad = [(r.reason, r.raw, r.detail) for r in rows if isinstance(r, BadRow)]
    assert bad == [
        ("wrong_number_of_cells", b"four", "expected 2 cells (q, a), came 1"),
        ("wrong_number_of_cells", b"five,3,x", "expected 2 cells (q, a), came 3"),
    ]
    first = rows[0]
    assert isinstance(first, Row)
    assert first.values == {"q": "one\r\ntwo", "a": "1"}
    assert first.raw == b'"one\r\ntwo",1'


def test_csv_bytes_that_are_not_utf8_spoil_their_own_row(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path, "rows.csv", b"q,a\none,1\ncaf\xe9,2\nthree,3\n"))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason, bad.raw) == (3, "invalid_utf8", b"caf\xe9,2")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'q,a\none,1\n"two,2\nthree,3\n', r"rows\.csv:3: expected a CSV record"),
        (b'q,a\n"one"x,1\n', r"rows\.csv:2: expected a CSV record"),
        (b"q,q\none,1\n", "distinct column names"),
        (b"\xef\xbb\xbf", "distinct column names"),
        (b"\n\n", "distinct column names"),
        (b"", "the file is empty"),
    ],
)
def test_csv_that_is_wrong_as_a_whole(tmp_path: Path, body: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        rows_of(written(tmp_path, "rows.csv", body))


def test_csv_with_a_huge_cell_and_nul(tmp_path: Path) -> None:
    body = f"q,a\n{'x' * 5_000_000},nul\0\n".encode()
    assert values_of(written(tmp_path, "rows.csv", body)) == [{"q": "x" * 5_000_000, "a": "nul\0"}]


def test_parquet(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "q"}]
    table = pa.table({"messages": [messages, None], "n": [1, 2]})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = rows_of(tmp_path / "rows.parquet")
    assert [(r.line, r.values) for r in rows if isinstance(r, Row)] == [
        (1, {"messages": messages, "n": 1}),
        (2, {"messages": None, "n": 2}),
    ]


def test_parquet_that_is_none_or_cut(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["text"] * 5000}), tmp_path / "whole.parquet")
    body = (tmp_path / "whole.parquet").read_bytes()
    spoilt = body[:4] + bytes(b ^ 0xFF for b in body[4:60]) + body[60:]
    for name, content in (("csv", b"q,a\n1,2\n"), ("cut", body[: len(body) // 2]), ("bit", spoilt)):
        with pytest.raises(DataError, match=rf"{name}\.parquet: expected a Parquet file"):
            rows_of(written(tmp_path, f"{name}.parquet", content))


def test_the_format_goes_by_the_ending_unless_it_is_named(tmp_path: Path) -> None:
    assert values_of(written(tmp_path, "UPPER.JSONL", b'{"a": 1}')) == [{"a": 1}]
    odd = written(tmp_path, "rows.txt", b'{"a": 1}')
    with pytest.raises(ConfigError, match=r"rows\.txt: expected a \.jsonl, \.csv or \.parquet"):
        rows_of(odd)
    assert len(rows_of(odd, format="jsonl")) == 1


def test_relative_paths_are_looked_up_in_the_data_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("data", "home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RETUNE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("RETUNE_HOME", str(tmp_path / "home"))
    for name in ("here", "home", "data"):
        written(tmp_path / name, "rows.jsonl", json.dumps({"from": name}).encode())
        [row] = list(read(SourceConfig(path="rows.jsonl")))
        assert isinstance(row, Row)
        assert row.values == {"from": name}


def test_a_missing_file_names_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETUNE_DATA", "/no/such/data")
    with pytest.raises(MissingFileError, match=r"none\.jsonl.*/no/such/data.*RETUNE_DATA") as info:
        list(read(SourceConfig(path="none.jsonl")))
    assert str(tmp_path) in str(info.value)
    with pytest.raises(MissingFileError, match="no such file"):
        list(read(SourceConfig(path=str(tmp_path / "none.jsonl"))))


def test_a_glob_reads_its_files_in_order_and_brackets_in_a_name_are_no_glob(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "a[1].jsonl"):
        written(tmp_path, name, json.dumps({"from": name}).encode())
    assert [v["from"] for v in values_of(tmp_path / "?.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [v["from"] for v in values_of(tmp_path / "a[1].jsonl")] == ["a[1].jsonl"]


def test_the_fingerprint_is_what_the_files_hold(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", b'{"a": 1}')
    source = SourceConfig(path=str(path))
    before = source.fingerprint()
    assert source.fingerprint() == before
    path.write_bytes(b'{"a": 2}')
    assert source.fingerprint() != before
