"""Replies become candidates: each with its seeds, its prompt's name and version, and its group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from tasks.artifacts import TaskConfig
from tasks.batch_api import Failure, Reply
from tasks.batches import BatchOutcome, run_batches
from tasks.example import Example, Message, content_id
from tasks.objects import Store
from tasks.synthesize import prompts
from tasks.synthesize.config import SynthesizeConfig
from tasks.synthesize.seeds import draw

if TYPE_CHECKING:
    import anthropic


@dataclass(frozen=True, slots=True)
class Rejected:
    """What is not used: why (a stable reason), the evidence, and what there is of it."""

    reason: str
    detail: str
    prompt: str
    answer: str
    meta: Mapping[str, str]


@dataclass(frozen=True)
class Generated:
    """The candidates, the malformed ones, the requests that failed by reason, and the cost."""

    candidates: list[Example]
    rejected: list[Rejected]
    failed_calls: dict[str, int]
    outcome: BatchOutcome


def generate(
    seeds: Sequence[Example],
    config: SynthesizeConfig,
    task: TaskConfig,
    client: anthropic.Anthropic,
    store: Store,
) -> Generated:
    """Ask for examples in the manner of the seeds, as far as the budget goes."""
    schema = prompts.answer_schema(task, [seed.answer for seed in seeds])
    calls = [
        (shown, prompts.request(shown, schema, task, config.generation))
        for shown in draw(seeds, config.generation)
    ]
    outcome = run_batches((request for _, request in calls), client, store, config.batches)
    seeds_by_id = {request.custom_id: shown for shown, request in calls}
    candidates: list[Example] = []
    rejected: list[Rejected] = []
    failed: Counter[str] = Counter()
    for custom_id, result in outcome.results.items():
        given = result.tool_input(prompts.TOOL) if isinstance(result, Reply) else result
        examples = given.get("examples") if isinstance(given, dict) else None
        if isinstance(given, Failure) or not isinstance(result, Reply):
            failed[given.reason] += 1
        elif not isinstance(examples, list) or not examples:
            failed["malformed_call"] += 1
        else:
            meta = _meta(seeds_by_id[custom_id], config, custom_id)
            group = seeds_by_id[custom_id][0].group
            for made in _read(examples, schema, task, group, meta, result):
                (candidates if isinstance(made, Example) else rejected).append(made)  # type: ignore[arg-type]
    return Generated(candidates, rejected, dict(failed), outcome)


def _meta(seeds: Sequence[Example], config: SynthesizeConfig, custom_id: str) -> dict[str, str]:
    return {
        "prompt_name": prompts.WRITE_EXAMPLES.name,
        "prompt_version": str(prompts.WRITE_EXAMPLES.version),
        "prompt_digest": prompts.WRITE_EXAMPLES.digest,
        "model": config.generation.model,
        "request": custom_id,
        "seeds": ",".join(seed.id for seed in seeds),
        "seed_groups": ",".join(dict.fromkeys(seed.group for seed in seeds)),
    }


def _read(
    examples: Sequence[Any],
    schema: dict[str, Any],
    task: TaskConfig,
    group: str,
    meta: Mapping[str, str],
    reply: Reply,
) -> Iterator[Example | Rejected]:
    """The examples of one reply; the group is that of the request's first seed."""
    validator = Draft202012Validator(schema)
    for given in examples:
        prompt = given.get("prompt") if isinstance(given, dict) else None
        if not isinstance(given, dict) or not isinstance(prompt, str) or "answer" not in given:
            yield Rejected("malformed", "expected a prompt and an answer", "", str(given), meta)
            continue
        answer = prompts.answer_text(given["answer"], schema)
        if not prompt.strip() or not answer.strip():
            yield Rejected("empty", "an empty prompt or answer", prompt, answer, meta)
            continue
        problem = best_match(validator.iter_errors(given["answer"]))
        if problem is not None:
            reason = "unknown_label" if task.kind == "classification" else "answer_schema"
            yield Rejected(reason, problem.message[:300], prompt, answer, meta)
            continue
        messages = (Message("user", prompt.strip()), Message("assistant", answer.strip()))
        yield Example(
            id=content_id(messages),
            messages=messages,
            source="synthetic",
            group=group,
            created_at=reply.created_at,
            meta=meta,
        )
