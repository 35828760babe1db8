"""Sources become one snapshot; unreadable rows its quarantine; the golden set is locked."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.artifacts import TaskConfig
from tasks.errors import DataError, GoldenSetChangedError
from tasks.example import from_table
from tasks.ingest.config import ColumnMapping, GoldenConfig, IngestConfig, SourceConfig
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


def golden(path: Path, **config: Any) -> GoldenConfig:
    return GoldenConfig(source=source(path), **config)


def test_a_snapshot_holds_every_row_somewhere(tmp_path: Path) -> None:
    human = jsonl(tmp_path / "human.jsonl", [pair(n) for n in range(8)] + [["not", "a", "row"]])
    made = jsonl(tmp_path / "made.jsonl", [pair(8), {"q": "\ud800", "a": "x"}])
    config = IngestConfig(
        sources=(source(human), source(made, source="synthetic")), max_quarantined_share=0.2
    )
    counts = write_snapshot(config, TASK, tmp_path)
    assert (counts.num_read, counts.num_quarantined) == (11, 2)
    assert counts.by_source == {"human": 8, "synthetic": 1}
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
        (tmp_path / name).mkdir()
        write_snapshot(IngestConfig(sources=(source(path),)), TASK, tmp_path / name)
        digests.append(file_digest(tmp_path / name / "examples.parquet"))
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
        assert write_snapshot(config, TASK, tmp_path).num_quarantined == num_bad
        return
    with pytest.raises(DataError, match=rf"{num_bad} of 10 rows.*rows\.jsonl:{11 - num_bad}"):
        write_snapshot(config, TASK, tmp_path)


def test_no_rows_at_all_fail(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [pair(1)])
    config = IngestConfig(sources=(source(path, where={"lang": ["fr"]}),))
    with pytest.raises(DataError, match="hold no rows"):
        write_snapshot(config, TASK, tmp_path)


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
    locked(store, golden(golden_file, version=2))
    with pytest.raises(GoldenSetChangedError):
        locked(store, golden(golden_file))


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
