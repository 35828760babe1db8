"""Every file of a source is found and pinned by digest before it is read, here or in a bucket."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlparse
from xml.sax.saxutils import escape

import pytest
from botocore.config import Config

from tasks import objects
from tasks.artifacts import SourceFile, fingerprint
from tasks.errors import ConfigError, DataError, MissingFileError, StorageError, is_transient
from tasks.ingest.bucket import glob_pattern
from tasks.ingest.config import ColumnMapping, GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.files import find, find_all, local_copy, pin
from tasks.ingest.readers import Row, read, read_file
from tasks.objects import open_store

LINE = b'{"a": 1}\n'


def written(path: Path, body: bytes = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return path


def names(source: SourceConfig) -> list[str]:
    return [file.name for file in find(source)]


def values(source: SourceConfig) -> list[dict[str, Any]]:
    rows = list(read(source))
    assert all(isinstance(row, Row) for row in rows), rows
    return [row.values for row in rows if isinstance(row, Row)]


def test_a_file_is_its_name_and_bytes_wherever_it_lies(tmp_path: Path) -> None:
    here, there = (written(tmp_path / place / "rows.jsonl") for place in ("here", "there"))
    one, two = (find(SourceConfig(path=str(path)))[0] for path in (here, there))
    assert one.place != two.place
    assert fingerprint(one) == fingerprint(two)
    assert (one.size, one.digest) == (len(LINE), hashlib.sha256(LINE).hexdigest())
    renamed = find(SourceConfig(path=str(here.rename(here.with_name("other.jsonl")))))[0]
    assert fingerprint(renamed) != fingerprint(one)
    there.write_bytes(LINE * 2)
    assert fingerprint(find(SourceConfig(path=str(there)))[0]) != fingerprint(two)


def test_what_decides_the_rows_is_in_the_key_of_a_source_and_its_place_is_not() -> None:
    one = SourceConfig(path="/here/rows.jsonl")
    assert fingerprint(one) == fingerprint(SourceConfig(path="/there/rows.jsonl"))
    for change in ({"limit": 3}, {"where": {"lang": ["de"]}}, {"columns": {"messages": "m"}}):
        other = SourceConfig.model_validate({"path": "/here/rows.jsonl", **change})
        assert fingerprint(other) != fingerprint(one)


def test_globs_at_any_depth(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "x/c.jsonl", "x/y/a.jsonl", "x/y/rows.csv"):
        written(tmp_path / "d" / name)
    base = str(tmp_path / "d")
    assert names(SourceConfig(path=f"{base}/*.jsonl")) == ["a.jsonl", "b.jsonl"]
    everything = ["a.jsonl", "b.jsonl", "x/c.jsonl", "x/y/a.jsonl"]
    assert names(SourceConfig(path=f"{base}/**/*.jsonl")) == everything
    assert names(SourceConfig(path=f"{base}/*/?.jsonl")) == ["x/c.jsonl"]
    with pytest.raises(ConfigError, match=r"Write folders/\*\*/\*\.jsonl"):
        find(SourceConfig(path=f"{base}/**.jsonl"))
    with pytest.raises(MissingFileError, match="no such file"):
        find(SourceConfig(path=f"{base}/**/*.parquet"))


def test_all_sources_and_the_golden_set_are_found_at_the_start(tmp_path: Path) -> None:
    rows, golden = written(tmp_path / "rows.jsonl"), written(tmp_path / "golden.jsonl", LINE * 2)
    columns = ColumnMapping(messages="m")
    config = IngestConfig(sources=(SourceConfig(path=str(rows), columns=columns),) * 2)
    found = find_all(config, GoldenConfig(source=SourceConfig(path=str(golden), columns=columns)))
    assert [[file.name for file in files] for files in found.rows] == [["rows.jsonl"]] * 2
    assert [file.name for file in found.golden] == ["golden.jsonl"]
    golden.unlink()
    with pytest.raises(MissingFileError, match=r"golden\.jsonl"):
        find_all(config, GoldenConfig(source=SourceConfig(path=str(golden), columns=columns)))


def test_a_file_that_grew_is_read_as_it_was_found_and_one_that_changed_is_refused(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "rows.jsonl")
    source = SourceConfig(path=str(path))
    [file] = find(source)
    path.write_bytes(LINE + b'{"a": 2}\n')
    assert [row.line for row in read_file(file, source)] == [1]
    for body in (b'{"a": 7}\n', LINE[:-2]):
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"rows\.jsonl: the file was changed"):
            list(read_file(file, source))


def test_a_download_is_kept_in_the_store_under_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    path = written(tmp_path / "export.jsonl")
    file = pin(open_store(), "export.jsonl", path)
    path.unlink()
    with local_copy(file) as copy:
        assert copy.read_bytes() == LINE
    assert not copy.exists()
    [row] = list(read_file(file, SourceConfig(path="export.jsonl")))
    assert (row.file, row.line) == ("export.jsonl", 1)


def test_a_hub_out_of_reach_is_replaced_by_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "rows.jsonl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert names(SourceConfig(hub="who/what", path=str(path))) == ["rows.jsonl"]
    alone = SourceConfig(hub="who/what", hub_revision="c0ffee", hub_split="test")
    [file] = find(alone)
    assert (file.kind, file.name, file.digest) == ("hub", "hub:who/what", "c0ffee#test")
    unpinned = SourceConfig(hub="who/what")
    assert find(unpinned) != find(unpinned), "what is not pinned is never taken as known"


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("a/*.jsonl", "a/b.jsonl", True),
        ("a/*.jsonl", "a/b/c.jsonl", False),
        ("a/**/*.jsonl", "a/b.jsonl", True),
        ("a/**/*.jsonl", "a/b/c/d.jsonl", True),
        ("a/**", "a/b/c.jsonl", True),
        ("**/c.jsonl", "c.jsonl", True),
        ("a?c", "a/c", False),
        ("a?c", "abc", True),
        ("a[0-9].csv", "a7.csv", True),
        ("a[!0-9].csv", "a7.csv", False),
        ("a[!0-9].csv", "a/.csv", False),
        ("a.(b)+", "a.(b)+", True),
        ("a.(b)+", "axbb", False),
        ("a[", "a[", True),
    ],
)
def test_glob_over_keys(pattern: str, key: str, matches: bool) -> None:
    assert (glob_pattern(pattern).fullmatch(key) is not None) is matches


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as reading needs. ``breaks`` cuts so many answers off after some bytes."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, bytes]] = {}
    breaks: ClassVar[int] = 0
    page: ClassVar[int] = 2

    def do_GET(self) -> None:
        url = urlparse(self.path)
        bucket, _, key = unquote(url.path).removeprefix("/").partition("/")
        if bucket != "data":
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not key:
            self._list({name: found[0] for name, found in parse_qs(url.query).items()})
        elif (body := self.objects.get(key)) is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.headers.get("If-Match", etag(body)) != etag(body):
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        else:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self._answer(206, body[start:], cut=True)

    def _list(self, query: dict[str, str]) -> None:
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        keys = sorted(k for k in self.objects if k.startswith(prefix) and k > after)
        more, keys = len(keys) > self.page, keys[: self.page]
        entries = "".join(
            f"<Contents><Key>{escape(k)}</Key><Size>{len(self.objects[k])}</Size>"
            f"<ETag>{escape(etag(self.objects[k]))}</ETag></Contents>"
            for k in keys
        )
        token = f"<NextContinuationToken>{escape(keys[-1])}</NextContinuationToken>" if more else ""
        flag = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        xml = f"<ListBucketResult>{flag}{token}{entries}</ListBucketResult>"
        self._answer(200, xml.encode())

    def _answer(self, status: int, body: bytes, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut and type(self).breaks > 0:
            type(self).breaks -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


def etag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'  # noqa: S324


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """One for all tests of the module: a client for it takes a while to make."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, bytes]:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    quick = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    monkeypatch.setattr(objects, "_S3_CONFIG", quick)
    monkeypatch.setattr(_Bucket, "objects", {})
    monkeypatch.setattr(_Bucket, "breaks", 0)
    return _Bucket.objects


