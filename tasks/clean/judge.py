"""The optional judge: a language model grades each row, and what it grades low is rejected.

It runs after redaction and on redacted rows alone: their texts leave this machine.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from tasks.clean.config import JudgeFilterConfig
from tasks.clean.rows import Finding, Rows
from tasks.errors import ConfigError
from tasks.grading import GradedRow, Judge, grade
from tasks.objects import Store

if TYPE_CHECKING:
    import anthropic

REASON = "judge_score"
logger = logging.getLogger(__name__)
_DETAIL_CHARACTERS = 200


def judge_findings(
    rows: Rows, config: JudgeFilterConfig, store: Store, client: anthropic.Anthropic
) -> tuple[list[Finding], dict[str, Any]]:
    """The rows graded below ``min_score``, and counts by score, of failures, and the cost.

    The texts are sent as they are: call it with redacted rows. A grade that failed is counted and
    keeps its row; so does a row that the budget did not reach. Grades are kept in the store, so
    that next week's run pays for new rows alone.

    Raises:
        ConfigError: no budget and prices are configured.
    """
    if config.batches is None:
        raise ConfigError("clean.judge.batches: missing. Give the budget and the model's prices.")
    judge = Judge(config.model, config.criteria, config.max_tokens)
    grades = grade(_graded_rows(rows), judge, client, store, config.batches)
    stats = grades.stats(len(rows))
    if stats["num_unjudged"]:
        logger.warning(
            "clean judge: the budget of %.2f USD left %d of %d rows unjudged; they are kept",
            *(config.batches.budget_usd, stats["num_unjudged"], len(rows)),
        )
    found = [
        Finding(index, REASON, f"graded {given.score}: {given.reason[:_DETAIL_CHARACTERS]}")
        for index, given in sorted(grades.grades.items())
        if given.score < config.min_score
    ]
    return found, stats


def _graded_rows(rows: Rows) -> list[GradedRow]:
    """The system's turn, the user's turns and the answer of each row.

    Of a longer conversation the model's own earlier turns are left out.
    """
    columns = (_instructions(rows), rows.prompts, rows.answers)
    texts = (column.to_pylist() for column in columns)
    return [GradedRow(*row) for row in zip(*texts, strict=True)]


def _instructions(rows: Rows) -> pa.LargeStringArray:
    """The system's turn of each row; empty where it has none."""
    turns = rows.turns
    is_system = pc.equal(turns.roles, "system")
    of_row = pa.array(turns.row_of).filter(is_system)
    first = pc.index_in(pa.array(range(len(rows)), of_row.type), value_set=of_row)
    return pc.fill_null(turns.contents.filter(is_system).take(first), "")
