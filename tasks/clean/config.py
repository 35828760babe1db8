"""What counts as clean: one section a check, in the order in which they run."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.artifacts import Record, fingerprint
from tasks.batches import BatchConfig
from tasks.embeddings import EmbeddingConfig
from tasks.example import Source
from tasks.grading import CRITERIA


class UnicodeConfig(Record):
    """Mends texts that were decoded wrongly on their way here (ftfy)."""

    enabled: bool = Field(True, description="Repair mojibake, ligatures and control characters")


class FormConfig(Record):
    """Form of a conversation; the form of a structured answer stands in task.answer_schema."""

    max_tokens: int = Field(
        8192, ge=16, description="Reject rows of more tokens of the base model's tokenizer"
    )


class DuplicateConfig(Record):
    """Near-duplicates by MinHash-LSH, each pair verified by its exact Jaccard similarity."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of two prompts' shingles that makes a pair"
    )
    shingle_words: int = Field(
        3, ge=1, le=10, description="Words in a shingle; 5 for documents, 3 for short messages"
    )
    num_permutations: int = Field(128, ge=16, le=1024, description="Length of a MinHash")
    source_rank: tuple[Source, ...] = Field(
        ("human", "annotation", "production", "hub", "synthetic"),
        description="Whose row of a cluster is kept, best first; then by quality, then the oldest",
    )


class ConflictConfig(Record):
    """Near-identical prompts with different answers: both go to the review queue."""

    similarity: float = Field(
        0.95, gt=0, le=1, description="Jaccard similarity above which two prompts ask the same"
    )
    agreement: float = Field(
        0.8, gt=0, le=1, description="Similarity of two free-text answers that says the same"
    )
    policy: Literal["drop", "majority", "source_rank", "keep"] = Field(
        "majority",
        description="drop: all of them go; majority: the answer of most rows stays, of a tie none; "
        "source_rank: the answer of the best source stays, of a tie none; keep: all stay",
    )


class PiiConfig(Record):
    """Personal data, found by Presidio and by patterns, in all turns and in meta."""

    enabled: bool = Field(True, description="Look for personal data in every turn but the system's")
    action: Literal["redact", "drop", "fail"] = Field(
        "redact",
        description="redact: replace it by its entity's name; drop: reject the row; fail: stop",
    )
    numbered: bool = Field(
        True,
        description="Number the placeholders, <PERSON_1>: one a person throughout a conversation",
    )
    entities: tuple[str, ...] = Field(
        ("PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "US_SSN"),
        description="Presidio's entities to look for",
    )
    score_threshold: float = Field(
        0.4, ge=0, le=1, description="Presidio's confidence to redact; it gives phone numbers 0.4"
    )
    allow_list: tuple[str, ...] = Field(
        (), description="Texts that are never personal data: product names, for instance"
    )


class GibberishConfig(Record):
    """Texts whose letters follow each other as in no other row of their script, and at random."""

    enabled: bool = Field(True, description="Reject gibberish")
    max_deviations: float = Field(
        8.0,
        gt=0,
        description="Reject above the median surprise by this many median absolute deviations, "
        "where the order of the letters tells nothing",
    )
    min_characters: int = Field(
        20, ge=1, description="Shorter texts are not judged: too little evidence"
    )


class PerplexityConfig(Record):
    """The base model's perplexity of the rows that the n-gram model finds borderline."""

    enabled: bool = Field(
        False, description="Ask the base model too; on a CPU about seven rows a second"
    )
    borderline_deviations: float = Field(
        4.0,
        gt=0,
        description="Rows between this many deviations and gibberish.max_deviations are borderline",
    )
    max_rows: int = Field(2000, ge=1, description="Score at most this many, the strangest first")
    max_bits_per_character: float = Field(
        4.0, gt=0, description="Reject above it; fluent text has one to three"
    )


class QualityConfig(Record):
    """What teaches a model bad habits."""

    gibberish: GibberishConfig = Field(GibberishConfig(), description="Gibberish")
    perplexity: PerplexityConfig = Field(PerplexityConfig(), description="Perplexity")
    reject_boilerplate: bool = Field(
        True, description='Reject refusals and boilerplate answers: "As an AI language model"'
    )
    languages: tuple[str, ...] = Field(
        (), description="ISO 639-1 codes that a prompt may be in; empty: any"
    )
    min_language_probability: float = Field(
        0.9, gt=0, le=1, description="Sureness needed to call a prompt's language wrong"
    )
    max_length_deviations: float = Field(
        8.0,
        gt=0,
        description="Reject prompts and answers longer or shorter than the median by more than "
        "this many robust standard deviations of the log-length",
    )
    max_repeated_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of an answer's words that repeated 4-grams may cover; 1 allows all",
    )

    @model_validator(mode="after")
    def _has_borderline(self) -> Self:
        if not self.perplexity.enabled:
            return self
        if not self.gibberish.enabled:
            raise ValueError("perplexity judges what gibberish finds borderline: enable gibberish")
        if self.perplexity.borderline_deviations >= self.gibberish.max_deviations:
            raise ValueError(
                "perplexity.borderline_deviations must be below gibberish.max_deviations "
                f"({self.gibberish.max_deviations:g}), came "
                f"{self.perplexity.borderline_deviations:g}"
            )
        return self


