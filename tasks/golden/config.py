"""How a golden set is proposed."""

from __future__ import annotations

from pydantic import Field

from tasks.artifacts import Record
from tasks.example import Source


class ProposalConfig(Record):
    """How many rows, from whom, and how different."""

    num_rows: int = Field(
        300, ge=1, le=5000, description="Rows to propose; 200 to 500 tell models apart"
    )
    max_share: float = Field(
        0.2, gt=0, le=1, description="At most this share of all rows: they are lost to training"
    )
    sources: tuple[Source, ...] = Field(
        ("human", "annotation", "production", "hub"),
        description="Whose rows may decide; what a generator wrote tells little about users",
    )
    cosine: float = Field(
        0.9, gt=0, le=1, description="Similarity of meaning that no two proposed rows reach"
    )
    candidates_per_row: int = Field(
        8,
        ge=1,
        description="Rows embedded for each that is proposed, chosen by the hash of their id",
    )
