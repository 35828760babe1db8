"""Contestants with given scores, and a gate with given rules, for the tests of its decisions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from tasks.gate.config import GateConfig
from tasks.gate.rules import ContestantScores
from tasks.scores import MetricScores, Reducer

N = 200


def metric(
    name: str,
    values: ArrayLike,
    *,
    reducer: Reducer = "mean",
    higher_is_better: bool = True,
    ids: tuple[str, ...] | None = None,
) -> MetricScores:
    stats = np.asarray(values, dtype=float).reshape(-1, 1)
    return MetricScores(name, reducer, higher_is_better, stats, ids)


def right(num_right: int, n: int = N, *, first: int = 0) -> MetricScores:
    """exact_match with ``num_right`` right answers from row ``first`` on."""
    values = np.zeros(n)
    values[first : first + num_right] = 1
    return metric("exact_match", values, reducer="proportion")


def contestant(
    *scores: MetricScores, digest: str | None = "c" * 64, **unmeasured: str
) -> ContestantScores:
    n = max(len(s.stats) for s in scores)
    return ContestantScores(
        role="candidate" if digest else "base",
        adapter_digest=digest,
        scores={s.metric: s for s in scores},
        ids=tuple(f"row-{i}" for i in range(n)),
        unmeasured={"judge": "not configured", "general_loss": "switched off", **unmeasured},
    )


BETTER = {"metric": "primary", "kind": "superiority"}
MORE = {"rules": [BETTER | {"margin": 0.05}]}
JUDGED = {"metric": "judge", "kind": "non_inferiority", "margin": 0.1}


def held(metric: str, margin: float) -> dict[str, Any]:
    return {"metric": metric, "kind": "non_inferiority", "margin": margin}


def settings(*rules: dict[str, Any], **config: Any) -> GateConfig:
    """A gate whose rules are that the primary metric must improve, and ``rules``."""
    return GateConfig.model_validate({"rules": [BETTER, *rules], **config})


def against(candidate: ContestantScores, *others: ContestantScores) -> dict[Any, ContestantScores]:
    return {c.role: c for c in (*others, candidate)}