def test_objects_are_found_by_glob_over_all_pages(bucket: dict[str, bytes]) -> None:
    for name in ("z", "a", "m", "x/a", "x/y/b"):
        bucket[f"rows/{name}.jsonl.gz"] = gzip.compress(json.dumps({"from": name}).encode())
    bucket["rows/other.csv"] = b"from\nelsewhere\n"
    bucket["rows/m[1].jsonl"] = b'{"from": "brackets"}'
    source = SourceConfig(path="s3://data/rows/*.jsonl.gz")
    assert names(source) == [f"s3://data/rows/{name}.jsonl.gz" for name in "amz"]
    assert [v["from"] for v in values(source)] == ["a", "m", "z"]
    deep = values(SourceConfig(path="s3://data/rows/**/*.jsonl.gz"))
    assert {v["from"] for v in deep} == {"z", "a", "m", "x/a", "x/y/b"}
    assert values(SourceConfig(path="s3://data/rows/m[1].jsonl")) == [{"from": "brackets"}]
    assert values(SourceConfig(path="s3://data/rows/other.csv")) == [{"from": "elsewhere"}]


def test_a_stream_that_breaks_is_taken_up_where_it_broke(
    bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.dumps({"n": n, "text": "x" * 999}) + "\n" for n in range(4000)]
    bucket["rows.jsonl"] = "".join(lines).encode()
    monkeypatch.setattr(_Bucket, "breaks", 2)
    assert [v["n"] for v in values(SourceConfig(path="s3://data/rows.jsonl"))] == list(range(4000))


