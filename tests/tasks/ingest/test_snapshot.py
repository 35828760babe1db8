"""Sources become one snapshot; unreadable rows its quarantine; the golden set is locked."""

import contextlib
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.errors import DataError, GoldenSetChangedError
from tasks.example import SCHEMA, from_table, to_table
from tasks.ingest import row_groups
from tasks.ingest.assemble import SnapshotCounts, SourceParts, assemble
from tasks.ingest.config import ColumnMapping, GoldenConfig, IngestConfig, SourceConfig
from tasks.ingest.files import find
from tasks.ingest.parts import Parts
from tasks.ingest.row_groups import RowGroupWriter
from tasks.ingest.snapshot import lock, read_golden, read_source, rows_digest, write_snapshot
from tasks.objects import LocalStore
from tasks.storage import file_digest

TASK = TaskConfig()
PAIR = ColumnMapping(user="q", assistant="a")


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def pair(number: int) -> dict[str, Any]:
    return {
        "q": f"question {number}",
        "a": f"answer {number}",
        "lang": "de" if number % 3 else "en",
    }


def source(path: Path, **config: Any) -> SourceConfig:
    return SourceConfig(path=str(path), columns=PAIR, **config)


@pytest.fixture(autouse=True)
def _own_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))


def written(
    config: IngestConfig, folder: Path, store: LocalStore | None = None, code: str = "code"
) -> SnapshotCounts:
    """The snapshot of a config in ``folder``; without a store that knows parts, all is read."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [find(source) for source in config.sources]
    parts = Parts(store or LocalStore(folder / "no-store"), TASK, code)
    return write_snapshot(files, config, parts, folder)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.glob("*.parquet"))}


def golden(path: Path, **config: Any) -> GoldenConfig:
    return GoldenConfig(source=source(path), **config)


def test_a_snapshot_holds_every_row_somewhere(tmp_path: Path) -> None:
    human = jsonl(tmp_path / "human.jsonl", [pair(n) for n in range(8)] + [["not", "a", "row"]])
    made = jsonl(tmp_path / "made.jsonl", [pair(8), {"q": "\ud800", "a": "x"}])
    config = IngestConfig(
        sources=(source(human), source(made, source="synthetic")), max_quarantined_share=0.2
    )
    counts = written(config, tmp_path)
    assert (counts.num_read, counts.num_quarantined) == (11, 2)
    assert counts.by_source == {"human": 8, "synthetic": 1}
    assert counts.by_reason == {"lone_surrogate": 1, "not_an_object": 1}
    rows = from_table(pq.read_table(tmp_path / "examples.parquet"))
    assert [row.answer for row in rows] == [f"answer {n}" for n in range(9)]
    quarantine = pq.read_table(tmp_path / "quarantine.parquet").to_pylist()
    places = [(q["file"], q["line"], q["field"], q["reason"]) for q in quarantine]
    assert places == [
        ("human.jsonl", 9, None, "not_an_object"),
        ("made.jsonl", 2, "q", "lone_surrogate"),
    ]
    assert quarantine[0]["raw"] == b'["not", "a", "row"]'


def test_a_snapshot_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [pair(n) for n in range(20)])
    digests = []
    for name in ("one", "two"):
        written(IngestConfig(sources=(source(path),)), tmp_path / name)
        digests.append(bytes_of(tmp_path / name))
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("num_bad", "share", "fails"), [(1, 0.1, False), (2, 0.1, True), (1, 0, True)]
)
def test_too_many_unreadable_rows_fail(
    tmp_path: Path, num_bad: int, share: float, fails: bool
) -> None:
    rows: list[Any] = [pair(n) for n in range(10 - num_bad)] + ["text"] * num_bad
    path = jsonl(tmp_path / "rows.jsonl", rows)
    config = IngestConfig(sources=(source(path),), max_quarantined_share=share)
    if not fails:
        assert written(config, tmp_path).num_quarantined == num_bad
        return
    with pytest.raises(DataError, match=rf"{num_bad} of 10 rows.*rows\.jsonl:{11 - num_bad}"):
        written(config, tmp_path)


def test_no_rows_at_all_fail(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [pair(1)])
    config = IngestConfig(sources=(source(path, where={"lang": ["fr"]}),))
    with pytest.raises(DataError, match="hold no rows"):
        written(config, tmp_path)


def test_where_keeps_the_rows_with_one_of_the_values(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*(pair(n) for n in range(9)), {"q": "x", "a": "y"}])
    good, bad = read_source(source(path, where={"lang": ["en"]}), TASK)
    assert [e.answer for e in good] == ["answer 0", "answer 3", "answer 6"]
    assert bad == []


def test_where_on_a_column_that_the_file_lacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("q,a\none,1\n")
    with pytest.raises(DataError, match=r"rows\.csv: column 'lang' is mapped"):
        read_source(source(tmp_path / "rows.csv", where={"lang": ["en"]}), TASK)


def test_every_csv_of_a_glob_is_checked_for_its_columns(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("q,a\nshort\none,1\n")
    (tmp_path / "2.csv").write_text("q,b\none,1\n")
    with pytest.raises(DataError, match=r"2\.csv: column 'a' is mapped"):
        read_source(source(tmp_path / "*.csv"), TASK)


def test_json_lines_each_have_their_own_columns(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.txt", [{"q": "no answer"}, pair(1)])
    good, bad = read_source(source(path, format="jsonl"), TASK)
    assert (len(good), [b.reason for b in bad]) == (1, ["missing_field"])


def test_limit_chooses_the_same_rows_in_any_order(tmp_path: Path) -> None:
    rows = [pair(n) for n in range(40)]
    chosen = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        path = jsonl(tmp_path / "rows.jsonl", rows)
        good, _ = read_source(source(path, limit=10), TASK)
        order = {row["a"]: place for place, row in enumerate(rows)}
        assert [order[e.answer] for e in good] == sorted(order[e.answer] for e in good)
        chosen.append({e.answer for e in good})
    assert len(chosen[0]) == 10
    assert chosen[0] == chosen[1] == chosen[2]


def test_limit_holds_among_duplicates_and_above_the_number_of_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [pair(n % 2) for n in range(20)])
    assert len(read_source(source(path, limit=5), TASK)[0]) == 5
    assert len(read_source(source(path, limit=50), TASK)[0]) == 20


def test_a_nul_or_half_a_character_is_quarantined_not_stored(tmp_path: Path) -> None:
    rows = [pair(1), pair(2) | {"a": "x\0y"}, pair(3) | {"a": "\udfff"}, pair(4)]
    good, bad = read_source(source(jsonl(tmp_path / "rows.jsonl", rows)), TASK)
    assert [e.answer for e in good] == ["answer 1", "answer 4"]
    assert [(b.line, b.reason) for b in bad] == [(2, "nul_character"), (3, "lone_surrogate")]


def lines(numbers: Iterable[int]) -> bytes:
    return b"".join(json.dumps(pair(n)).encode() + b"\n" for n in numbers)


def num_new(store: LocalStore, source: SourceConfig, folder: Path) -> int:
    """How many rows are read for a snapshot, which is checked to be that of a full read."""
    shutil.rmtree(folder, ignore_errors=True)
    config = IngestConfig(sources=(source,), max_quarantined_share=1)
    counts = written(config, folder / "known", store)
    full = written(config, folder / "full")
    assert bytes_of(folder / "known") == bytes_of(folder / "full")
    assert (counts.num_read, counts.by_reason) == (full.num_read, full.by_reason)
    return counts.num_new


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    store, week = LocalStore(tmp_path / "store"), source(tmp_path / "data" / "*.jsonl")
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"{number}.jsonl").write_bytes(lines(range(number, number + 5)))
        assert num_new(store, week, tmp_path / "out") == 5
    assert num_new(store, week, tmp_path / "out") == 0
    (tmp_path / "data" / "1.jsonl").rename(tmp_path / "data" / "9.jsonl")
    assert num_new(store, week, tmp_path / "out") == 5, "a renamed file is another one"
    assert num_new(store, week.model_copy(update={"limit": 4}), tmp_path / "out") == 0
    assert num_new(store, week.model_copy(update={"source": "hub"}), tmp_path / "out") == 15


@pytest.mark.parametrize("limit", [1, 7, 20, 59, 60, 99])
def test_a_limit_over_many_files_is_that_over_all_their_rows(tmp_path: Path, limit: int) -> None:
    (tmp_path / "data").mkdir()
    for number in range(6):
        (tmp_path / "data" / f"{number}.jsonl").write_bytes(
            lines(range(number * 8, number * 8 + 10))
        )
    config = source(tmp_path / "data" / "*.jsonl", limit=limit)
    written(IngestConfig(sources=(config,)), tmp_path / "out")
    rows = from_table(pq.read_table(tmp_path / "out" / "examples.parquet"))
    assert rows == read_source(config, TASK)[0]
    everything = read_source(config.model_copy(update={"limit": None}), TASK)[0]
    assert sorted(row.id for row in rows) == sorted(row.id for row in everything)[:limit]


def test_other_code_reads_everything_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    config = IngestConfig(sources=(source(jsonl(tmp_path / "rows.jsonl", [pair(1)])),))
    codes = ("one", "one", "two")
    counts = [written(config, tmp_path / "out", store, code) for code in codes]
    assert [count.num_new for count in counts] == [1, 0, 1]


def test_of_a_file_that_grew_only_the_end_is_read(tmp_path: Path) -> None:
    store, path = LocalStore(tmp_path / "store"), tmp_path / "log.jsonl"
    begin = b"\xef\xbb\xbf\n" + lines(range(5)) + b"not json\n\n"
    path.write_bytes(begin)
    assert num_new(store, source(path), tmp_path / "out") == 6
    path.write_bytes(begin + lines(range(5, 9)) + b"[]\n")
    assert num_new(store, source(path), tmp_path / "out") == 5
    path.write_bytes(begin + lines(range(5, 9)) + b"[]\n" + b'{"q": "cut')
    assert num_new(store, source(path), tmp_path / "out") == 1
    bad = pq.read_table(tmp_path / "out" / "known" / "quarantine.parquet").to_pylist()
    assert [(row["line"], row["raw"]) for row in bad] == [
        (7, b"not json"),
        (13, b"[]"),
        (14, b'{"q": "cut'),
    ]
    path.write_bytes(begin + lines(range(5, 9)) + b"[]\n" + lines([9]))
    assert num_new(store, source(path), tmp_path / "out") == 1, "the cut end was not built on"


@pytest.mark.parametrize(
    "body",
    [
        lines([0, 1, 9]) + lines(range(3, 8)),  # an earlier row was changed
        lines([0, 1]),  # it got shorter
        gzip.compress(lines(range(4))),
        ("\ufeff" + lines(range(4)).decode()).encode("utf-16"),
    ],
    ids=["changed", "shorter", "compressed", "wide"],
)
def test_a_file_that_did_not_just_grow_is_read_again(tmp_path: Path, body: bytes) -> None:
    store, path = LocalStore(tmp_path / "store"), tmp_path / "log.jsonl"
    path.write_bytes(lines(range(3)))
    assert num_new(store, source(path), tmp_path / "out") == 3
    path.write_bytes(body)
    assert num_new(store, source(path), tmp_path / "out") > 1


def spoil(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(body[:-9] + bytes(b ^ 1 for b in body[-9:]))


@pytest.mark.parametrize("do", [Path.unlink, spoil, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("what", ["examples.parquet", "manifest.json", "parts/*.json"])
def test_a_part_that_is_gone_or_corrupt_is_made_again(
    tmp_path: Path, do: Callable[[Path], None], what: str
) -> None:
    store, path = LocalStore(tmp_path / "store"), tmp_path / "rows.jsonl"
    path.write_bytes(lines(range(5)))
    assert num_new(store, source(path), tmp_path / "out") == 5
    for found in list((tmp_path / "store").rglob(what)):
        do(found)
    shutil.rmtree(tmp_path / "local")
    assert num_new(store, source(path), tmp_path / "out") == 5
    shutil.rmtree(tmp_path / "local")
    assert num_new(store, source(path), tmp_path / "out") == 0, "it was not mended"


class Killed(LocalStore):
    """A store whose process dies at the n-th write."""

    writes = 0

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._count()
        return super().put_bytes(key, body, if_absent=if_absent)

    def put(self, key: str, source: Path) -> None:
        self._count()
        super().put(key, source)

    def _count(self) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise KeyboardInterrupt


def test_a_run_killed_at_any_write_harms_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(range(4)))
    for writes in range(9):
        store = Killed(tmp_path / f"store-{writes}")
        store.writes = writes
        with contextlib.suppress(KeyboardInterrupt):
            written(IngestConfig(sources=(source(path),)), tmp_path / "killed", store)
        assert num_new(LocalStore(Path(store.root)), source(path), tmp_path / "out") in (0, 4)


def test_runs_beside_each_other_make_one_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(lines(range(500)))
    store, start = LocalStore(tmp_path / "store"), threading.Barrier(4)

    def run(number: int) -> dict[str, str]:
        start.wait()
        written(IngestConfig(sources=(source(path),)), tmp_path / f"out-{number}", store)
        return bytes_of(tmp_path / f"out-{number}")

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(run, range(4))
    assert others == [first] * 3


any_line = st.one_of(
    st.integers(0, 50).map(lambda n: json.dumps(pair(n)).encode()),
    st.sampled_from([b"", b"[]", b"not json", b"\xff", b'{"q": "x", "a": "\\u0000"}', b"\r"]),
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(any_line, min_size=1, max_size=20), st.data())
def test_however_files_grew_the_snapshot_is_that_of_a_full_read(
    tmp_path: Path, body: list[bytes], data: st.DataObject
) -> None:
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    whole = lines([1]) + b"\n".join(body) + b"\n"
    cuts = data.draw(st.lists(st.integers(1, len(whole)), max_size=2))
    limit = data.draw(st.none() | st.integers(1, 4))
    store = LocalStore(place / "store")
    config = source(place / "*.jsonl", limit=limit)
    (place / "0-other.jsonl").write_bytes(lines(range(3)))
    for cut in [*sorted(cuts), len(whole)]:
        (place / "log.jsonl").write_bytes(whole[:cut])
        num_new(store, config, place / "out")
    assert num_new(store, config, place / "out") == 0


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), numbers=st.lists(st.integers(0, 999), min_size=1, max_size=40))
def test_row_groups_are_cut_by_the_rows_alone(
    tmp_path: Path, data: st.DataObject, numbers: list[int]
) -> None:
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    examples = read_source(source(jsonl(place / "rows.jsonl", [pair(n) for n in numbers])), TASK)[0]
    table = to_table(examples)
    digests = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_groups, "MAX_ROWS", data.draw(st.integers(1, 12)))
        patch.setattr(row_groups, "MAX_BYTES", data.draw(st.integers(1, 4000)))
        for name in ("one", "two"):
            cuts = data.draw(st.lists(st.integers(0, len(numbers)), max_size=4).map(sorted))
            with RowGroupWriter(place / name, SCHEMA) as writer:
                for start, end in pairwise([0, *cuts, len(numbers)]):
                    writer.write(table.slice(start, end - start))
            digests.add(file_digest(place / name))
    assert len(digests) == 1
    assert pq.read_table(place / "one").equals(table)


def test_rows_can_be_left_out_while_the_snapshot_is_put_together(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*(pair(n) for n in range(9)), ["secret"], ["other"]])
    (tmp_path / "making").mkdir()
    part = Parts(LocalStore(tmp_path / "store"), TASK, "code").of(
        find(source(path))[0], source(path), tmp_path / "making"
    )
    forgotten = {read_source(source(path), TASK)[0][n].id for n in (2, 5)}

    def keep(table: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([i not in forgotten for i in table["id"].to_pylist()], dtype=bool)

    def keep_quarantined(table: pa.Table) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([b"secret" not in raw for raw in table["raw"].to_pylist()], dtype=bool)

    for limit, expected in ((None, 7), (7, 7), (8, 7), (3, 3)):
        out = tmp_path / f"out-{limit}"
        out.mkdir()
        counts = assemble([SourceParts([part], limit)], out, keep, keep_quarantined)
        kept = set(pq.read_table(out / "examples.parquet")["id"].to_pylist())
        assert len(kept) == expected
        assert not kept & forgotten
        assert (counts.num_read, counts.num_quarantined) == (expected + 1, 1)


# The peak from /proc: a process inherits getrusage's from the one that started it.
MEASURE = """
import json, re, sys
from pathlib import Path
from tasks.artifacts import TaskConfig
from tasks.ingest.config import IngestConfig, SourceConfig
from tasks.ingest.files import find
from tasks.ingest.parts import Parts
from tasks.ingest.row_groups import RowGroupWriter
from tasks.ingest.snapshot import write_snapshot
from tasks.objects import LocalStore

