"""The whole stage on the sample data, held against the key to its planted dirt.

Run with ``-s`` to see the figures. ``CONFIG`` is what the sample configuration says.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from deployments import environment
from flows.config import load_config
from tasks.clean.account import Account
from tasks.clean.pipeline import clean_rows
from tasks.clean.rows import Rows
from tasks.example import Example, from_table, to_table
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.snapshot import read_source

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "deployments" / "sample"
KEY = ROOT / "tests" / "data" / "sample_key.jsonl"
CONFIG = load_config(environment.home() / "deployments" / "configs" / "sample.yaml").clean
TASK = load_config(environment.home() / "deployments" / "configs" / "sample.yaml").task
COLUMNS = {
    "human": ("human.csv", {"user": "message", "assistant": "ticket", "group": "customer"}),
    "production": ("production.jsonl", {"messages": "messages", "group": "conversation_id"}),
    "synthetic": (
        "synthetic.jsonl",
        {"user": "prompt", "assistant": "completion", "group": "seed_id"},
    ),
}

Place = tuple[str, int]


def place(example: Example) -> Place:
    return example.meta["file"], int(example.meta["line"])


def rows_of(file: str, source: str, columns: dict[str, str]) -> list[Example]:
    config = SourceConfig.model_validate(
        {
            "path": str(SAMPLE / file),
            "source": source,
            "columns": ColumnMapping(created_at="created_at", **columns),
        }
    )
    return read_source(config, TASK)[0]


@pytest.fixture(scope="module")
def raw() -> list[Example]:
    return [e for source, (file, cols) in COLUMNS.items() for e in rows_of(file, source, cols)]


@pytest.fixture(scope="module")
def cleaned(raw: list[Example]) -> Account:
    golden = rows_of("golden.jsonl", "human", {"messages": "messages"})
    return clean_rows(Rows(to_table(raw)), Rows(to_table(golden)), CONFIG, TASK)


@pytest.fixture(scope="module")
def key() -> dict[Place, dict[str, Any]]:
    lines = KEY.read_text(encoding="utf-8").splitlines()
    return {(k["file"], k["line"]): k for k in map(json.loads, lines)}


def planted(key: dict[Place, dict[str, Any]], *kinds: str) -> set[Place]:
    return {where for where, entry in key.items() if entry["kind"] in kinds}


def rejected(cleaned: Account, *reasons: str) -> set[Place]:
    return {
        place(example)
        for table in cleaned.rejected
        for example, reason in zip(
            from_table(table), table.column("reason").to_pylist(), strict=True
        )
        if not reasons or reason in reasons
    }


@pytest.mark.parametrize(
    ("kinds", "reasons", "recall", "precision"),
    [
        (("empty_answer",), ("empty_assistant_turn",), 1, 1),
        (("truncated_answer",), ("answer_not_json",), 1, 1),
        (("gibberish",), ("gibberish",), 0.95, 0.95),
        (
            ("golden_leak",),
            ("golden_exact", "golden_similar", "golden_containment", "golden_meaning"),
            0.95,
            1,
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_dirt_that_is_a_row(
    cleaned: Account,
    key: dict[Place, dict[str, Any]],
    kinds: tuple[str, ...],
    reasons: tuple[str, ...],
    recall: float,
    precision: float,
) -> None:
    dirt, found = planted(key, *kinds), rejected(cleaned, *reasons)
    hits = len(dirt & found)
    print(f"{kinds[0]}: recall {hits}/{len(dirt)}, precision {hits}/{len(found)}")
    assert hits >= recall * len(dirt)
    assert hits >= precision * len(found)


@pytest.mark.parametrize(("kind", "recall"), [("exact_duplicate", 1), ("near_duplicate", 0.97)])
def test_dirt_that_is_a_pair(
    cleaned: Account, key: dict[Place, dict[str, Any]], kind: str, recall: float
) -> None:
    """Of a planted pair one row goes, and not necessarily the copy: the better one stays."""
    found = rejected(cleaned, kind)
    pairs = []
    for where in planted(key, kind):
        file, _, line = key[where]["detail"]["of"].rpartition(":")
        pairs.append({where, (file, int(line))})
    hits = sum(len(pair & found) == 1 for pair in pairs)
    print(f"{kind}: recall {hits}/{len(pairs)}, precision {hits}/{len(found)}")
    assert hits >= recall * len(pairs)
    assert found <= set().union(*pairs)


def test_clean_rows_are_kept(
    raw: list[Example], cleaned: Account, key: dict[Place, dict[str, Any]]
) -> None:
    originals = {
        (file, int(line))
        for entry in key.values()
        for file, _, line in [entry["detail"].get("of", "::0").rpartition(":")]
    }
    clean = {place(e) for e in raw} - key.keys() - originals
    # A clean row that holds most of a row of the test split is rightly left out.
    lost = clean & (rejected(cleaned) - rejected(cleaned, "test_containment", "test_similar"))
    print(f"clean rows rejected: {len(lost)}/{len(clean)}")
    assert len(lost) <= 0.005 * len(clean)


def test_personal_data(cleaned: Account, key: dict[Place, dict[str, Any]]) -> None:
    total: Counter[str] = Counter()
    gone: Counter[str] = Counter()
    for example in from_table(cleaned.rows.table):
        entry = key.get(place(example), {})
        for entity, values in entry["detail"].items() if entry.get("kind") == "pii" else ():
            for value in values:
                parts = [re.escape(part) for part in value.split() if len(part) > 2]
                total[entity] += 1
                gone[entity] += not re.search(rf"\b(?:{'|'.join(parts)})\b", example.prompt)
    print("pii recall:", ", ".join(f"{e} {gone[e]}/{n}" for e, n in total.items()))
    assert total.total() == 260
    for entity, count in total.items():
        assert gone[entity] >= 0.97 * count, entity


def test_answers_are_untouched_and_few_clean_rows_are_redacted(
    raw: list[Example], cleaned: Account, key: dict[Place, dict[str, Any]]
) -> None:
    before = {place(e): e for e in raw}
    personal = planted(key, "pii")
    wrong = []
    for example in from_table(cleaned.rows.table):
        original = before[place(example)]
        assert example.answer == original.answer
        if place(example) not in personal and example.prompt != original.prompt:
            wrong.append(example.prompt)
    num_clean = len(cleaned.rows) - len(personal)
    print(f"clean rows redacted: {len(wrong)}/{num_clean}", *wrong, sep="\n  ")
    assert len(wrong) <= 0.015 * num_clean


def test_wrong_labels_are_sent_to_review(
    cleaned: Account, key: dict[Place, dict[str, Any]]
) -> None:
    gone = rejected(cleaned)
    dirt = {
        (f"{file}:{line}", key[file, line]["detail"]["field"])
        for file, line in planted(key, "wrong_label") - gone
    }
    found = {
        (item.place, item.reason.partition(":")[0])
        for item in cleaned.review
        if item.kind == "label"
    }
    hits = len(dirt & found)
    print(f"wrong_label: recall {hits}/{len(dirt)}, precision {hits}/{len(found)}")
    assert hits >= 0.5 * len(dirt)
