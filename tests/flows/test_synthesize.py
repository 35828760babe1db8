"""The synthesize flow on the real S3 and Prefect, with the real client against the stub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from flows.config import SynthesisConfig
from flows.synthesize import synthesize
from tasks.ingest.config import ColumnMapping, SourceConfig
from tasks.ingest.snapshot import read_source
from tasks.objects import open_store
from tests.flows.conftest import write_rows
from tests.messages_api import Reply, StubApi, error, grade, tool_use

pytestmark = pytest.mark.integration
BATCHES = {
    "budget_usd": 10.0,
    "input_usd_per_million": 0.5,
    "output_usd_per_million": 2.5,
    "poll_seconds": 0.05,
    "settle_seconds": 0.0,
}
THINGS = ["kettle", "camera", "parcel", "invoice", "router", "tablet", "speaker", "charger"]


def write_and_grade(params: dict[str, Any]) -> Reply:
    if params["tool_choice"]["name"] == "record_judgement":
        return grade(5)
    words = re.findall(r"[a-z]{4,}", params["messages"][0]["content"])
    number = sum(map(len, words))
    examples = [
        {
            "prompt": f"My {thing} {words[number % len(words)]} stopped on day {number + i}, what "
            f"should {words[i]} and I do about the {words[-i - 1]}?",
            "answer": "yes",
        }
        for i, thing in enumerate(THINGS[:3])
    ]
    return tool_use("record_examples", {"examples": examples}, usage=(400, 200))


@pytest.fixture
def config(stack: Path, tiny_model: Path, tmp_path: Path) -> SynthesisConfig:
    write_rows(tmp_path / "rows.jsonl", ["yes"] * 60, 11)
    write_rows(tmp_path / "golden.jsonl", ["yes"] * 20, 12)
    columns = {"user": "prompt", "assistant": "completion"}
    return SynthesisConfig.model_validate(
        {
            "name": "synthesis",
            "task": {"kind": "classification", "system_prompt": "Answer."},
            "base_model": {"id": str(tiny_model)},
            "ingest": {"sources": [{"path": str(tmp_path / "rows.jsonl"), "columns": columns}]},
            "golden": {"source": {"path": str(tmp_path / "golden.jsonl"), "columns": columns}},
            "clean": {
                "allow": ["few_examples"],
                "pii": {"enabled": False},
                "quality": {"gibberish": {"enabled": False}},
                "decontamination": {"embeddings": False},
            },
            "synthesize": {
                "generation": {"num_calls": 6, "examples_per_call": 3},
                "batches": BATCHES,
                "judge": {"batches": BATCHES},
                "diversity": {"embedding": None, "min_rows": 5},
            },
        }
    )


def test_rows_are_published_and_a_second_run_is_free(
    config: SynthesisConfig, api: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    api.answer = write_and_grade
    api.faults = {"create": [error(529)], "retrieve": [error(500)], "results": [error(429)]}
    first = synthesize(config)
    assert first.num_out > 0
    assert first.spent_usd > 0
    store = open_store()
    lines = store.get_bytes(f"{first.uri.removeprefix(f'{store.root}/')}/examples.jsonl")
    assert len(lines.splitlines()) == first.num_out
    rows = [json.loads(line) for line in lines.splitlines()]
    assert {row["source"] for row in rows} == {"synthetic"}
    paid = dict(api.paid)

    # What is published is a source of the next retrain run, by the glob that the config names.
    source = SourceConfig(
        path=f"{store.root}/synthetic/{config.name}/*.jsonl",
        source="synthetic",
        columns=ColumnMapping(messages="messages", group="group", created_at="created_at"),
    )
    read, bad = read_source(source, config.task)
    assert bad == []
    assert [e.group for e in read] == [row["group"] for row in rows]
    assert [e.answer for e in read] == [row["messages"][-1]["content"] for row in rows]

    again = synthesize(config)
    assert again.spent_usd == 0
    assert again.num_out == first.num_out
    assert dict(api.paid) == paid
    assert set(paid.values()) == {1}
