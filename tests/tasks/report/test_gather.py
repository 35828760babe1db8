"""A finished run's artifacts, read back from a store, become the story that the page tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.artifacts import (
    Adapter,
    Answers,
    BaseModelRef,
    CleanDataset,
    FormattedDataset,
    GoldenSet,
    Lineage,
    RawSnapshot,
)
from tasks.evidence import EvalReport, GateDecision
from tasks.objects import LocalStore
from tasks.report.config import ReportConfig
from tasks.report.gather import gather
from tasks.report.summary import RunRecords
from tasks.scores import MetricScores, to_columns
from tasks.storage import commit

Log = Callable[..., dict[str, Any]]
BASE = BaseModelRef(id="b", digest="d")
CHECKS = [{"name": "read", "num_in": 10, "num_out": 10, "num_rejected": {}}]
STATISTICS = {
    "histogram": {"title": "Tokens in a row", "edges": [0, 10], "counts": [8], "limit": 9},
    "samples": [{"id": "abc", "reason": "too_long", "detail": "11 tokens"}],
    "example": [["hi", True]],
}


@dataclass
class Run:
    """A store, and the files of a run to be committed to it."""

    store: LocalStore
    folder: Path

    def commit(self, stage: str, **files: Any) -> dict[str, str]:
        """The uri and digest of an artifact; JSON and tables by the names of their files."""
        folder = self.folder / f"{stage}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        for name, content in files.items():
            if isinstance(content, pa.Table):
                pq.write_table(content, folder / f"{name}.parquet")
            else:
                (folder / f"{name}.json").write_text(json.dumps(content))
        uri, digest = commit(self.store, stage, folder)
        return {"uri": uri, "digest": digest}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    (tmp_path / "made").mkdir()
    return Run(LocalStore(tmp_path / "store"), tmp_path / "made")


def records(run: Run, log: dict[str, Any], formatted: dict[str, Any]) -> RunRecords:
    clean = {"steps": CHECKS, "samples": [], "shares": [], "review": []}
    counts = {"base_model": BASE, "num_train": 6, "num_validation": 2, "num_tokens": 64}
    return RunRecords(
        raw=RawSnapshot(uri="", digest="", num_quarantined=0, num_by_source={"human": 10}),
        dataset=CleanDataset(
            **run.commit("clean", stats=clean),
            num_out=10,
            num_train=6,
            num_validation=3,
            num_test=1,
            num_rejected={},
            num_redacted={},
        ),
        golden=GoldenSet(uri="", digest="", model="m", name="g", version=1, rows_digest="r"),
        formatted=FormattedDataset(
            **run.commit("format", **formatted),
            **counts,
            num_rejected={"too_long": 1},
            num_trained_tokens=30,
            max_length=9,
        ),
        adapter=Adapter(
            **run.commit("train", log=log),
            base_model=BASE,
            adapter_digest="a",
            training_run_id="t",
            num_steps=342,
            best_step=266,
            train_loss=0.2,
            validation_loss=0.3,
            tokens_per_second=100.0,
            seconds=20.0,
        ),
        reports={"base": report(run, 0.0), "candidate": report(run, 1.0)},
        decision=GateDecision(
            uri="",
            digest="",
            outcome="promoted",
            reasons=[],
            differences=[],
            baseline="base",
            baseline_adapter_digest=None,
            adapter_digest="a",
        ),
        model=None,
        lineage=Lineage(flow_run_id="f", data_digest="d", config_digest="c", code_digest="x"),
    )


def report(run: Run, score: float) -> EvalReport:
    row = {"id": "1", "prompt": "p", "reference": "yes", "answer": f"answer {score}"}
    scores = MetricScores("exact_match", "proportion", True, np.array([[score]]))
    answers = run.commit("generate", answers=pa.Table.from_pylist([row]))
    table = to_columns(["1"], {"exact_match": scores})
    return EvalReport(
        **run.commit("evaluate", scores=table),
        answers=Answers(**answers, adapter_digest=None, tokens_per_second=1.0),
        adapter_digest=None,
        metrics={},
        unmeasured={"judge": "not configured"},
    )


def test_story_is_read_back_from_the_artifacts(run: Run, log: Log) -> None:
    made = records(run, log(), {"stats": STATISTICS})
    story = gather(run.store, made, "exact_match", ReportConfig(), "name: n")
    assert story.data is not None
    assert story.training is not None
    check = story.data.checks[-1]
    assert (check.name, check.num_in, check.num_out) == ("format", 10, 9)
    assert check.histogram == STATISTICS["histogram"]
    assert check.samples == [{"reason": "too_long", "where": "abc", "detail": "11 tokens"}]
    assert story.data.example == [("hi", True)]
    assert (story.training.best_step, story.training.log["metric"]) == (266, "field_f1")
    assert story.training.history == log()["history"]
    assert [answer.verdict for answer in story.answers] == ["better"]


def test_artifacts_of_an_older_version_tell_what_they_hold(run: Run) -> None:
    history = [{"step": 266, "eval_loss": 0.3}]
    made = records(run, {"history": history, "num_steps": 342}, {"other": {}})
    story = gather(run.store, made, "exact_match", ReportConfig(), "")
    assert story.data is not None
    assert story.training is not None
    assert story.data.checks[-1].num_rejected == {"too_long": 1}
    assert story.data.example == []
    assert story.training.history == history
    assert story.training.figures["best validation loss"] == 0.3
