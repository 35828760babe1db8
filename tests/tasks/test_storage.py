"""Artifacts are addressed by content, whole or absent, and checked on the way back."""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from botocore.config import Config

from tasks import objects, storage
from tasks.artifacts import Artifact
from tasks.errors import ArtifactMissingError, ConfigError, StorageError, is_transient
from tasks.objects import LocalStore, S3Store, open_store
from tasks.storage import MANIFEST, commit, fetch, is_intact


@pytest.fixture(autouse=True)
def _own_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "rows.parquet").write_bytes(b"rows" * 1000)
    (made / "deep" / "stats.json").write_text("{}")
    return made


class Noting(LocalStore):
    """A store that notes what is written, and can break before the n-th write."""

    def __init__(self, root: Path, break_at: int | None = None) -> None:
        super().__init__(root)
        self.written: list[str] = []
        self._break_at = break_at

    def put(self, key: str, source: Path) -> None:
        self._note(key)
        super().put(key, source)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._note(key)
        return super().put_bytes(key, body, if_absent=if_absent)

    def _note(self, key: str) -> None:
        if len(self.written) == self._break_at:
            raise StorageError("the disk is full")
        self.written.append(Path(key).name)


def committed(store: LocalStore, folder: Path) -> Artifact:
    uri, digest = commit(store, "clean", folder)
    return Artifact(uri=uri, digest=digest)


def place(artifact: Artifact, name: str) -> Path:
    return Path(artifact.uri) / name