def run(name):
    out = Path(name + ".out")
    out.mkdir()
    columns = {"user": "q", "assistant": "a"}
    config = IngestConfig(sources=[SourceConfig(path=name, columns=columns)])
    parts = Parts(LocalStore(out / "store"), TaskConfig(), "code")
    counts = write_snapshot([find(config.sources[0])], config, parts, out)
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
    return counts.num_read, int(peak[1]) * 1024

small, before = run(sys.argv[1])
big, after = run(sys.argv[2])
print(json.dumps({"rows": big, "grown": after - before}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    small, big = tmp_path / "small.jsonl", tmp_path / "big.jsonl"
    text = "x" * 30_000
    row = json.dumps({"q": f"%d {text}", "a": "yes"})
    small.write_text("".join(row % n + "\n" for n in range(500)))
    with big.open("w") as file:
        file.writelines(row % n + "\n" for n in range(4_000))
        file.write("y" * 30_000_000)  # and one line that is never held
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(small), str(big)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    print(found)
    assert found["rows"] == 4_001
    assert big.stat().st_size > 150_000_000
    # Held whole, the rows would take their text several times over; what allocators keep varies.
    assert found["grown"] < 100_000_000


@pytest.fixture
def golden_file(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "golden.jsonl", [pair(n) for n in range(5)])


def locked(store: LocalStore, config: GoldenConfig, model: str = "support") -> None:
    lock(store, model, config, rows_digest(read_golden(config, TASK)))


def test_a_locked_golden_set_may_be_read_again(tmp_path: Path, golden_file: Path) -> None:
    store = LocalStore(tmp_path / "store")
    locked(store, golden(golden_file))
    jsonl(golden_file, [pair(n) for n in reversed(range(5))])  # the order is not the content
    locked(store, golden(golden_file))


def test_changed_rows_need_a_new_version(tmp_path: Path, golden_file: Path) -> None:
    store = LocalStore(tmp_path / "store")
    locked(store, golden(golden_file))
    jsonl(golden_file, [pair(n) for n in range(4)] + [{"q": "question 4", "a": "better"}])
    with pytest.raises(GoldenSetChangedError, match=r"Restore the file, or.*golden\.version to 2"):
        locked(store, golden(golden_file))
    locked(store, golden(golden_file, version=2, reason="mended"))
    with pytest.raises(GoldenSetChangedError):
        locked(store, golden(golden_file))


@pytest.mark.parametrize(("before", "after"), [(0.0, 0.2), (0.2, 0.0), (0.2, 0.3)])
def test_another_sealed_share_needs_a_new_version(
    tmp_path: Path, golden_file: Path, before: float, after: float
) -> None:
    store = LocalStore(tmp_path / "store")
    locked(store, golden(golden_file, sealed_share=before))
    with pytest.raises(GoldenSetChangedError, match=r"sealed_share.*golden\.version to 2"):
        locked(store, golden(golden_file, sealed_share=after))
    locked(store, golden(golden_file, sealed_share=after, version=2, reason="sealed anew"))


def test_a_lock_from_before_rows_could_be_sealed_still_holds(
    tmp_path: Path, golden_file: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    config = golden(golden_file)
    old = {"rows_digest": rows_digest(read_golden(config, TASK)), "date": "2026-01-01"}
    key = f"golden/support/{config.name}-v1.lock.json"
    store.put_bytes(key, json.dumps(old).encode())
    locked(store, config)


def test_each_model_has_its_own_lock(tmp_path: Path, golden_file: Path) -> None:
    store = LocalStore(tmp_path / "store")
    locked(store, golden(golden_file))
    jsonl(golden_file, [pair(9)])
    locked(store, golden(golden_file), model="other")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (pair(0), r"same row stands at golden\.jsonl:1, golden\.jsonl:6"),
        ({"q": "QUESTION  0", "a": "answer 0"}, r"same row stands at golden\.jsonl:1"),
        ({"q": "question 9"}, r"1 unreadable rows; golden\.jsonl:6 a: missing_field"),
        ({"q": "question 9", "a": "  "}, r"right answer; golden\.jsonl:6 does not"),
    ],
)
def test_a_golden_row_that_cannot_decide_is_refused(
    golden_file: Path, last: dict[str, str], words: str
) -> None:
    jsonl(golden_file, [*(pair(n) for n in range(5)), last])
    with pytest.raises(DataError, match=words):
        read_golden(golden(golden_file), TASK)


def test_a_golden_file_is_checked_against_its_sha256(golden_file: Path) -> None:
    right = file_digest(golden_file)
    assert len(read_golden(golden(golden_file, sha256=right), TASK)) == 5
    with pytest.raises(GoldenSetChangedError, match="expected one file with SHA-256 000000000000"):
        read_golden(golden(golden_file, sha256="0" * 64), TASK)


SAMPLE = Path(__file__).parents[3] / "deployments" / "sample"
KEY = Path(__file__).parents[2] / "data" / "sample_key.jsonl"


def test_the_broken_rows_of_the_sample_are_quarantined_and_no_other() -> None:
    sources = {
        "human.csv": ColumnMapping(user="message", assistant="ticket", group="customer"),
        "production.jsonl": ColumnMapping(messages="messages", group="conversation_id"),
        "synthetic.jsonl": ColumnMapping(user="prompt", assistant="completion", group="seed_id"),
    }
    num_good, bad = 0, []
    for name, columns in sources.items():
        good, unread = read_source(SourceConfig(path=str(SAMPLE / name), columns=columns), TASK)
        num_good += len(good)
        bad += unread
    key = [json.loads(line) for line in KEY.read_text(encoding="utf-8").splitlines()]
    broken = {(k["file"], k["line"]) for k in key if k["kind"] == "broken_row"}
    assert {(b.file, b.line) for b in bad} == broken
    assert num_good == 1500 - len(broken)
    print("broken rows:", dict(Counter(b.reason for b in bad)))
