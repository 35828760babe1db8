"""What a candidate must show before it replaces the model in production: rules, one claim each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tasks.artifacts import Record

PRIMARY = "primary"
OTHERS = "others"
JUDGE = "judge"
PREFERENCE = "judge_preference"


class RuleConfig(Record):
    """One claim about one metric, of the candidate against one other contestant."""

    metric: str = Field(
        min_length=1,
        description="Name of the metric; 'primary': the one of gate.primary; 'others': every other "
        "metric of the task that no rule names, but for times and lengths.",
    )
    against: Literal["production", "base", "base_few_shot", "champion"] = Field(
        "production",
        description="Who is compared with; 'production': the champion, or the base while there is "
        "none.",
    )
    limit: float | None = Field(
        None,
        description="A fixed value to compare with in place of a contestant, such as the "
        "milliseconds that an answer may take; for non_inferiority alone.",
    )
    kind: Literal["superiority", "non_inferiority"] = Field(
        description="superiority: shown to be better by more than the margin; non_inferiority: "
        "shown not to be worse by more than the margin."
    )
    margin: float = Field(0.0, ge=0, description="In the metric's own unit.")
    direction: Literal["higher", "lower"] | None = Field(
        None, description="Which way is better; None: as the metric itself has it."
    )
    optional: bool = Field(
        False,
        description="Where the metric could not be measured, as without a judge: False, the rule "
        "is inconclusive; True, it is passed over, which the decision says.",
    )
    min_n: int | None = Field(
        None, ge=2, description="Answers below which the rule cannot pass; None: gate.min_n."
    )

    @model_validator(mode="after")
    def _limit_is_not_beaten(self) -> RuleConfig:
        if self.limit is not None and self.kind != "non_inferiority":
            raise ValueError(
                f"the rule about {self.metric} has a limit, which is to be kept: set kind to "
                "non_inferiority, or compare with a contestant"
            )
        return self


# The reference architecture asks for improvement of the metric and of the judge's grade; the judge
# may not get worse here, since grades of 1 to 5 are coarse. A fine-tune that does not beat a prompt
# of the base model is not worth serving.
DEFAULT_RULES = (
    RuleConfig(metric=PRIMARY, against="production", kind="superiority"),
    RuleConfig(metric=PRIMARY, against="base_few_shot", kind="superiority"),
    RuleConfig(metric=OTHERS, against="production", kind="non_inferiority", margin=0.05),
    RuleConfig(
        metric=JUDGE, against="production", kind="non_inferiority", margin=0.1, optional=True
    ),
    RuleConfig(
        metric="general_loss", against="base", kind="non_inferiority", margin=0.1, optional=True
    ),
)


class ApprovalConfig(Record):
    """Whether a person has the last word."""

    mode: Literal["always", "on_inconclusive", "never"] = Field(
        "never",
        description="When a person is asked: before every promotion and about what is "
        "inconclusive, about that alone, or never. What is blocked cannot be approved.",
    )
    timeout_hours: float = Field(
        72.0, gt=0, le=24 * 60, description="Hours after which no answer is a rejection."
    )


class GateConfig(Record):
    """The rules, and how sure to be of each."""

    primary: str = Field(
        "exact_match", min_length=1, description="Metric on which the candidate must be better."
    )
    rules: tuple[RuleConfig, ...] = Field(
        DEFAULT_RULES, min_length=1, description="What must be shown; every rule must pass."
    )
    approval: ApprovalConfig = Field(
        ApprovalConfig(), description="When a person is asked before anything is promoted."
    )
    min_judge_spearman: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Rank correlation with people that the judge's last calibration must show, "
        "else its grades are taken as not measured; the reference architecture asks for 0.85. "
        "None: trusted without.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Level of the intervals of superiority rules."
    )
    regression_risk: float = Field(
        0.01,
        gt=0,
        lt=0.5,
        description="Chance to pass a metric that is truly worse by its margin: non-inferiority "
        "rules have intervals of the level 1 - twice this.",
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples.")
    permutations: int = Field(
        9_999, ge=999, le=1_000_000, description="Exchanges of a test that cannot list them all."
    )
    sealed_confidence: float = Field(
        0.6,
        gt=0.5,
        lt=1,
        description="Level of the intervals on the golden set's sealed rows, where a candidate "
        "about to be promoted must show its gains once more; they are few. At 0.6 one that is no "
        "better is confirmed one time in five.",
    )
    power: float = Field(
        0.8, gt=0.5, lt=1, description="Chance to be shown that a detectable gain must have."
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap and of the permutations.")
    min_n: int = Field(30, ge=2, description="Answers below which no rule passes.")

    @property
    def on_sealed(self) -> GateConfig | None:
        """What the sealed rows must confirm: every gain; None where no rule asks for one."""
        gains = tuple(rule for rule in self.rules if rule.kind == "superiority")
        if not gains:
            return None
        return self.model_copy(update={"rules": gains, "confidence": self.sealed_confidence})

    @property
    def contestants(self) -> frozenset[str]:
        """Who the rules compare with."""
        return frozenset(rule.against for rule in self.rules if rule.limit is None)
