"""A base model and an adapter -> one model that answers as both did, or a refusal.

The merge is made in float32 and kept in the base model's own dtype. What that rounding costs is not
argued but measured: the saved files are read back and asked for the same answers.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from pydantic import Field

from tasks.artifacts import BaseModelRef, Record
from tasks.base_model import load_model
from tasks.errors import DataError, TrainingError
from tasks.train.adapters import save_full, weights_digest
from tasks.train.batches import IGNORED
from tasks.train.config import TrainConfig
from tasks.train.model import dtype_of, load_quantised

logger = logging.getLogger(__name__)
Row = Mapping[str, Sequence[int]]  # input_ids and labels, as train.parquet holds them


class MergeTolerance(Record):
    """How far a merged model may be from base and adapter, on tokens of real answers.

    Both are compared in float32, so what is left is the rounding of the merged weights. On
    SmolLM2-135M in bfloat16 it came to 0.017 nats at worst and 0.003 on average; a QLoRA adapter
    merged onto the wrong weights to 4.7 and 0.64. The limits lie ten times above the one and ten
    times below the other, and under the 0.2 to 0.5 nats that computing in bfloat16 costs anyway.
    """

    max_logprob_difference: float = Field(0.2, gt=0, description="Nats, of the worst token")
    mean_logprob_difference: float = Field(0.03, gt=0, description="Nats, over all tokens")
    argmax_agreement: float = Field(
        0.95, ge=0, le=1, description="Share of tokens where both think the same one likeliest"
    )


class MergeReport(Record):
    """What the check of a merge measured, over the ``num_tokens`` tokens of answers.

    Differences are absolute, in nats, of the log-probability of the answer's own token; both models
    compute in float32. ``dtype`` is what the merged weights are kept in.
    """

    max_logprob_difference: float
    mean_logprob_difference: float
    argmax_agreement: float
    num_tokens: int
    dtype: str


def merge(
    base: BaseModelRef,
    adapter: Path,
    output: Path,
    config: TrainConfig,
    rows: Iterable[Row],
    tolerance: MergeTolerance | None = None,
) -> MergeReport:
    """Write the merged model to ``output``, checked on ``rows``.

    A QLoRA adapter corrects the errors of the 4-bit weights it was trained on, so it is merged into
    those, unpacked, and not into the weights they were made from. Raises TrainingError, and leaves
    nothing, when the adapter holds a NaN or the merged model differs by more than ``tolerance``;
    also when ``output`` holds another model. Safe to kill and to run twice: the folder is renamed
    into place.
    """
    rows = list(rows)
    tolerance = tolerance or MergeTolerance()
    expected = _answers(_reference(base, adapter, config), rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=".merge-"))
    try:
        dtype = save_full(_merged(base, adapter, config), base, scratch)
        report = _compare(expected, _answers(_saved(scratch), rows), dtype)
        _check(report, tolerance, adapter)
        _put(scratch, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    logger.info("merge %s", report.model_dump_json())
    return report


def _reference(base: BaseModelRef, adapter: Path, config: TrainConfig) -> Any:
    """Base and adapter apart, as in training but computing in float32."""
    if config.method == "qlora":
        model = load_quantised(base, dtype_of(config), torch.float32)
        for parameter in model.parameters():
            if parameter.is_floating_point():  # all but the packed weights
                parameter.data = parameter.data.float()
    else:
        model = load_model(base, torch.float32)
    return PeftModel.from_pretrained(model, str(adapter))


def _merged(base: BaseModelRef, adapter: Path, config: TrainConfig) -> Any:
    """The merged model in float32, not yet rounded."""
    if config.method == "qlora":
        dtype = dtype_of(config)
        # In steps, because the unpacked weights were rounded to ``dtype`` in training too.
        model = load_quantised(base, dtype, dtype).dequantize(dtype=dtype).float()
    else:
        model = load_model(base, torch.float32)
    try:
        return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    except ValueError as error:  # PEFT's for weights that are not finite
        raise TrainingError(
            f"The adapter in {adapter} cannot be merged: {error}. Train again, with a lower "
            "train.learning_rate if its loss was not a number."
        ) from error


def _saved(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )


def _answers(model: Any, rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each trained token of the rows: its log-probability, and the likeliest token's id."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    logprobs, likeliest = [], []
    for row in rows:
        ids = torch.tensor([list(row["input_ids"])], device=device)
        labels = torch.tensor(list(row["labels"])[1:], device=device)
        trained = labels != IGNORED
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1][trained]
        chosen = logits.float().log_softmax(-1).gather(1, labels[trained, None])
        logprobs.append(chosen[:, 0].cpu())
        likeliest.append(logits.argmax(-1).cpu())
    if not sum(len(found) for found in logprobs):
        raise DataError(
            f"A merge is checked on answers, but {len(rows)} rows were given with no trained "
            "token: give validation rows with labels."
        )
    return torch.cat(logprobs), torch.cat(likeliest)


def _compare(
    expected: tuple[torch.Tensor, torch.Tensor],
    found: tuple[torch.Tensor, torch.Tensor],
    dtype: torch.dtype,
) -> MergeReport:
    differences = (expected[0] - found[0]).abs()
    return MergeReport(
        max_logprob_difference=float(differences.max()),
        mean_logprob_difference=float(differences.mean()),
        argmax_agreement=float((expected[1] == found[1]).float().mean()),
        num_tokens=len(differences),
        dtype=str(dtype).removeprefix("torch."),
    )


def _check(report: MergeReport, tolerance: MergeTolerance, adapter: Path) -> None:
    within = (  # written so that a NaN is beyond
        report.max_logprob_difference <= tolerance.max_logprob_difference
        and report.mean_logprob_difference <= tolerance.mean_logprob_difference
        and report.argmax_agreement >= tolerance.argmax_agreement
    )
    if not within:
        raise TrainingError(
            f"The merged model of {adapter.name} does not answer as base and adapter do. On "
            f"{report.num_tokens} tokens, in {report.dtype}: log-probabilities differ by "
            f"{report.max_logprob_difference:.3g} at most (allowed "
            f"{tolerance.max_logprob_difference}) and {report.mean_logprob_difference:.3g} on "
            f"average (allowed {tolerance.mean_logprob_difference}), the likeliest token agrees in "
            f"{report.argmax_agreement:.1%} (expected {tolerance.argmax_agreement:.1%}). Serve the "
            "adapter, or set train.merge to false."
        )


def _put(scratch: Path, output: Path) -> None:
    """Rename into place; of two that made the same model at once, the first one's stays."""
    try:
        scratch.rename(output)
    except OSError as error:
        if not output.is_dir() or weights_digest(output) != weights_digest(scratch):
            raise TrainingError(
                f"{output} holds another model already. Give another folder, or remove it."
            ) from error
