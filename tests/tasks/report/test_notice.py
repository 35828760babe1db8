"""What people are told of a run."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from tasks.evidence import NOBODY, Approval
from tasks.report.config import NotifyConfig
from tasks.report.notice import notice_of
from tests.tasks.report.conftest import Summarise

LINK = "http://127.0.0.1:5000/#/run"


@pytest.mark.parametrize("decision", ["promoted", "blocked", "inconclusive", "no_change"])
def test_a_notice_is_one_sentence_and_one_link(summarise: Summarise, decision: str) -> None:
    summary = summarise(decision, sentence="The candidate is better.")
    notice = notice_of(summary, LINK)
    assert notice.occasion == decision
    assert notice.subject.startswith("support-tickets: ")
    assert notice.body == f"The candidate is better.\n{LINK}"


def test_a_candidate_on_trial_is_not_called_promoted(summarise: Summarise) -> None:
    notice = notice_of(summarise("canary"), LINK)
    assert notice.occasion == "promoted"
    assert notice.subject == "support-tickets: on trial on live traffic"


def test_a_run_that_failed_says_why(summarise: Summarise) -> None:
    notice = notice_of(summarise("failed", reasons=["train: out of memory"]), LINK)
    assert (notice.occasion, notice.subject) == ("failed", "support-tickets: failed")
    assert notice.body.startswith("train: out of memory")


def test_a_run_that_waits_for_a_person_says_so(summarise: Summarise) -> None:
    now = datetime.now(UTC)
    nobody = Approval(verdict="reject", name=NOBODY, reason="no answer", date=now)
    assert notice_of(summarise("blocked", approval=nobody), LINK).occasion == "awaiting_approval"
    ada = nobody.model_copy(update={"name": "Ada"})
    assert notice_of(summarise("blocked", approval=ada), LINK).occasion == "blocked"


def test_a_block_is_named_by_type_and_name() -> None:
    assert NotifyConfig(blocks=("slack-webhook/team",)).blocks == ("slack-webhook/team",)
    with pytest.raises(ValidationError):
        NotifyConfig(blocks=("https://hooks.slack.com/services/T/B/secret",))
