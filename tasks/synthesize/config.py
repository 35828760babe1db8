"""How examples are generated from human ones, and which of them are kept."""

from __future__ import annotations

from pydantic import Field

from tasks.artifacts import Record
from tasks.batches import BatchConfig
from tasks.embeddings import EmbeddingConfig
from tasks.grading import CRITERIA


class GenerationConfig(Record):
    """What is asked of the model, and with which seeds."""

    model: str = Field("claude-haiku-4-5", min_length=1, description="Model that writes")
    num_calls: int = Field(100, ge=1, le=100_000, description="Requests in all")
    seeds_per_call: int = Field(
        4, ge=1, le=10, description="Human rows that a request shows; few, so that calls differ"
    )
    examples_per_call: int = Field(5, ge=1, le=50, description="Examples asked for in a request")
    max_tokens: int = Field(4096, ge=64, le=64_000, description="Tokens of one answer")
    max_seeds: int = Field(
        20_000, ge=1, description="Draw seeds from at most this many rows, chosen by hash"
    )
    seed: int = Field(0, ge=0, description="Seed of the draw")


class FilterConfig(Record):
    """What is too close to something that is there already."""

    shingle_words: int = Field(3, ge=1, le=10, description="Words in a shingle")
    duplicate_jaccard: float = Field(
        0.7, gt=0, le=1, description="Similarity of two prompts' shingles that makes a duplicate"
    )
    leak_jaccard: float = Field(
        0.5, gt=0, le=1, description="The same against golden rows and those of held-out splits"
    )


class JudgeConfig(Record):
    """A model grades each candidate against the task."""

    enabled: bool = Field(True, description="Judge; without it every candidate passes")
    model: str = Field("claude-haiku-4-5", min_length=1, description="Model that grades")
    min_score: int = Field(4, ge=1, le=5, description="Reject candidates graded lower")
    criteria: str = Field(
        CRITERIA, min_length=1, description="What each grade from 1 to 5 stands for"
    )
    max_tokens: int = Field(256, ge=64, le=4096, description="Tokens of one grade")
    batches: BatchConfig = Field(description="Budget and prices of the model that grades")


class DiversityConfig(Record):
    """When the generator is said to repeat itself, against as many human rows."""

    min_distinct_ratio: float = Field(
        0.6, ge=0, description="Share of distinct word pairs, as a part of the seeds' share"
    )
    max_self_bleu_gain: float = Field(
        20.0, ge=0, description="Points of self-BLEU above that of the seeds"
    )
    min_spread_ratio: float = Field(
        0.7, ge=0, description="Mean distance of meanings, as a part of the seeds' distance"
    )
    max_rows: int = Field(500, ge=10, le=10_000, description="Rows that are compared at most")
    min_rows: int = Field(20, ge=2, description="Fewer rows are too few to say")
    embedding: EmbeddingConfig | None = Field(
        EmbeddingConfig(), description="Model of meanings; none: word statistics alone"
    )


class SynthesizeConfig(Record):
    """Examples from human seeds by Message Batches, within a budget."""

    generation: GenerationConfig = Field(GenerationConfig(), description="What is asked")
    batches: BatchConfig = Field(description="Budget and prices of the model that writes")
    filter: FilterConfig = Field(FilterConfig(), description="What is too close")
    judge: JudgeConfig = Field(description="What is good enough")
    diversity: DiversityConfig = Field(DiversityConfig(), description="What is too uniform")