def test_the_address_is_the_digest_of_the_manifest(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    manifest = place(artifact, MANIFEST).read_bytes()
    assert artifact.uri == f"{store.root}/clean/{hashlib.sha256(manifest).hexdigest()}"
    files = {f["path"]: f for f in json.loads(manifest)["files"]}
    assert set(files) == {"rows.parquet", "deep/stats.json"}
    assert files["rows.parquet"]["bytes"] == 4000
    assert files["rows.parquet"]["sha256"] == hashlib.sha256(b"rows" * 1000).hexdigest()


def test_the_same_bytes_have_one_address_and_are_written_once(tmp_path: Path, folder: Path) -> None:
    store = Noting(tmp_path / "store")
    first = committed(store, folder)
    assert store.written[-1] == MANIFEST
    assert sorted(store.written) == [MANIFEST, "rows.parquet", "stats.json"]
    assert committed(store, folder) == first
    assert len(store.written) == 3


def test_one_other_byte_makes_another_address(store: LocalStore, folder: Path) -> None:
    first = committed(store, folder)
    (folder / "rows.parquet").write_bytes(b"rows" * 999 + b"rowz")
    assert committed(store, folder).digest != first.digest


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_commit_that_breaks_midway_leaves_no_manifest(
    tmp_path: Path, folder: Path, writes: int
) -> None:
    whole = committed(LocalStore(tmp_path / "elsewhere"), folder)
    breaking = Noting(tmp_path / "store", break_at=writes)
    with pytest.raises(StorageError, match="disk is full"):
        commit(breaking, "clean", folder)
    assert not list((tmp_path / "store").rglob(MANIFEST))
    half = Artifact(uri=f"{breaking.root}/clean/{whole.digest}", digest=whole.digest)
    assert not is_intact(breaking, half)
    assert committed(LocalStore(tmp_path / "store"), folder) == half
    assert is_intact(breaking, half)


def test_fetch_gives_the_same_files(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    copy = fetch(store, artifact.uri, artifact.digest)
    for name in ("rows.parquet", "deep/stats.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()


def test_a_second_fetch_copies_nothing(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    copy = fetch(store, artifact.uri, artifact.digest)
    place(artifact, "rows.parquet").unlink()
    assert fetch(store, artifact.uri, artifact.digest) == copy
    assert (copy / "rows.parquet").is_file()


def test_an_incomplete_copy_is_made_again(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    copy = fetch(store, artifact.uri, artifact.digest)
    (copy / "rows.parquet").write_bytes(b"half")
    assert (fetch(store, artifact.uri, artifact.digest) / "rows.parquet").stat().st_size == 4000


def test_fetch_names_the_corrupt_file(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    place(artifact, "rows.parquet").write_bytes(b"ROWS" + b"rows" * 999)
    with pytest.raises(ArtifactMissingError, match=r"rows\.parquet is corrupt"):
        fetch(store, artifact.uri, artifact.digest)
    assert not (storage.local_folder() / "cache" / artifact.digest).exists()
    assert not list((storage.local_folder() / "tmp").iterdir())


@pytest.mark.parametrize("name", [MANIFEST, "rows.parquet", "deep/stats.json"])
def test_a_lost_file_is_noticed_and_put_back(store: LocalStore, folder: Path, name: str) -> None:
    artifact = committed(store, folder)
    assert is_intact(store, artifact)
    place(artifact, name).unlink()
    assert not is_intact(store, artifact)
    assert committed(store, folder) == artifact
    assert is_intact(store, artifact)


@pytest.mark.parametrize("name", [MANIFEST, "rows.parquet"])
def test_a_cut_file_is_noticed_and_put_back(store: LocalStore, folder: Path, name: str) -> None:
    artifact = committed(store, folder)
    place(artifact, name).write_bytes(b"{}")
    assert not is_intact(store, artifact)
    committed(store, folder)
    assert is_intact(store, artifact)


def test_a_manifest_with_another_digest_is_not_read(store: LocalStore, folder: Path) -> None:
    artifact = committed(store, folder)
    with place(artifact, MANIFEST).open("a") as file:
        file.write(" ")
    with pytest.raises(ArtifactMissingError, match="has digest"):
        fetch(store, artifact.uri, artifact.digest)


def test_racing_commits_and_fetches_leave_one_whole_artifact(
    store: LocalStore, folder: Path
) -> None:
    (folder / "rows.parquet").write_bytes(b"rows" * 200_000)
    start = threading.Barrier(8)

    def race(_: int) -> bytes:
        start.wait()
        artifact = committed(store, folder)
        return (fetch(store, artifact.uri, artifact.digest) / "rows.parquet").read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(race, range(8))) == {b"rows" * 200_000}
    assert is_intact(store, committed(store, folder))
    assert not list(Path(store.root).rglob(".*"))


def test_a_copy_that_is_being_read_is_not_taken_for_an_incomplete_one(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds no copy makes one, and finds another's in its place meanwhile."""
    has_sizes, waits = storage._has_sizes, itertools.count(1)

    def slowly(at: Path, files: list[dict[str, Any]]) -> bool:
        if found := has_sizes(at, files):
            return found
        time.sleep(0.01 * next(waits))
        return False

    monkeypatch.setattr(storage, "_has_sizes", slowly)
    artifact = committed(store, folder)
    start = threading.Barrier(4)

    def race(_: int) -> set[bytes]:
        start.wait()
        copy = fetch(store, artifact.uri, artifact.digest)
        reads = set()
        for _ in range(100):
            reads.add((copy / "rows.parquet").read_bytes())
            time.sleep(0.001)
        return reads

    with ThreadPoolExecutor(4) as pool:
        assert set.union(*pool.map(race, range(4))) == {(folder / "rows.parquet").read_bytes()}


def test_only_the_first_of_racing_writers_gets_an_absent_key(store: LocalStore) -> None:
    start = threading.Barrier(8)

    def race(number: int) -> bool:
        start.wait()
        return store.put_bytes("lock.json", b"%d" % number, if_absent=True)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, range(8)))
    assert won.count(True) == 1
    assert store.get_bytes("lock.json") == b"%d" % won.index(True)


def test_a_uri_of_another_store(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    artifact = committed(LocalStore(tmp_path / "elsewhere"), folder)
    with pytest.raises(ConfigError, match=r"not in the store .*RETUNE_STORE"):
        fetch(store, artifact.uri, artifact.digest)
    assert not is_intact(store, artifact)  # a cached result from there is made again


def test_a_local_folder_that_cannot_be_written_names_the_remedy(
    store: LocalStore, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = committed(store, folder)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set RETUNE_LOCAL to a folder that can be written"):
        fetch(store, artifact.uri, artifact.digest)


def test_a_store_that_cannot_be_written_names_the_remedy(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"Could not (read|write) .*RETUNE_STORE"):
        commit(LocalStore(tmp_path / "file"), "clean", folder)


def test_an_absent_object(store: LocalStore, tmp_path: Path) -> None:
    assert store.size("no/such") is None
    with pytest.raises(ArtifactMissingError, match="no/such does not exist"):
        store.get_bytes("no/such")
    with pytest.raises(ArtifactMissingError, match="no/such does not exist"):
        store.get("no/such", tmp_path / "target")


def test_open_store_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETUNE_STORE", raising=False)
    with pytest.raises(ConfigError, match="RETUNE_STORE is not set"):
        open_store()
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path))
    assert open_store().root == str(tmp_path)


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as the store uses; ``refusal`` makes it answer an error to everything."""

    protocol_version = "HTTP/1.1"  # answers "Expect: 100-continue", for which botocore waits 1 s
    objects: ClassVar[dict[str, bytes]] = {}
    refusal: ClassVar[tuple[int, str] | None] = None

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refusal:
            self._refuse(*self.refusal)
        elif self.headers.get("If-None-Match") == "*" and self.path in self.objects:
            self._refuse(412, "PreconditionFailed")
        else:
            self.objects[self.path] = body
            self._answer(200, b"")

    def do_GET(self) -> None:
        if self.refusal:
            self._refuse(*self.refusal)
        elif self.path in self.objects:
            self._answer(200, self.objects[self.path])
        else:
            self._refuse(404, "NoSuchKey")

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Bucket)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # The bucket reads bodies as they are, without AWS's chunks and trailing checksums.
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    quick = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
    monkeypatch.setattr(objects, "_S3_CONFIG", quick)
    monkeypatch.setattr(_Bucket, "objects", {})
    yield S3Store("s3://bucket/prefix/")
    server.shutdown()
    server.server_close()


def test_s3_commit_and_fetch(s3: S3Store, folder: Path) -> None:
    uri, digest = commit(s3, "clean", folder)
    assert uri == f"s3://bucket/prefix/clean/{digest}"
    assert f"/bucket/prefix/clean/{digest}/{MANIFEST}" in _Bucket.objects
    assert is_intact(s3, Artifact(uri=uri, digest=digest))
    assert (fetch(s3, uri, digest) / "rows.parquet").read_bytes() == b"rows" * 1000
    del _Bucket.objects[f"/bucket/prefix/clean/{digest}/rows.parquet"]
    assert not is_intact(s3, Artifact(uri=uri, digest=digest))


def test_s3_if_absent(s3: S3Store) -> None:
    assert s3.put_bytes("lock", b"first", if_absent=True)
    assert not s3.put_bytes("lock", b"second", if_absent=True)
    assert s3.get_bytes("lock") == b"first"
    assert s3.put_bytes("lock", b"third")


def test_s3_absent(s3: S3Store, tmp_path: Path) -> None:
    assert s3.size("no/such") is None
    with pytest.raises(ArtifactMissingError):
        s3.get_bytes("no/such")
    with pytest.raises(ArtifactMissingError):
        s3.get("no/such", tmp_path / "target")


@pytest.mark.parametrize(
    ("refusal", "words", "passes"),
    [
        ((403, "AccessDenied"), "Check AWS_ACCESS_KEY_ID", False),
        ((403, "InvalidAccessKeyId"), "Check AWS_ACCESS_KEY_ID", False),
        ((404, "NoSuchBucket"), "the bucket does not exist", False),
        ((503, "SlowDown"), "SlowDown", True),
    ],
)
def test_s3_refuses_to_write(
    s3: S3Store,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    refusal: tuple[int, str],
    words: str,
    passes: bool,
) -> None:
    monkeypatch.setattr(_Bucket, "refusal", refusal)
    for write in (
        lambda: s3.put("key", folder / "rows.parquet"),
        lambda: s3.put_bytes("key", b"body"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            write()
        assert isinstance(caught.value, StorageError) is not passes
        assert is_transient(caught.value) is passes


def test_s3_that_is_not_there_passes(s3: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="Is it running") as caught:
        S3Store("s3://bucket").get_bytes("key")
    assert is_transient(caught.value)


def test_s3_without_credentials_names_the_variables(
    s3: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such")
    with pytest.raises(StorageError, match="Set AWS_ACCESS_KEY_ID"):
        S3Store("s3://bucket").get_bytes("key")