class LabelConfig(Record):
    """Answers that contradict what the other rows teach (cleanlab); sent to review."""

    enabled: bool = Field(True, description="Look for wrong labels")
    num_folds: int = Field(5, ge=2, le=20, description="Folds of the cross-validation")
    max_classes: int = Field(
        200, ge=2, description="A field of a structured answer with more values is no label"
    )
    drop_confidence: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Reject when another label is this sure; 1 sends to review alone",
    )
    score_free_text: bool = Field(
        False,
        description="Ask the base model for the loss of free-text answers; on a CPU about seven "
        "rows a second",
    )
    max_scored: int = Field(5000, ge=1, description="Free-text answers to score at most")


class JudgeFilterConfig(Record):
    """A language model grades each row by Message Batches; off unless asked for."""

    enabled: bool = Field(False, description="Grade rows with a judge and reject the bad ones")
    model: str = Field("claude-haiku-4-5", min_length=1, description="Model of the Messages API")
    min_score: int = Field(3, ge=1, le=5, description="Reject rows graded lower")
    criteria: str = Field(
        CRITERIA, min_length=1, description="What each grade from 1 to 5 stands for"
    )
    max_tokens: int = Field(256, ge=64, le=4096, description="Tokens of one grade")
    batches: BatchConfig | None = Field(
        None, description="Budget and prices of the model by batch; needed when enabled"
    )

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.enabled and self.batches is None:
            raise ValueError(
                "a judge needs `batches` with budget_usd, input_usd_per_million and "
                "output_usd_per_million"
            )
        return self


class DecontaminationConfig(Record):
    """What is too close to a row that decides, and must not be trained on.

    Held against the golden set, and against the test and holdout splits.
    """

    jaccard: float = Field(0.6, gt=0, le=1, description="Similarity of shingles that is too close")
    containment: float = Field(
        0.8, gt=0, le=1, description="Share of one text's shingles that the other must not hold"
    )
    min_shingles: int = Field(
        8,
        ge=1,
        description="Texts of fewer distinct shingles are never held, only equal or similar: a "
        "greeting stands in many rows",
    )
    embeddings: bool = Field(
        True, description="Compare meanings too, with a small sentence-embedding model"
    )
    embedding: EmbeddingConfig = Field(EmbeddingConfig(), description="That model")
    cosine: float = Field(0.95, gt=0, le=1, description="Similarity of meaning that is too close")

    def fingerprint(self) -> object:
        """Without the embedding model where it is not used: it may not even be there."""
        fields = set(type(self).model_fields) - ({"embedding"} if not self.embeddings else set())
        return {name: fingerprint(getattr(self, name)) for name in sorted(fields)}


class SplitConfig(Record):
    """Shares of groups, by hash: an example never moves from one week to the next."""

    train: float = Field(0.8, gt=0, lt=1, description="Share of groups that are trained on")
    validation: float = Field(0.1, ge=0, lt=1, description="Share that chooses the checkpoint")
    test: float = Field(0.1, ge=0, lt=1, description="Share that is kept out of both")
    production_holdout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the production rows' groups that is kept for the weekly evaluation "
        "on live traffic",
    )

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if abs((total := self.train + self.validation + self.test) - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, came {total:g}")
        return self


class MixConfig(Record):
    """Shares of the training split by source; what is over a ceiling is left out, by hash."""

    max_synthetic: float = Field(
        0.8,
        ge=0,
        le=1,
        description="At most this share of synthetic rows, so that people's "
        "rows keep their floor of 20-30 %",
    )
    min_human: float = Field(
        0.2, ge=0, le=1, description="Warn below this share of human rows when there are synthetic"
    )
    general: tuple[float, float] = Field(
        (0.05, 0.1), description="Wanted share of general-instruction rows, against forgetting"
    )
    production: tuple[float, float] = Field(
        (0.1, 0.2), description="Wanted share of production rows, against drift"
    )


class DiscardConfig(Record):
    """How much is normally thrown away; outside it the report says so loudly."""

    low: float = Field(0.1, ge=0, le=1, description="Fewer discarded: are the checks too weak?")
    high: float = Field(0.3, ge=0, le=1, description="More discarded: is the source broken?")
    on_high: Literal["warn", "fail"] = Field("warn", description="What to do above `high`")


class CleanConfig(Record):
    """The checks, in the order in which they run."""

    unicode: UnicodeConfig = Field(UnicodeConfig(), description="Unicode")
    form: FormConfig = Field(FormConfig(), description="Form")
    duplicates: DuplicateConfig = Field(DuplicateConfig(), description="Near-duplicates")
    conflicts: ConflictConfig = Field(ConflictConfig(), description="Contradictions")
    pii: PiiConfig = Field(PiiConfig(), description="Personal data")
    quality: QualityConfig = Field(QualityConfig(), description="Quality")
    labels: LabelConfig = Field(LabelConfig(), description="Wrong labels")
    judge: JudgeFilterConfig = Field(JudgeFilterConfig(), description="Graded by a model")
    decontamination: DecontaminationConfig = Field(DecontaminationConfig(), description="Leakage")
    split: SplitConfig = Field(SplitConfig(), description="Train, validation, test and holdout")
    mix: MixConfig = Field(MixConfig(), description="Shares by source")
    discard: DiscardConfig = Field(DiscardConfig(), description="How much is normally discarded")
    min_train: int = Field(
        100, ge=1, description="Refuse to go on with fewer training rows: a prompt does better"
    )
    allow: tuple[Literal["few_examples"], ...] = Field(
        (), description="Refusals to override by name: few_examples goes on below min_train"
    )
