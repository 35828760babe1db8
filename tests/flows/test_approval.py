"""A person approves or rejects while the run is suspended, through Prefect's own form."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout, NotPausedError
from prefect.flow_runs import resume_flow_run

from tasks.evidence import RunSummary
from tests.flows.conftest import Tiny
from tests.flows.test_resilience import finished, submit, summary_of, wait_for
from tests.flows.test_retrain import champion, states

pytestmark = pytest.mark.integration


def suspended(config: Any) -> Any:
    """A run that waits for a person."""
    return wait_for(submit(config).id, lambda r: r.state_name == "Suspended", 240)


def answer(run_id: Any, **given: str) -> Any:
    resume_flow_run(run_id, run_input=given)
    return wait_for(run_id, finished, 240)


def mlflow_tags(summary: RunSummary) -> dict[str, str]:
    client = MlflowClient()
    experiment = client.get_experiment_by_name(summary.name)
    assert experiment is not None
    found = client.search_runs(
        [experiment.experiment_id], f"tags.flow_run_id = '{summary.flow_run_id}'"
    )
    tags: dict[str, str] = found[0].data.tags
    return tags


@pytest.mark.parametrize("verdict", ["approve", "reject"])
def test_a_person_has_the_last_word(tiny: Tiny, stack: Path, verdict: str) -> None:
    config = tiny(gate={"approval": {"mode": "always"}})
    run = suspended(config)
    pending = summary_of(run.id, stack)
    assert (pending.decision, pending.approval and pending.approval.name) == ("blocked", "nobody")
    with get_client(sync_client=True) as client:
        keyset = run.state.state_details.run_input_keyset
        shown = client.read_flow_run_input(run.id, keyset["description"])
    assert "is shown to be better than the base model" in str(shown)
    with pytest.raises(MlflowException):
        champion(config.name)

    ended = answer(run.id, verdict=verdict, name="Ada Lovelace", reason="The notes are right.")

    assert ended.state_name == "Completed"
    summary = summary_of(run.id, stack)
    assert summary.approval is not None
    assert (summary.approval.verdict, summary.approval.name) == (verdict, "Ada Lovelace")
    assert states(summary)["train"] == "cached", "the stages ran again"
    tags = mlflow_tags(summary)
    assert tags["approval_by"] == "Ada Lovelace"
    assert tags["approval_reason"] == "The notes are right."
    if verdict == "approve":
        assert summary.decision == "promoted"
        assert champion(config.name).tags["approval_by"] == "Ada Lovelace"
    else:
        assert summary.decision == "blocked"
        assert summary.reasons[-1] == "Rejected by Ada Lovelace: The notes are right."
        with pytest.raises(MlflowException):
            champion(config.name)


def test_no_answer_is_a_rejection(tiny: Tiny, stack: Path) -> None:
    config = tiny(gate={"approval": {"mode": "always", "timeout_hours": 0.002}})
    run = suspended(config)
    wait_for(run.id, lambda r: finished(r) or is_late(r), 240)
    # The server ends expired pauses by itself meanwhile. What Prefect's client says of an answer
    # that comes late depends on which was first, and may be nothing: the run tells.
    with contextlib.suppress(FlowPauseTimeout, NotPausedError):
        resume_flow_run(
            run.id, run_input={"verdict": "approve", "name": "Too late", "reason": "Sorry."}
        )
    ended = wait_for(run.id, finished, 240)
    assert ended.state_name == "Failed"
    # "paused" or "resuming", by which of the two was first.
    assert ended.state.message.endswith("and never resumed.")
    summary = summary_of(run.id, stack)
    assert summary.decision == "blocked"
    assert summary.reasons[-1].startswith("Rejected by nobody: no answer was given by 20")
    assert mlflow_tags(summary)["approval_by"] == "nobody"
    with pytest.raises(MlflowException):
        champion(config.name)


def is_late(run: Any) -> bool:
    from datetime import UTC, datetime

    timeout = run.state.state_details.pause_timeout
    return timeout is not None and datetime.now(UTC) > timeout


def test_a_blocked_candidate_is_not_asked_about(tiny: Tiny, stack: Path) -> None:
    rules = [{"metric": "primary", "kind": "superiority", "direction": "lower"}]
    config = tiny(gate={"approval": {"mode": "always"}, "rules": rules})
    run = wait_for(submit(config).id, finished, 240)
    assert run.state_name == "Completed"
    summary = summary_of(run.id, stack)
    assert (summary.decision, summary.approval) == ("blocked", None)
