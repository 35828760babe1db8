"""A person approves or rejects, where the config asks for one: the run suspends until then.

A suspended run holds no worker. Before it suspends, its summary and page are published as they
stand if nobody ever answers; an answer in the form of the Prefect UI (Resume) goes on from there,
with every stage cached.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from flows.config import RetrainConfig
from flows.record import run_info
from tasks.evidence import Approval
from tasks.gate.approval import answered, form, is_asked, unanswered
from tasks.report.summary import RunRecords
from tasks.report.task import report


class Answer(RunInput):
    """What the form asks for."""

    verdict: Literal["approve", "reject"] = Field(description="Promote the candidate, or not.")
    name: str = Field(min_length=1, max_length=200, description="Who decides.")
    reason: str = Field(min_length=1, max_length=2000, description="Why; kept with the model.")


def approved(records: RunRecords, config: RetrainConfig) -> RunRecords:
    """The records with a person's answer in their decision, or as they are if none is asked for."""
    decision, settings = records.decision, config.gate.approval
    if not is_asked(decision, settings):
        return records
    allowed = timedelta(hours=settings.timeout_hours)
    until = datetime.now(UTC) + allowed
    pending = records.model_copy(update={"decision": unanswered(decision, until)})
    report(run_info(config), pending, config.gate.primary, config.report, config.to_yaml())
    answer = suspend_flow_run(
        wait_for_input=Answer.with_initial_data(description=form(decision, until)),
        timeout=round(allowed.total_seconds()),
        # Another decision, as after a change of the champion meanwhile, is asked about anew.
        key=f"approval-{decision.digest[:16]}",
    )
    approval = Approval(
        verdict=answer.verdict, name=answer.name, reason=answer.reason, date=datetime.now(UTC)
    )
    return records.model_copy(update={"decision": answered(decision, approval)})
