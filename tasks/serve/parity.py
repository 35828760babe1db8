"""Parity: what was evaluated is what is served, shown token by token before anything is routed.

A server can render a conversation by another template, put a second BOS before it, hold another
adapter than its name says or none, or compute in another precision; its answers then read well and
are not those that were evaluated. So for the probes of the training data the tokens must be the
trainer's, and the likelihood of each token of the answer that of the adapter, computed where it was
evaluated. We know of no server that checks this itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from tasks.artifacts import Record
from tasks.errors import RetuneError

FILE = "parity.jsonl"
Dtype = Literal["float32", "bfloat16"]
# Nats, the mean over an answer's tokens of the absolute difference. Two implementations of the same
# model differ by rounding alone: see tests/benchmarks/RESULTS.md for what was measured.
TOLERANCE: dict[Dtype, float] = {"float32": 0.002, "bfloat16": 0.15}
# The adapter must change the answers by more than this many tolerances, or it could be missing.
_TOLD_APART = 3.0


class Probe(Record):
    """A conversation, the trainer's tokens of it, and how likely the answer's are, in nats."""

    name: str
    turns: list[dict[str, Any]]
    tools: str | None = None
    prompt_ids: list[int]
    answer_ids: list[int]
    log_probs: tuple[float, ...] = ()
    base_log_probs: tuple[float, ...] = ()


class ParityError(RetuneError):
    """The server does not compute what was evaluated."""


class Server(Protocol):
    """What is asked of a server."""

    def tokens(self, turns: Sequence[dict[str, Any]], tools: str | None) -> list[int]:
        """The tokens that a request with these messages is answered from."""

    def log_probs(self, model: str, prompt: list[int], answer: list[int]) -> list[float]:
        """The log-probability of each token of an answer, in nats."""

    def text(self, token: int) -> str:
        """What a token stands for."""


class Parity(Record):
    """How close the server came: the largest mean difference over a probe, and the tolerance."""

    num_probes: int
    num_tokens: int
    largest_difference: float
    tolerance: float

    @property
    def sentence(self) -> str:
        return (
            f"{self.num_probes} conversations have the trainer's tokens, and {self.num_tokens} "
            f"tokens of answers its likelihoods within {self.largest_difference:.2g} nats "
            f"(at most {self.tolerance:g})"
        )


def check(server: Server, model: str, probes: Sequence[Probe], dtype: Dtype) -> Parity:
    """Whether ``model`` at the server is what the probes were measured on.

    Raises ParityError that names the probe and the first token that differs, or what the
    likelihoods look like instead.
    """
    tolerance = TOLERANCE[dtype]
    _check_power(probes, tolerance)
    for probe in probes:
        _check_tokens(server, probe)
    differences = []
    for probe in probes:
        found = server.log_probs(model, probe.prompt_ids, probe.answer_ids)
        differences.append(_mean_difference(found, probe.log_probs))
        if not differences[-1] <= tolerance:  # what is not a number is not within it
            raise ParityError(_told(probe, found, dtype, tolerance))
    return Parity(
        num_probes=len(probes),
        num_tokens=sum(len(probe.answer_ids) for probe in probes),
        largest_difference=max(differences),
        tolerance=tolerance,
    )


def read(folder: Path) -> list[Probe]:
    """The probes of a ``ParityReference``'s folder."""
    lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    return [Probe.model_validate_json(line) for line in lines]


def _check_power(probes: Sequence[Probe], tolerance: float) -> None:
    """Without a difference between adapter and base a missing adapter could not be seen."""
    apart = [_mean_difference(probe.base_log_probs, probe.log_probs) for probe in probes]
    if not apart or max(apart) <= _TOLD_APART * tolerance:
        raise ParityError(
            f"the adapter changes the answers of {len(probes)} probes by "
            f"{max(apart, default=0.0):.2g} nats a token at most: too little to tell it from the "
            "base model. It was trained on too little, or is not worth serving."
        )


def _check_tokens(server: Server, probe: Probe) -> None:
    found = server.tokens(probe.turns, probe.tools)
    if found == probe.prompt_ids:
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(found, probe.prompt_ids, strict=False)) if a != b),
        min(len(found), len(probe.prompt_ids)),
    )
    expected, came = (
        repr(server.text(ids[at])) if at < len(ids) else "nothing more"
        for ids in (probe.prompt_ids, found)
    )
    raise ParityError(
        f"{probe.name}: token {at} of the prompt is {came} at the server and {expected} where it "
        f"was trained ({len(found)} tokens against {len(probe.prompt_ids)}): the server has "
        "another chat template or tokenizer. Start it from the base model's own folder."
    )


def _told(probe: Probe, found: list[float], dtype: Dtype, tolerance: float) -> str:
    difference = _mean_difference(found, probe.log_probs)
    message = (
        f"{probe.name}: the answer's tokens are {difference:.3g} nats a token away from the "
        f"adapter's, at most {tolerance:g} is rounding"
    )
    to_base = _mean_difference(found, probe.base_log_probs)
    if to_base <= tolerance:
        return f"{message}: the server answers with the base model, the adapter is not applied."
    return (
        f"{message}, and {to_base:.3g} away from the base model's: another adapter, other weights, "
        f"or another precision than {dtype}."
    )


def _mean_difference(some: Sequence[float], others: Sequence[float]) -> float:
    if len(some) != len(others):
        return float("inf")
    pairs = zip(some, others, strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(some) if some else 0.0


def written(probes: Sequence[Probe]) -> str:
    """The probes as the lines of ``parity.jsonl``."""
    return "".join(f"{json.dumps(p.model_dump(), ensure_ascii=False)}\n" for p in probes)
