"""A dry run tells what a run would do, and does none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.retrain import retrain
from tasks.errors import ConfigError
from tasks.evidence import RunSummary
from tests.flows.conftest import Tiny
from tests.flows.test_retrain import champion, states

pytestmark = pytest.mark.integration


def told(summary: RunSummary) -> dict[tuple[str, str | None], bool]:
    return {(call.stage, call.subject): call.cached for call in summary.foreseen}


def test_before_the_first_run_all_that_costs_is_to_be_done(tiny: Tiny, stack: Path) -> None:
    config = tiny()
    summary = retrain(config, dry_run=True)
    assert (summary.status, summary.decision) == ("dry_run", None)
    found = told(summary)
    assert found[("train", None)] is False
    assert found[("generate", "base")] is found[("generate", "candidate")] is False
    assert ("compare", None) not in found, "the judge is off"
    (training,) = (call for call in summary.foreseen if call.stage == "train")
    assert training.seconds is not None
    assert "8 steps" in training.detail or "steps" in training.detail
    assert {"train", "generate", "evaluate", "gate", "promote"}.isdisjoint(states(summary))
    with pytest.raises(MlflowException):
        champion(config.name)
    assert MlflowClient().get_experiment_by_name(config.name) is None, "a dry run left a run behind"
    kept = stack / "runs" / summary.flow_run_id / "summary.json"
    assert RunSummary.model_validate_json(kept.read_text()) == summary
    latest = stack / "runs" / "latest"
    assert not latest.exists() or latest.resolve().name != summary.flow_run_id


def test_it_tells_what_the_run_then_does(tiny: Tiny, stack: Path) -> None:
    config = tiny()
    retrain(config, dry_run=True)
    done = retrain(config)
    assert {states(done)[s] for s in ("ingest", "clean", "format")} == {"cached"}, "done twice"

    unchanged = retrain(config, dry_run=True)
    found = told(unchanged)
    assert found.pop(("generate", "champion")) is True, "the champion is the candidate of before"
    assert all(found.values()), found
    assert unchanged.sentence.startswith("Everything is kept from earlier runs")

    longer = tiny(train={"epochs": 9})
    foreseen = retrain(longer, dry_run=True)
    found = told(foreseen)
    assert not found[("train", None)]
    assert found[("generate", "base")]
    assert not found[("generate", "candidate")]
    (candidate,) = (
        c for c in foreseen.foreseen if (c.stage, c.subject) == ("generate", "candidate")
    )
    assert candidate.seconds is not None, "the last run took its time"
    after = retrain(longer)
    parts: dict[str, list[dict[str, Any]]] = {
        s["name"]: s.get("parts") or [s] for s in after.stages
    }
    for stage in ("train", "generate", "measure_general"):
        for part in parts.get(stage, ()):
            expected = found[(stage, part["subject"] if stage != "train" else None)]
            assert (part["state"] == "cached") is expected, (stage, part["subject"])


def test_what_the_budget_forbids_is_refused_as_the_run_would(tiny: Tiny) -> None:
    config = tiny(train={"budget": {"max_hours": 1e-9, "tokens_per_second": 1.0}})
    with pytest.raises(ConfigError, match=r"train\.budget\.max_hours"):
        retrain(config, dry_run=True)


def test_whom_a_run_would_pay_is_told(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")  # a dry run asks nobody
    hosted = {"api": "openai", "model": "big-1", "base_url": "http://127.0.0.1:9"}
    judge = {"enabled": True, "budget_usd": 2.5}
    summary = retrain(tiny(evaluate={"reference": hosted, "judge": judge}), dry_run=True)
    paid = {(c.stage, c.subject): (c.usd, c.pays) for c in summary.foreseen if c.usd or c.pays}
    assert paid[("generate", "reference")] == (None, "big-1")
    judged = {call for call, (usd, _) in paid.items() if usd == 2.5}
    roles = {c.subject for c in summary.foreseen if c.stage == "generate"}
    assert judged == {("compare", None)} | {("evaluate", role) for role in roles}
    assert "beside what big-1 takes" in summary.sentence


def test_each_training_of_a_sweep_is_told_apart(tiny: Tiny) -> None:
    one = [{"learning_rate": 0.004}]
    retrain(tiny(train={"sweep": one}))
    summary = retrain(tiny(train={"sweep": [*one, {"learning_rate": 0.006}]}), dry_run=True)
    assert told(summary)[("train", "1")] is True
    assert told(summary)[("train", "2")] is False
