"""Clean human rows in, accepted synthetic rows out; whatever is not used keeps its reason."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.artifacts import TaskConfig
from tasks.example import Example
from tasks.grading import GradedRow, Grades, Judge, grade
from tasks.objects import Store
from tasks.synthesize.config import JudgeConfig, SynthesizeConfig
from tasks.synthesize.diversity import Diversity, compare
from tasks.synthesize.filter import LEAKS, overlaps
from tasks.synthesize.generate import Generated, Rejected, generate
from tasks.synthesize.seeds import seeds_of

if TYPE_CHECKING:
    import anthropic

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Synthesis:
    """What a run made, and what it cost."""

    accepted: list[Example]
    rejected: list[Rejected]
    failed_calls: dict[str, int]
    num_seeds: int
    num_generated: int
    spent_usd: float
    status: Literal["completed", "budget_reached"]
    diversity: Diversity
    stats: dict[str, Any]

    @property
    def num_rejected(self) -> dict[str, int]:
        """Rows by the reason for which they are not used."""
        return dict(sorted(Counter(r.reason for r in self.rejected).items()))

    @property
    def num_leaked(self) -> int:
        """Rows too close to golden or held-out ones."""
        return sum(self.num_rejected.get(reason, 0) for reason in LEAKS)


def synthesize_examples(
    rows: Sequence[Example],
    splits: Sequence[str],
    golden: Sequence[Example],
    config: SynthesizeConfig,
    task: TaskConfig,
    client: anthropic.Anthropic,
    store: Store,
) -> Synthesis:
    """Generate from the human rows of the training split, filter, judge, and measure."""
    seeds = seeds_of(rows, splits, config.generation.max_seeds)
    generated = generate(seeds, config, task, client, store)
    rejected = list(generated.rejected)
    candidates = _without_copies(generated, rows, splits, golden, config, rejected)
    graded, accepted = None, candidates
    if config.judge.enabled:
        graded = _grades(candidates, config.judge, task, client, store)
        accepted = _judged(candidates, graded, config.judge, rejected)
    prompts = [e.prompt for e in generated.candidates]
    diversity = compare(prompts, [s.prompt for s in seeds], config.diversity)
    if diversity.verdict == "collapsed":
        logger.warning("synthesize: collapsed: %s", "; ".join(diversity.reasons))
    outcomes = [generated.outcome, *([graded.outcome] if graded else [])]
    reached = any(outcome.status == "budget_reached" for outcome in outcomes)
    return Synthesis(
        accepted=accepted,
        rejected=rejected,
        failed_calls=generated.failed_calls,
        num_seeds=len(seeds),
        num_generated=len(generated.candidates) + len(generated.rejected),
        spent_usd=sum(outcome.spent_usd for outcome in outcomes),
        status="budget_reached" if reached else "completed",
        diversity=diversity,
        stats={
            "num_calls_unsent": generated.outcome.num_unsent,
            "num_calls_cached": generated.outcome.num_cached,
            "generation_usd": round(generated.outcome.spent_usd, 6),
            "judge": graded.stats(len(candidates)) if graded else None,
        },
    )


def to_jsonl(examples: Iterable[Example]) -> bytes:
    """The rows in chat shape, as an ingest source reads them."""
    lines = (
        {
            "id": e.id,
            "messages": [m.as_chat() for m in e.messages],
            "source": e.source,
            "group": e.group,
            "created_at": e.created_at.isoformat() if e.created_at else None,
            "meta": dict(e.meta),
        }
        for e in examples
    )
    return _lines(lines)


def write(synthesis: Synthesis, folder: Path) -> None:
    """``examples.jsonl``, ``rejected.jsonl`` with reasons, and ``stats.json``."""
    (folder / "examples.jsonl").write_bytes(to_jsonl(synthesis.accepted))
    rejected = ({**asdict(r), "meta": dict(r.meta)} for r in synthesis.rejected)
    (folder / "rejected.jsonl").write_bytes(_lines(rejected))
    stats = {
        "num_seeds": synthesis.num_seeds,
        "num_generated": synthesis.num_generated,
        "num_accepted": len(synthesis.accepted),
        "num_rejected": synthesis.num_rejected,
        "num_leaked": synthesis.num_leaked,
        "failed_calls": synthesis.failed_calls,
        "spent_usd": round(synthesis.spent_usd, 6),
        "status": synthesis.status,
        "diversity": asdict(synthesis.diversity),
        **synthesis.stats,
    }
    (folder / "stats.json").write_text(json.dumps(stats, ensure_ascii=False, indent=1), "utf-8")


def publish(store: Store, name: str, examples: bytes) -> str | None:
    """Put the rows where an ingest source finds them: ``synthetic/<name>/<digest>.jsonl``."""
    if not examples:
        return None
    key = f"synthetic/{name}/{hashlib.sha256(examples).hexdigest()}.jsonl"
    store.put_bytes(key, examples)
    return f"{store.root}/{key}"


def _without_copies(
    generated: Generated,
    rows: Sequence[Example],
    splits: Sequence[str],
    golden: Sequence[Example],
    config: SynthesizeConfig,
    rejected: list[Rejected],
) -> list[Example]:
    candidates = generated.candidates
    gone = {o.index: o for o in overlaps(candidates, rows, splits, golden, config.filter)}
    for index, overlap in gone.items():
        detail = f"similarity {overlap.similarity:.2f}"
        rejected.append(_rejected(candidates[index], overlap.reason, detail))
    return [e for i, e in enumerate(candidates) if i not in gone]


def _grades(
    candidates: Sequence[Example],
    config: JudgeConfig,
    task: TaskConfig,
    client: anthropic.Anthropic,
    store: Store,
) -> Grades:
    instruction = task.system_prompt or ""
    rows = [GradedRow(instruction, e.prompt, e.answer) for e in candidates]
    judge = Judge(config.model, config.criteria, config.max_tokens)
    return grade(rows, judge, client, store, config.batches)


def _judged(
    candidates: Sequence[Example], graded: Grades, config: JudgeConfig, rejected: list[Rejected]
) -> list[Example]:
    """What was graded well enough; a synthetic row without a grade is not used either."""
    accepted = []
    for index, candidate in enumerate(candidates):
        given, failure = graded.grades.get(index), graded.failures.get(index)
        if given is not None and given.score >= config.min_score:
            accepted.append(candidate)
        elif given is not None:
            detail = f"graded {given.score}: {given.reason}"
            rejected.append(_rejected(candidate, "judge_score", detail))
        elif failure is not None:
            detail = f"{failure.reason}: {failure.detail}"
            rejected.append(_rejected(candidate, "judge_failed", detail))
        else:
            rejected.append(_rejected(candidate, "unjudged", "the budget of the judge was reached"))
    return accepted


def _rejected(example: Example, reason: str, detail: str) -> Rejected:
    return Rejected(reason, detail, example.prompt, example.answer, example.meta)


def _lines(values: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values).encode()
