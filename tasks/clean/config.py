"""What counts as clean."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from tasks.artifacts import Record


class DuplicateConfig(Record):
    """Near-duplicates by MinHash-LSH, each pair verified by its exact Jaccard similarity."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of two prompts' shingles that makes a pair"
    )
    shingle_words: int = Field(
        3, ge=1, le=10, description="Words in a shingle; 5 for documents, 3 for short messages"
    )
    num_permutations: int = Field(128, ge=16, le=1024, description="Length of a MinHash")


class PiiConfig(Record):
    """Personal data, found by Presidio and replaced by its entity's name in angle brackets."""

    enabled: bool = Field(True, description="Redact personal data in every turn but the system's")
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
    """Texts whose letters follow each other as in no other row."""

    enabled: bool = Field(True, description="Reject gibberish")
    max_deviations: float = Field(
        8.0,
        gt=0,
        description="Reject above the median surprise by this many median absolute deviations",
    )
    min_characters: int = Field(
        20, ge=1, description="Shorter texts are not judged: too little evidence"
    )


class GoldenOverlapConfig(Record):
    """What is too close to a golden row to be trained on."""

    jaccard: float = Field(0.5, gt=0, le=1, description="Similarity of shingles that is too close")
    containment: float = Field(
        0.8, gt=0, le=1, description="Share of a golden row's shingles that is too much to hold"
    )


class SplitConfig(Record):
    """Shares of groups, by hash: an example never moves from one week to the next."""

    train: float = Field(0.8, gt=0, lt=1, description="Share of groups that are trained on")
    validation: float = Field(0.1, ge=0, lt=1, description="Share that chooses the checkpoint")
    test: float = Field(0.1, ge=0, lt=1, description="Share that is kept out of both")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        if abs((total := self.train + self.validation + self.test) - 1) > 1e-9:
            raise ValueError(f"train + validation + test must be 1, came {total:g}")
        return self


class CleanConfig(Record):
    """The checks, in the order in which they run."""

    duplicates: DuplicateConfig = Field(DuplicateConfig(), description="Near-duplicates")
    golden_overlap: GoldenOverlapConfig = Field(GoldenOverlapConfig(), description="Leakage")
    gibberish: GibberishConfig = Field(GibberishConfig(), description="Gibberish")
    pii: PiiConfig = Field(PiiConfig(), description="Personal data")
    split: SplitConfig = Field(SplitConfig(), description="Train, validation and test")
