"""Every line of a file comes out once, as a row or as a bad row that keeps the original bytes."""

import csv
import gzip
import io
import json
import shutil
from collections.abc import Callable
from decimal import Decimal
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
        (b'{"a": 1}\r{"a": 2}\r\r{"a": 3}', [(1, 1), (2, 2), (4, 3)]),  # of an old Macintosh
        (b'{"a":\r1}\r\n{"a": 2}\r\r\n', [(1, 1), (2, 2)]),  # elsewhere CR is white space
        ('\ufeff{"a": "\U0001f600"}\n\n{"a": 2}'.encode("utf-16-le"), [(1, "\U0001f600"), (3, 2)]),
        ('\ufeff{"a": 1}\r\n{"a": 2}'.encode("utf-16-be"), [(1, 1), (2, 2)]),
        ('\ufeff{"a": 1}\n'.encode("utf-32-le"), [(1, 1)]),
        (b'{"a": 9007199254740993}', [(1, 2**53 + 1)]),
        (b'{"a": ' + b"9" * 300 + b"}", [(1, 10**300 - 1)]),
        (b'{"a": 9007199254740993.0}', [(1, Decimal("9007199254740993.0"))]),
        (b'{"a": 0.1000000000000000055511}', [(1, Decimal("0.1000000000000000055511"))]),
        (b'{"a": 1e400}', [(1, Decimal("1e400"))]),
        (b'{"a": -1.5e-7}', [(1, -1.5e-7)]),
        (b'{"a": 0.30000000000000004}', [(1, 0.1 + 0.2)]),
        (b'{"a": {"b": 1}, "b": [{"a": 1}, {"a": 1}]}', [(1, {"b": 1})]),  # no key stands twice
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
        (b'{"a": "\x00"}', "nul_character"),
        (b"\x00" * 4096, "nul_character"),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"a": 1e999999999}', "number_out_of_range"),
        (b'{"a": 1e' + b"9" * 40 + b"}", "number_out_of_range"),
        (b'{"a": NaN}', "invalid_json"),
        (b'{"a": -Infinity}', "invalid_json"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b'{"a": [{"b": 1, "c": 2, "b": 3}]}', "duplicate_key"),
        (b'{"a": 1, "\\u0061": 2}', "duplicate_key"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "duplicate_key"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a": ' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
        (b'{"a": ' * 129 + b"1" + b"}" * 129, "too_deep"),
        (b"[1, 2]", "not_an_object"),
        (b'"text"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
    ids=range(22),
)
def test_jsonl_line_that_cannot_be_read(tmp_path: Path, line: bytes, reason: str) -> None:
    good = b'{"a": 1}\n'
    rows = rows_of(written(tmp_path, "rows.jsonl", good + line.replace(b"\n", b"") + b"\n" + good))
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    bad.detail.encode()  # can be written to the quarantine
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


@pytest.mark.parametrize("depth", [1, 120, 128])
def test_nesting_up_to_the_limit_is_read(tmp_path: Path, depth: int) -> None:
    line = b'{"a": ' * depth + b"1" + b"}" * depth
    assert len(values_of(written(tmp_path, "rows.jsonl", line))) == 1


def test_brackets_in_text_are_no_nesting(tmp_path: Path) -> None:
    text = "[{" * 5000
    body = json.dumps({"a": text}).encode()
    assert values_of(written(tmp_path, "rows.jsonl", body)) == [{"a": text}]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
@pytest.mark.parametrize("length", [500, 200_000, 3_000_000])
def test_a_row_too_long_is_not_held_and_the_next_are_read(
    tmp_path: Path, name: str, length: int
) -> None:
    text = "x" * length
    lines = {
        "rows.jsonl": [json.dumps({"a": t}) for t in ("1", text, "2")],
        "rows.json": ["[", *(json.dumps({"a": t}) + "," for t in ("1", text)), '{"a": "2"}]'],
        "rows.csv": ["a", "1", f'"{text}"', "2"],
    }[name]
    body = "\n".join(lines).encode()
    first, bad, last = rows_of(written(tmp_path, name, body), max_row_bytes=400)
    assert isinstance(bad, BadRow)
    assert bad.reason == "row_too_long"
    whole = next(line for line in lines if len(line) > 400).encode()
    assert body.split(b"\n")[bad.line - 1] == whole
    assert bad.raw == whole.rstrip(b",")[: 64 * 1024] or bad.raw == (whole + b"\n")[: 64 * 1024]
    assert "expected at most 400 bytes" in bad.detail
    assert [row.values for row in (first, last) if isinstance(row, Row)] == [{"a": "1"}, {"a": "2"}]


def test_an_open_quote_does_not_swallow_more_than_a_row_may_hold(tmp_path: Path) -> None:
    body = b'q,a\none,1\n"two,2\n' + b"three,3\n" * 1000
    with pytest.raises(DataError, match=r"rows\.csv:3: expected a CSV record of at most 400 bytes"):
        rows_of(written(tmp_path, "rows.csv", body), max_row_bytes=400)
    long = b'q,a\n"two' + b"x" * 1000 + b",2\nthree,3\n"
    with pytest.raises(DataError, match=r"rows\.csv:2: expected a CSV record of at most 400 bytes"):
        rows_of(written(tmp_path, "rows.csv", long), max_row_bytes=400)


def zst(body: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(body)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("compress", [gzip.compress, zst])
@pytest.mark.parametrize("ending", [".gz", ".zst", ""])
def test_compression_goes_by_what_the_bytes_are(
    tmp_path: Path, compress: Callable[[bytes], bytes], ending: str
) -> None:
    one, two = b'\xef\xbb\xbf{"a": 1}\n', b'{"a": 2}\n'
    many = compress(one) + compress(b"") + compress(two)  # as `cat` puts files together
    path = written(tmp_path, f"rows.jsonl{ending}", many)
    assert values_of(path) == [{"a": 1}, {"a": 2}]
    assert values_of(written(tmp_path, f"rows.csv{ending}", compress(b"a\n1\n"))) == [{"a": "1"}]
    assert values_of(written(tmp_path, "plain.jsonl.gz", one)) == [{"a": 1}]


@pytest.mark.parametrize("compress", [gzip.compress, zst])
def test_a_compressed_file_that_is_cut_or_corrupt_is_named(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    whole = compress(b"".join(b'{"a": %d}\n' % (n * n) for n in range(5000)))
    middle = len(whole) // 2
    for spoilt in (
        whole[:middle],
        whole[:-1],
        whole + b"more",
        whole[:middle] + b"\xff" * 200 + whole[middle + 200 :],
    ):
        with pytest.raises(DataError, match=r"rows\.jsonl\.gz: the \w+ stream is cut or corrupt"):
            rows_of(written(tmp_path, "rows.jsonl.gz", spoilt))


@pytest.mark.parametrize(("magic", "form"), [(b"BZh9", "bzip2"), (b"PK\x03\x04", "zip")])
def test_another_compression_is_named(tmp_path: Path, magic: bytes, form: str) -> None:
    with pytest.raises(DataError, match=rf"expected plain text, gzip or zstd, came {form}"):
        rows_of(written(tmp_path, "rows.jsonl", magic + b"rest"))


def test_utf16_with_half_a_character_spoils_its_own_row_alone(tmp_path: Path) -> None:
    good = '{"a": 1}\n'.encode("utf-16-le")
    body = b"\xff\xfe" + good + b"\x00\xd8" + good + good
    assert [type(row) for row in rows_of(written(tmp_path, "rows.jsonl", body))] == [
        Row,
        BadRow,
        Row,
    ]
    with pytest.raises(DataError, match=r"expected utf-16, as its byte order mark says"):
        rows_of(written(tmp_path, "rows.jsonl", body[:-1]))


def test_a_json_array_is_read_one_element_at_a_time(tmp_path: Path) -> None:
    rows = [{"a": 'x"]},\n\\'}, {"a": [1, {"b": []}]}, {}]
    for indent in (None, 2):
        path = written(tmp_path, "rows.json", json.dumps(rows, indent=indent).encode())
        assert values_of(path) == rows
    assert [row.line for row in rows_of(path)] == [2, 5, 13]
    assert values_of(written(tmp_path, "lines.json", b'{"a": 1}\n{"a": 2}')) == [{"a": 1}, {"a": 2}]
    mixed = rows_of(written(tmp_path, "mixed.json", b'[1, {"a": }, {"a": 1}]'))
    assert [getattr(row, "reason", "") for row in mixed] == ["not_an_object", "invalid_json", ""]
    for cut in (b'[{"a": 1}, {"a"', b"[", b"[] []"):
        with pytest.raises(DataError, match="expected one JSON array"):
            rows_of(written(tmp_path, "cut.json", cut))


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
    csv_body = b"q,a\n1,2\n"
    for name, content in (("csv", csv_body), ("cut", body[: len(body) // 2]), ("bit", spoilt)):
        with pytest.raises(DataError, match=rf"{name}\.parquet: expected a Parquet file"):
            rows_of(written(tmp_path, f"{name}.parquet", content))


def test_parquet_goes_by_its_mark_whatever_the_ending(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows.csv")
    assert values_of(tmp_path / "rows.csv") == [{"a": 1}]
    assert values_of(written(tmp_path, "mark.csv", b"PAR1,a\nx,1\n")) == [{"PAR1": "x", "a": "1"}]


def test_parquet_with_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="expected distinct column names, came 'a' twice"):
        rows_of(tmp_path / "rows.parquet")


def test_parquet_text_that_is_not_utf8_spoils_its_own_row(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"caf\xe9", None, b"better"]).view(pa.string())
    pq.write_table(pa.table({"n": range(4), "a": texts}), tmp_path / "rows.parquet")
    rows = rows_of(tmp_path / "rows.parquet")
    assert [type(row) for row in rows] == [Row, BadRow, Row, Row]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert (bad.line, bad.reason, bad.raw) == (2, "invalid_value", b'{"n": 1, "a": "caf\\\\xe9"}')


def test_parquet_row_too_long(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x", "y" * 1000, "z"]}), tmp_path / "rows.parquet")
    rows = rows_of(tmp_path / "rows.parquet", max_row_bytes=400)
    assert [getattr(row, "reason", row.line) for row in rows] == [1, "row_too_long", 3]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits of a data set with class labels, as ``save_to_disk`` writes them."""
    import datasets

    folder = tmp_path_factory.mktemp("saved")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = {"text": [f"text {n}" for n in range(3000)], "label": [n % 3 - 1 for n in range(3000)]}
    split = datasets.Dataset.from_dict(rows, features=features)
    split.save_to_disk(str(folder / "one"))
    both = datasets.DatasetDict({"train": split, "test": split.select(range(2))})
    both.save_to_disk(str(folder / "both"))
    return folder


def test_a_saved_data_set_gives_its_labels_by_name(saved: Path) -> None:
    rows = values_of(saved / "one")
    assert len(rows) == 3000
    assert rows[:3] == [
        {"text": "text 0", "label": None},
        {"text": "text 1", "label": "no"},
        {"text": "text 2", "label": "yes"},
    ]
    assert len(rows_of(saved / "both", hub_split="test")) == 2


def test_a_saved_data_set_without_the_split_or_that_is_cut(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"both: expected the split 'dev', came test, train"):
        rows_of(saved / "both", hub_split="dev")
    with pytest.raises(DataError, match=r"expected a file or a saved data set, came a folder"):
        rows_of(saved)
    copy = tmp_path / "cut"
    shutil.copytree(saved / "one", copy)
    data = next(copy.glob("*.arrow"))
    data.write_bytes(data.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut: expected a saved data set"):
        rows_of(copy)


def test_the_format_goes_by_the_ending_unless_it_is_named(tmp_path: Path) -> None:
    assert values_of(written(tmp_path, "UPPER.JSONL", b'{"a": 1}')) == [{"a": 1}]
    odd = written(tmp_path, "rows.txt", b'{"a": 1}')
    with pytest.raises(
        ConfigError, match=r"rows\.txt: expected a \.jsonl, \.json, \.csv or \.parquet"
    ):
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
