"""What an evaluation found and what was decided on it: scores, comparisons, the run's summary."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from tasks.artifacts import Answers, Artifact, Record, Role

Outcome = Literal["promoted", "canary", "blocked", "inconclusive", "no_change"]
Baseline = Role | Literal["limit"]  # who or what a candidate is held against


class Score(Record):
    """A metric's value with its confidence interval (95 % unless configured) over ``n`` answers."""

    value: float
    ci_low: float
    ci_high: float
    n: int


class Calibration(Record):
    """How far a judge agrees with people, on answers that people rated from 1 to 5.

    ``agreement`` and ``within_one`` are shares of equal grades and of grades at most one apart;
    ``mean_difference`` and ``length_bias`` are the judge's grades less people's: their mean, and
    their rank correlation with the answer's length. Of ``num_pairs`` pairs of answers to one prompt
    that people rated apart, the judge preferred the better one in ``pairs_agreement``, and
    contradicted itself in ``num_contradicted`` when the order was turned, ``num_first`` of them for
    what stood first.
    """

    model: str
    judge_digest: str
    date: datetime
    num_rows: int
    num_failed: int
    spearman: float
    spearman_low: float
    spearman_high: float
    agreement: float
    within_one: float
    mean_difference: float
    length_bias: float
    num_pairs: int = 0
    pairs_agreement: float | None = None
    num_contradicted: int = 0
    num_first: int = 0

    def as_text(self) -> str:
        """The figures in a few sentences."""
        pairs = "No two answers to one prompt were rated a grade apart: bias by place is unknown."
        if self.num_pairs and self.pairs_agreement is not None:
            pairs = (
                f"Of {self.num_pairs} pairs it preferred the better answer in "
                f"{self.pairs_agreement:.0%}, and contradicted itself in {self.num_contradicted} "
                f"when their order was turned ({self.num_first} times for what stood first)."
            )
        return (
            f"{self.model} beside people on {self.num_rows} answers ({self.num_failed} failed), "
            f"{self.date:%Y-%m-%d}: Spearman {self.spearman:.2f} [{self.spearman_low:.2f}, "
            f"{self.spearman_high:.2f}], the same grade for {self.agreement:.0%}, one apart at "
            f"most for {self.within_one:.0%}, {self.mean_difference:+.2f} grades on average, rank "
            f"correlation of that with length {self.length_bias:+.2f}. {pairs}"
        )


class SliceScore(Record):
    """The primary metric on a part of the golden rows: the candidate beside what serves now.

    ``name`` is the config's, ``value`` what its expression gave for these rows; the difference is
    signed so that positive is better. A part of few rows is ``is_small``.
    """

    name: str
    value: str
    n: int
    is_small: bool
    candidate: Score
    baseline: Score
    difference: float
    ci_low: float
    ci_high: float


class EvalReport(Artifact):
    """The scores of one contestant; ``scores.parquet`` holds what each answer contributed."""

    answers: Answers
    adapter_digest: str | None
    metrics: dict[str, Score]
    unmeasured: dict[str, str] = Field(
        default_factory=dict, description="Metrics without a score, and why"
    )
    calibration: Calibration | None = Field(None, description="The judge's last, if it graded")
    judge_usd: float = Field(0.0, description="What the judge's grades cost in this evaluation")

    @property
    def is_lasting(self) -> bool:
        """Not where the judge failed: it may be back, and what it graded is not paid twice."""
        return not self.unmeasured.get("judge", "").startswith("failed")


class Comparison(Artifact):
    """Which of two contestants' answers the judge prefers: a table of scores for each role.

    ``num_contradicted`` of ``num_asked`` pairs were judged otherwise in the other order, and
    ``num_first`` of them for what stood first both times. ``unmeasured`` says why there are none.
    """

    roles: tuple[Role, Role]
    metrics: dict[Role, dict[str, Score]]
    num_asked: int = 0
    num_contradicted: int = 0
    num_first: int = 0
    spent_usd: float = 0.0
    unmeasured: str | None = None

    @property
    def is_lasting(self) -> bool:
        """Not where the judge failed."""
        return not (self.unmeasured or "").startswith("failed")


