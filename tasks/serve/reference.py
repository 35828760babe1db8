"""The likelihoods that a server is held against, computed as the evaluation computes answers."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

import torch

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_contestant
from tasks.likelihood import token_log_probs
from tasks.serve.parity import Dtype, Probe

_MOST_TOKENS = 8  # of an answer: a server is asked for them one by one


def measured(
    probes: Sequence[Probe], base_model: BaseModelRef, weights: Path, dtype: Dtype
) -> list[Probe]:
    """The probes with the log-probabilities of their answers, by the trained model and the base.

    Of long answers the beginning is measured.
    """
    probes = [p.model_copy(update={"answer_ids": p.answer_ids[:_MOST_TOKENS]}) for p in probes]
    trained = _log_probs(probes, base_model, weights, dtype)
    base = _log_probs(probes, base_model, None, dtype)
    return [
        probe.model_copy(update={"log_probs": tuple(mine), "base_log_probs": tuple(theirs)})
        for probe, mine, theirs in zip(probes, trained, base, strict=True)
    ]


def _log_probs(
    probes: Sequence[Probe], base_model: BaseModelRef, weights: Path | None, dtype: Dtype
) -> list[list[float]]:
    model = load_contestant(base_model, weights, getattr(torch, dtype))
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    found = [
        token_log_probs(model, [*p.prompt_ids, *p.answer_ids], len(p.prompt_ids)) for p in probes
    ]
    del model
    gc.collect()
    return found
