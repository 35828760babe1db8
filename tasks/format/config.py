"""How conversations become token ids, and how many of them may fail to."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.artifacts import Record

Reason = Literal[
    "too_long",
    "special_token",
    "nothing_to_train",
    "end_not_trained",
    "doubled_bos",
    "prompt_differs",
    "dropped_turn",
]


def _share(default: float, description: str) -> float:
    """A field for the share of rows rejected for one reason above which the stage fails."""
    return Field(default, ge=0, le=1, description=description)


class FormatLimits(Record):
    """The share of rows that may be rejected for each reason; 0 fails at the first.

    Rows can be too long or hold a stray token. All the rest is the template's fault, so that what
    one row shows is true of others.
    """

    too_long: float = _share(0.05, "Over max_length")
    special_token: float = _share(0.05, "A special token written out in a turn's text")
    nothing_to_train: float = _share(0.0, "No answer to learn from")
    end_not_trained: float = _share(0.0, "An answer without the token that ends it")
    doubled_bos: float = _share(0.0, "Two tokens that begin the text")
    prompt_differs: float = _share(0.0, "The answer stands behind another prompt than is sent")
    dropped_turn: float = _share(0.0, "A turn, or a part of it, that the template leaves out")


class FormatConfig(Record):
    """Limits on the rendered conversation; rows over a limit are rejected, never cut."""

    max_length: int = Field(
        512, ge=16, le=131072, description="Tokens of prompt and answer together"
    )
    too_long: Literal["reject", "split"] = Field(
        "reject",
        description="A conversation over max_length. split: make several that fit, each with the "
        "system turn and whole exchanges; rejected where one exchange alone does not fit",
    )
    multi_turn: Literal["auto", "together", "unroll"] = Field(
        "auto",
        description="together: one row trains every answer of a conversation; unroll: one row an "
        "answer; auto: together where the template shows history as it was said, else unroll",
    )
    max_rejected_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of rejected rows, for all reasons, that fails the stage",
    )
    limits: FormatLimits = Field(
        FormatLimits(), description="The same for each reason; the stricter limit counts"
    )
