"""A promotion undone: who serves, who is told, and that no run brings it back by itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect.deployments import run_deployment

from deployments.rollback import main
from flows.retrain import retrain
from tasks.objects import open_store
from tests.flows.conftest import Tiny
from tests.flows.test_notify import told
from tests.flows.test_resilience import finished, wait_for
from tests.flows.test_retrain import champion

pytestmark = pytest.mark.integration

__all__ = ["told"]


def test_back_in_one_command_and_no_run_brings_it_back(
    tiny: Tiny,
    stack: Path,
    told: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weekly = tmp_path / "weekly.yaml"
    notify = {"notify": {"blocks": ["custom-webhook/team"]}}
    weekly.write_text(tiny(report=notify).to_yaml())
    monkeypatch.setenv("RETUNE_WEEKLY_CONFIG", str(weekly))
    first = retrain(tiny())
    as_good = {"rules": [{"metric": "exact_match", "kind": "non_inferiority", "margin": 0.5}]}
    config = tiny(train={"seed": 1}, gate=as_good)
    second = retrain(config)
    assert [first.decision, second.decision] == ["promoted", "promoted"], second.reasons
    name = first.name
    assert champion(name).version == "2"

    assert main([name, "it times out", "--by", "ada"]) == 0
    said = "ada: version 1 is champion again, version 2 stays out. it times out"
    assert said in capsys.readouterr().out
    assert champion(name).version == "1"
    subject, sentence, link = told[-1]["text"].splitlines()
    assert (subject, sentence) == (f"{name}: rolled back", said)
    assert link.endswith(f"/#/models/{name}/versions/1")
    version = httpx.get(link.partition("/#/")[0] + "/health", trust_env=False)
    assert version.is_success
    kept = [key for key in open_store().keys_under("runs/") if key.endswith("/rollback.json")]
    records = [json.loads(open_store().get_bytes(key)) for key in kept]
    assert [r["withdrawn"] for r in records if r["model"] == name] == ["2"]

    again = retrain(config)
    assert again.decision == "blocked"
    assert "version 2, which was withdrawn (ada, " in again.sentence
    assert champion(name).version == "1"
    run = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name(name).experiment_id],
        f"tags.flow_run_id = '{again.flow_run_id}'",
    )
    assert run[0].data.tags["decision"] == "blocked"

    assert main([name, "the network was at fault", "--to", "2"]) == 1
    assert "version 2 is itself withdrawn" in capsys.readouterr().err
    assert main([name, "the network was at fault", "--to", "2", "--readmit"]) == 0
    assert champion(name).version == "2"
    assert retrain(config).decision == "no_change"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["", "why"], "name: "),
        (["m", ""], "reason: "),
        (["m", "why", "--to", "newest"], "to: "),
        (["m", "why", "--readmit"], "readmit needs `to`"),
    ],
)
def test_what_cannot_be_done_is_said_before(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def test_without_a_stack_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PREFECT", "MLFLOW", "S3"):
        monkeypatch.setenv(f"RETUNE_{name}_PORT", "9")
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path))
    monkeypatch.setattr("deployments.environment.apply", lambda: None)
    assert main(["m", "why"]) == 1
    assert "does not answer: run `make up`" in capsys.readouterr().err


def test_from_the_form_beside_a_run_in_the_other_queue(tiny: Tiny, stack: Path) -> None:
    """The queue of the retrain runs takes one at a time; this one does not wait for it."""
    summary = retrain(tiny())
    assert summary.decision == "promoted"
    run = run_deployment(
        "rollback/rollback",
        parameters={"config": {"name": summary.name, "by": "ada", "reason": "no"}},
        timeout=0,
        as_subflow=False,
    )
    ended = wait_for(run.id, finished, 120)
    assert ended.state is not None
    assert ended.state.name == "Failed"
    assert "nothing was champion before version 1" in str(ended.state.message)
    assert ended.work_queue_name == "urgent"
    url = f"{os.environ['PREFECT_API_URL']}/work_pools/cpu/queues/urgent"
    queue = httpx.get(url, trust_env=False).raise_for_status().json()
    assert queue["concurrency_limit"] is None