class MetricDifference(Record):
    """Candidate minus baseline on the same rows, signed so that positive is better.

    The baseline ``limit`` is a fixed value, which the config gives.
    ``rows`` are the part of the golden set that was answered.
    A superiority claim has the one-sided ``p_value`` of ``test``, and ``p_adjusted`` for all such
    claims together. A true difference below ``detectable`` would probably not be shown on ``n``
    answers; the one seen needs about ``n_needed`` of them. None where neither can be said.
    """

    metric: str
    rule: Literal["superiority", "non_inferiority"]
    baseline: Baseline
    candidate_value: float
    baseline_value: float
    difference: float
    ci_low: float
    ci_high: float
    confidence: float = 0.95
    n: int
    margin: float
    min_n: int = 0
    verdict: Literal["passed", "failed", "inconclusive"]
    p_value: float | None = None
    p_adjusted: float | None = None
    test: Literal["mcnemar", "permutation", "bootstrap"] | None = None
    detectable: float | None = None
    n_needed: int | None = None
    rows: Literal["open", "sealed"] = "open"


NOBODY = "nobody"


class Approval(Record):
    """A person's word on a decision."""

    verdict: Literal["approve", "reject"]
    name: str
    reason: str
    date: datetime

    @property
    def is_pending(self) -> bool:
        """Whether nobody has answered yet, which counts as a rejection."""
        return self.name == NOBODY


def approval_tags(approval: Approval | None) -> dict[str, str]:
    """Who said what, as tags of a run or of a version."""
    if approval is None:
        return {}
    return {
        "approval": approval.verdict,
        "approval_by": approval.name,
        "approval_reason": approval.reason,
        "approval_date": approval.date.isoformat(),
    }


class Rollback(Record):
    """A change of the champion by a person's word, or by what watches production.

    ``withdrawn``: the version that was champion and stays out from now on; None where one that had
    been withdrawn was let in again, and where the champion had changed already.
    """

    model: str
    champion: str
    withdrawn: str | None
    readmitted: bool = False
    by: str
    reason: str
    date: datetime

    @property
    def sentence(self) -> str:
        """What was done, by whom and why."""
        if self.readmitted:
            done = f"version {self.champion}, which had been withdrawn, is champion again"
        elif self.withdrawn:
            done = f"version {self.champion} is champion again, version {self.withdrawn} stays out"
        else:
            done = f"version {self.champion} was champion already"
        return f"{self.by}: {done}. {self.reason}"


class GateDecision(Artifact):
    """The outcome with its reasons; ``decision.json`` holds what the evidence alone says.

    ``approval`` is the answer of a person, where one was asked.
    """

    outcome: Outcome
    sentence: str = ""
    reasons: list[str]
    settling: list[str] = Field(default_factory=list)
    differences: list[MetricDifference]
    baseline: Role
    baseline_adapter_digest: str | None
    adapter_digest: str
    approval: Approval | None = None

    @property
    def promotes(self) -> bool:
        return self.outcome == "promoted"


class Foreseen(Record):
    """A call of a stage that a run would make. Seconds and dollars are None where none is known.

    ``cached``: its result is there, and the call takes no time. ``num_in``: rows to work on.
    ``pays``: a hosted model that it asks, at prices that are not known here.
    """

    stage: str
    subject: str | None = None
    cached: bool
    num_in: int | None = None
    seconds: float | None = None
    usd: float | None = None
    pays: str | None = None
    detail: str = ""


class RunSummary(Record):
    """The contract with everything outside: what ``summary.json`` holds after each retrain run."""

    flow_run_id: str
    flow_run_name: str = ""
    name: str
    status: Literal["completed", "failed", "crashed", "dry_run"]
    decision: Outcome | None
    sentence: str = ""
    reasons: list[str]
    settling: list[str] = Field(
        default_factory=list, description="What would settle what is undecided"
    )
    stages: list[dict[str, Any]]
    foreseen: list[Foreseen] = Field([], description="Of a dry run: what a run would do")
    metrics: dict[str, dict[str, Score]] = Field(default_factory=dict)
    differences: list[MetricDifference] = Field(default_factory=list)
    model: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(
        {}, description="The candidate's training: plan, settings, seeds, figures, notes, sweep"
    )
    lineage: dict[str, str | None] = Field(default_factory=dict)
    cost: dict[str, Any] = Field(default_factory=dict)
    judge: str = ""
    comparison: Comparison | None = None
    slices: list[SliceScore] = Field(default_factory=list)
    share_of_reference: Score | None = Field(
        None, description="The candidate's primary metric as a share of the reference model's"
    )
    calibration: Calibration | None = None
    approval: Approval | None = None
    seconds: float = 0.0
    overhead_seconds: float = 0.0
    cautions: dict[str, str] = Field(
        {}, description="What whoever decides should know, by a stable name"
    )
    report: str | None = None
    report_uri: str | None = None
