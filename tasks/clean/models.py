"""What cleaning asks of models: each loaded at its first use, only where the config wants it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.artifacts import BaseModelRef, TaskConfig
from tasks.clean.config import CleanConfig
from tasks.clean.rows import Finding, Rows
from tasks.embeddings import EmbeddingConfig, embed
from tasks.objects import Store

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]
Perplexity = Callable[[list[str]], npt.NDArray[np.float64]]
AnswerLoss = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]
Judge = Callable[[Rows], tuple[list[Finding], dict[str, Any]]]


@dataclass(frozen=True)
class Models:
    """What needs a model; None where the configuration leaves it out.

    ``count_tokens`` by the base model's tokenizer; ``embed`` by the sentence-embedding model;
    ``perplexity`` and ``answer_loss`` by the base model; ``judge`` by the Messages API.
    """

    count_tokens: Callable[[list[str]], list[int]] | None = None
    embed: Embed | None = None
    perplexity: Perplexity | None = None
    answer_loss: AnswerLoss | None = None
    judge: Judge | None = None


def models_for(
    config: CleanConfig, task: TaskConfig, base_model: BaseModelRef, store: Store
) -> Models:
    """The models that this configuration asks for."""
    wants_loss = task.kind == "generation" and config.labels.score_free_text
    return Models(
        count_tokens=_token_counter(base_model),
        embed=_embedder(config.decontamination.embedding)
        if config.decontamination.embeddings
        else None,
        perplexity=_perplexity(base_model) if config.quality.perplexity.enabled else None,
        answer_loss=_answer_loss(base_model) if wants_loss else None,
        judge=_judge(config, store) if config.judge.enabled else None,
    )


def _token_counter(base_model: BaseModelRef) -> Callable[[list[str]], list[int]]:
    @cache
    def tokenizer() -> Any:
        from tasks.base_model import load_tokenizer

        return load_tokenizer(base_model)

    def count(texts: list[str]) -> list[int]:
        encoded = tokenizer()(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return [len(ids) for ids in encoded]

    return count


def _embedder(config: EmbeddingConfig) -> Embed:
    return lambda texts: embed(texts, config)


def _perplexity(base_model: BaseModelRef) -> Perplexity:
    from tasks.clean.quality.perplexity import make_score

    return make_score(base_model)


def _answer_loss(base_model: BaseModelRef) -> AnswerLoss:
    from tasks.clean.quality.answer_loss import make_answer_loss

    return make_answer_loss(base_model)


def _judge(config: CleanConfig, store: Store) -> Judge:
    from tasks.anthropic_client import make_client
    from tasks.clean.judge import judge_findings

    client = make_client(os.environ)
    return lambda rows: judge_findings(rows, config.judge, store, client)