def test_a_bucket_that_goes_away_passes(
    bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket["rows.jsonl"] = LINE
    [file] = find(SourceConfig(path="s3://data/rows.jsonl"))
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="Is it running") as caught, local_copy(file):
        pass
    assert is_transient(caught.value)


@pytest.mark.parametrize("now", [None, b'{"a": 2}\n'])
def test_an_object_replaced_since_it_was_listed_is_an_error(
    bucket: dict[str, bytes], now: bytes | None
) -> None:
    bucket["rows.jsonl"] = LINE
    source = SourceConfig(path="s3://data/rows.jsonl")
    [file] = find(source)
    del bucket["rows.jsonl"]
    if now is not None:
        bucket["rows.jsonl"] = now
    with pytest.raises(DataError, match=r"s3://data/rows\.jsonl was replaced or removed while"):
        list(read_file(file, source))


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("s3://data/none.jsonl", MissingFileError, "no such object"),
        ("s3://data/none/*.jsonl", MissingFileError, "no such object"),
        ("s3://none/rows.jsonl", MissingFileError, "no such bucket"),
        ("s3://data", ConfigError, "expected s3://bucket/key"),
        ("s3:///rows", ConfigError, "expected s3://bucket/key"),
    ],
)
def test_objects_that_are_not_there(
    bucket: dict[str, bytes], path: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        find(SourceConfig(path=path))


def test_an_empty_object_is_an_error_as_an_empty_file_is(bucket: dict[str, bytes]) -> None:
    bucket["rows.jsonl"] = b""
    with pytest.raises(DataError, match=r"rows\.jsonl: the file is empty"):
        list(read(SourceConfig(path="s3://data/rows.jsonl")))


@pytest.mark.integration
def test_reading_from_the_real_bucket(stack: Path) -> None:
    store = open_store()
    assert isinstance(store, objects.S3Store)
    place = f"sources-{uuid.uuid4().hex}"
    bodies = {f"{place}/{n}/rows.jsonl.gz": gzip.compress(b'{"a": %d}\n' % n) for n in range(3)}
    for key, body in bodies.items():
        store.put_bytes(key, body)
    source = SourceConfig(path=f"{store.root}/{place}/**/*.jsonl.gz")
    assert values(source) == [{"a": 0}, {"a": 1}, {"a": 2}]
    first: SourceFile = find(source)[0]
    store.put_bytes(f"{place}/0/rows.jsonl.gz", gzip.compress(b'{"a": 9}\n'))
    with pytest.raises(DataError, match="was replaced or removed"):
        list(read_file(first, source))
