"""A decision made again from what is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tasks.artifacts import Answers, Role
from tasks.evidence import Calibration, Comparison, EvalReport, RunSummary
from tasks.gate.config import GateConfig
from tasks.gate.record import DECISION, decide_reports, write
from tasks.gate.replay import locate, main, replay
from tasks.objects import Store, open_store
from tasks.scores import MetricScores, to_columns
from tasks.storage import commit

N = 120
IDS = [f"row-{i}" for i in range(N)]
UNCOMPARED = Comparison(
    uri="c", digest="c", roles=("candidate", "base"), metrics={}, unmeasured="switched off"
)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    return open_store()


def report(
    store: Store,
    folder: Path,
    seed: int,
    chance: float,
    digest: str | None,
    grade: float | None = None,
) -> EvalReport:
    """Stored scores of one contestant: right by chance, with a metric over whole answers beside."""
    rng = np.random.default_rng(seed)
    scores = {
        "exact_match": MetricScores(
            "exact_match", "proportion", True, (rng.random((N, 1)) < chance).astype(float)
        ),
        "field_f1": MetricScores("field_f1", "f1", True, rng.integers(0, 5, (N, 3)).astype(float)),
    }
    if grade is not None:
        scores["judge"] = MetricScores("judge", "mean", True, np.full((N, 1), grade))
    folder.mkdir()
    pq.write_table(to_columns(IDS, scores), folder / "scores.parquet")
    uri, artifact = commit(store, "evaluate", folder)
    answers = Answers(uri="a", digest="a", adapter_digest=digest, tokens_per_second=1.0)
    return EvalReport(
        uri=uri,
        digest=artifact,
        num_in=N,
        num_out=N,
        answers=answers,
        adapter_digest=digest,
        metrics={},
        unmeasured=dict.fromkeys({"judge", "general_loss"} - scores.keys(), "switched off"),
    )


@pytest.fixture
def decided(store: Store, tmp_path: Path) -> tuple[str, str]:
    """A decision in storage: its URI and its digest."""
    reports: dict[Role, EvalReport] = {
        "base": report(store, tmp_path / "base", 1, 0.2, None),
        "base_few_shot": report(store, tmp_path / "shots", 2, 0.4, None),
        "candidate": report(store, tmp_path / "candidate", 3, 0.7, "c" * 64),
    }
    folder = tmp_path / "gate"
    folder.mkdir()
    decided = decide_reports(store, reports, UNCOMPARED, GateConfig())
    write(folder, reports, UNCOMPARED, GateConfig(), decided)
    return commit(store, "gate", folder)


def calibration(spearman: float) -> Calibration:
    return Calibration(
        model="m",
        judge_digest="d",
        date=datetime(2026, 1, 1, tzinfo=UTC),
        num_rows=100,
        num_failed=0,
        spearman=spearman,
        spearman_low=0,
        spearman_high=1,
        agreement=1,
        within_one=1,
        mean_difference=0,
        length_bias=0,
    )


@pytest.mark.parametrize(
    ("known", "least", "told"),
    [
        (None, None, None),
        (calibration(0.84), None, None),
        (calibration(0.85), 0.85, None),
        (calibration(0.84), 0.85, "a Spearman correlation of 0.84 on 100 answers"),
        (None, 0.85, "the judge was not calibrated"),
    ],
)
def test_a_judge_that_disagrees_with_people_is_not_trusted(
    store: Store, tmp_path: Path, known: Calibration | None, least: float | None, told: str | None
) -> None:
    """Its grades fell, which blocks, unless they are not trusted."""
    reports: dict[Role, EvalReport] = {}
    for role, chance, grade, digest in (("base", 0.2, 4.0, None), ("candidate", 0.7, 2.0, "c")):
        made = report(store, tmp_path / role, len(role), chance, digest, grade=grade)
        reports[role] = made.model_copy(update={"calibration": known})  # type: ignore[index]
    rules = [
        {"metric": "primary", "kind": "superiority"},
        {"metric": "judge", "kind": "non_inferiority", "margin": 0.1, "optional": True},
    ]
    config = GateConfig.model_validate({"rules": rules, "min_judge_spearman": least})
    verdict, _ = decide_reports(store, reports, UNCOMPARED, config)

    assert verdict.outcome == ("blocked" if told is None else "promoted")
    assert (told is None) or (told in verdict.reasons[1])


def summary_of(uri: str | None, folder: Path, sealed: str | None = None) -> Path:
    stages = [{"name": "gate", "uri": uri}] if uri else [{"name": "train", "uri": "t"}]
    stages += [{"name": "confirm", "uri": sealed}] if sealed else []
    summary = RunSummary(
        flow_run_id="1",
        name="m",
        status="completed" if uri else "failed",
        decision=None,
        reasons=[],
        stages=stages,
    )
    path = folder / "summary.json"
    path.write_text(summary.model_dump_json())
    return path


def test_the_same_scores_give_the_same_decision_byte_for_byte(
    store: Store, decided: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, replayed = replay(store, *decided)
    assert stored == replayed
    assert {d["baseline"] for d in json.loads(stored)["differences"]} == {"base", "base_few_shot"}
    path = summary_of(decided[0], tmp_path)
    assert locate(path) == [decided]
    assert main([str(path)]) == 0
    told = capsys.readouterr().out
    assert "byte for byte" in told
    assert "exact_match improved" in told


def test_what_the_sealed_rows_said_is_replayed_beside_it(
    store: Store, decided: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = summary_of(decided[0], tmp_path, sealed=decided[0])
    assert main([str(path)]) == 0
    told = capsys.readouterr().out
    assert "On the open rows: " in told
    assert "On the sealed rows: " in told
    assert told.count("byte for byte") == 2


def test_a_decision_that_its_scores_do_not_give_is_found_out(
    store: Store, decided: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "gate"
    decision = json.loads((folder / DECISION).read_text())
    decision["outcome"] = "promoted" if decision["outcome"] != "promoted" else "blocked"
    (folder / DECISION).write_text(json.dumps(decision, indent=1))
    uri, _ = commit(store, "gate", folder)
    assert main([str(summary_of(uri, tmp_path))]) == 1
    assert "NOT the decision that is stored" in capsys.readouterr().err


def test_what_cannot_be_replayed_says_why(
    store: Store, decided: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "absent.json")]) == 1
    assert "found no file" in capsys.readouterr().err
    (tmp_path / "other.json").write_text("{}")
    assert main([str(tmp_path / "other.json")]) == 1
    assert "expected a run's summary.json" in capsys.readouterr().err
    assert main([str(summary_of(None, tmp_path))]) == 1
    assert "holds no decision" in capsys.readouterr().err
    assert main([]) == 2
    assert main([str(summary_of(decided[0] + "0", tmp_path))]) == 1
    assert "gate/" in capsys.readouterr().err
