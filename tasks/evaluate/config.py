"""How contestants are evaluated: decoding, metrics, judge and statistics."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tasks.artifacts import Record, ReferenceModel
from tasks.embeddings import EmbeddingConfig

METRIC_NAMES = (
    *("exact_match", "json_validity", "schema_compliance"),
    *("field_f1", "field_precision", "field_recall"),
    *("rouge_1", "rouge_2", "rouge_l", "bleu", "chrf", "semantic_similarity"),
    *("accuracy", "macro_f1"),
)


def _known(name: str) -> str:
    if name not in METRIC_NAMES and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        known = ", ".join(repr(metric) for metric in METRIC_NAMES)
        raise ValueError(f"expected one of {known}, or package.module:Class for one of your own")
    return name


MetricName = Annotated[str, AfterValidator(_known)]

CRITERIA = """\
5: correct and complete; says what the reference says, in the form that was asked for.
4: correct in everything that matters; a detail or the form differs.
3: partly correct; something that matters is missing or wrong.
2: mostly wrong, although it addresses the request.
1: wrong, empty, unreadable or beside the point."""


class EngineConfig(Record):
    """transformers in the run itself, or a vLLM server as in production."""

    name: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="transformers: in the run's own process; vllm: a running vLLM server with "
        "--enable-lora, which loads each adapter for its evaluation.",
    )
    base_url: str = Field(
        "http://127.0.0.1:8100",
        pattern=r"^https?://",
        description="Address of the vLLM server; it must be able to read this machine's folders.",
    )
    concurrency: int = Field(
        16, ge=1, le=1024, description="Prompts that the vLLM server has at once."
    )

    def fingerprint(self) -> object:
        """Where a server stands, and how much it is asked at once, changes no answer."""
        return self.name


class DecodingConfig(Record):
    """How answers are generated: always greedily, so that the same model answers the same."""

    max_new_tokens: int = Field(
        96, ge=1, le=8192, description="Tokens after which an answer is cut off."
    )
    batch_size: int = Field(16, ge=1, le=1024, description="Prompts generated for at once.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of the weights; auto: bfloat16 where the processor computes in it, "
        "else float32.",
    )
    latency_samples: int = Field(
        12, ge=0, le=10_000, description="Answers timed one by one for the latency; 0: none."
    )
    engine: EngineConfig = Field(EngineConfig(), description="What runs the weights.")
    repeats: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Answers of a model behind an API that are asked for twice, since such a model "
        "need not say the same again: the share that differs is told. 0: none.",
    )


class FewShotConfig(Record):
    """The base model with solved examples in its prompt: what a fine-tune has to beat."""

    num_examples: int = Field(
        4,
        ge=0,
        le=64,
        description="Training rows put before each question, the most alike; 0: no such "
        "contestant.",
    )
    max_pool: int = Field(
        20_000, ge=1, description="Training rows to choose from at most, the same every week."
    )
    embedding: EmbeddingConfig = Field(
        EmbeddingConfig(), description="The model that says which prompts are alike."
    )


class GeneralConfig(Record):
    """General instructions, plain text and questions: has the fine-tune forgotten anything?"""

    enabled: bool = Field(True, description="Measure what a model can do beside its task.")
    max_held_out: int = Field(
        200,
        ge=0,
        description="General instructions of the data's test split at most, beside those that "
        "ship.",
    )


class JudgeConfig(Record):
    """A language model that grades each answer from 1 to 5 against the reference."""

    enabled: bool = Field(
        True, description="Judge where the environment holds an Anthropic API key or base URL."
    )
    model: str = Field(
        "claude-haiku-4-5", min_length=1, description="Model of the Anthropic API that judges."
    )
    temperature: float | None = Field(
        0.0, ge=0, le=1, description="Temperature; None for a model that does not accept one."
    )
    max_tokens: int = Field(256, ge=64, le=4096, description="Tokens of one judgement.")
    concurrency: int = Field(4, ge=1, le=64, description="Judgements asked for at once.")
    max_retries: int = Field(
        4, ge=0, le=20, description="Retries of a judgement after throttling or a server error."
    )
    budget_usd: float = Field(
        5.0,
        gt=0,
        description="Most to be spent on the grades of one contestant, and on one comparison; what "
        "it does not reach is not judged, and counts as failed.",
    )
    # Claude Haiku 4.5's (docs.anthropic.com, pricing); by Message Batches half as much.
    input_usd_per_million: float = Field(1.0, ge=0, description="Price of a million input tokens.")
    output_usd_per_million: float = Field(
        5.0, ge=0, description="Price of a million output tokens."
    )
    batch_from: int | None = Field(
        1000,
        ge=1,
        description="Judgements from which Message Batches are used, at half the price; None: "
        "never, as for a server that knows none.",
    )
    batch_poll_seconds: float = Field(
        30.0, gt=0, le=3600, description="Time between two looks at a batch."
    )
    pairwise: bool = Field(
        True,
        description="Let the judge also say which of two answers is better, the candidate's or "
        "that of what serves now, asked in both orders.",
    )
    max_failed_share: float = Field(
        0.02, ge=0, le=1, description="Share of failed judgements above which the judge has failed."
    )
    criteria: str = Field(
        CRITERIA, min_length=1, description="What each grade from 1 to 5 stands for."
    )

    def state(self, environ: Mapping[str, str]) -> str:
        """``run`` when the judge is to run in this environment, else why not."""
        if not self.enabled:
            return "switched off in evaluate.judge.enabled"
        if not (environ.get("ANTHROPIC_API_KEY") or environ.get("ANTHROPIC_BASE_URL")):
            return "neither ANTHROPIC_API_KEY nor ANTHROPIC_BASE_URL is set"
        return "run"


class EvaluateConfig(Record):
    """The evaluation of every contestant on the golden set."""

    decoding: DecodingConfig = Field(DecodingConfig(), description="How answers are generated.")
    few_shot: FewShotConfig = Field(
        FewShotConfig(), description="The base model with examples in its prompt."
    )
    reference: ReferenceModel | None = Field(
        None, description="A model behind an API to compare with; None: none."
    )
    general: GeneralConfig = Field(
        GeneralConfig(), description="What a model can do beside its task."
    )
    judge: JudgeConfig = Field(JudgeConfig(), description="The language model that grades.")
    metrics: tuple[MetricName, ...] | None = Field(
        None,
        description="Metrics to compute; None: those of the kind of task. One of your own by its "
        "path, package.module:Class, a subclass of tasks.metrics.TextMetric.",
    )
    embedding: EmbeddingConfig = Field(
        EmbeddingConfig(), description="The model behind semantic_similarity."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    resamples: int = Field(2000, ge=100, le=100_000, description="Bootstrap resamples.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
