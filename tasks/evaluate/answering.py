"""What a contestant says to the golden rows: by its weights, or by the API that keeps them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.anthropic_client import make_client as make_messages_client
from tasks.artifacts import Contestant, ReferenceModel
from tasks.base_model import load_tokenizer
from tasks.evaluate.answers import Answer
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.general import Item, measure
from tasks.evaluate.hosted import answer_hosted, ask_chat
from tasks.evaluate.hosted_messages import ask_messages
from tasks.evaluate.known import KnownAnswers
from tasks.example import Example
from tasks.openai_client import load_hosted, make_client
from tasks.scores import MetricScores


def answer(
    rows: Sequence[Example],
    contestant: Contestant,
    adapter: Path | None,
    config: DecodingConfig,
    shots: Mapping[str, Sequence[Example]],
    known: KnownAnswers,
) -> tuple[list[Answer], float | None]:
    """The answers in the order of ``rows``, and the tokens generated a second, if any were now."""
    if contestant.reference is not None:
        return _answer_by_reference(rows, contestant.reference, config)
    hosted = load_hosted(adapter) if adapter is not None else None
    if hosted is not None:
        with make_client(hosted.base_url, os.environ) as client:
            ask = ask_chat(hosted.model_id, client, config.max_new_tokens)
            return answer_hosted(rows, hosted.model_id, ask, config.repeats)
    from tasks.evaluate.generate import generate  # torch, only where weights are run

    return generate(rows, contestant.known_base_model, adapter, config, known, shots)


def score_general(
    items: Sequence[Item], contestant: Contestant, adapter: Path | None, config: DecodingConfig
) -> tuple[dict[str, MetricScores], str | None]:
    """The scores beside the task by name, and why there are none."""
    if not items:
        return {}, "switched off in evaluate.general.enabled"
    if contestant.base_model is None or (adapter and load_hosted(adapter)):
        return {}, "a model behind an API does not say how likely it finds a text"
    from tasks.evaluate.engines import load

    model = load(contestant.base_model, adapter, config)
    return measure(model, load_tokenizer(contestant.base_model), items), None


def _answer_by_reference(
    rows: Sequence[Example], model: ReferenceModel, config: DecodingConfig
) -> tuple[list[Answer], float]:
    if model.api == "openai":
        with make_client(model.base_url, os.environ) as client:
            ask = ask_chat(model.model, client, config.max_new_tokens)
            return answer_hosted(rows, model.model, ask, config.repeats)
    with make_messages_client(os.environ, base_url=model.base_url) as messages_client:
        ask = ask_messages(model.model, messages_client, config.max_new_tokens)
        return answer_hosted(rows, model.model, ask, config.repeats)
