"""TRL's SFTTrainer for rows whose loss is on the answers alone, packed and within its memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.trainer_utils import EvalLoopOutput
from trl.trainer.sft_trainer import SFTTrainer

from tasks.train.attention import PACKED, why_not_packed
from tasks.train.batches import IGNORED, Row, Rows, collate, pad
from tasks.train.guards import LossGuard
from tasks.train.order import EpochSampler
from tasks.train.packing import pack

logger = logging.getLogger(__name__)
# Rows of a matrix that processors and GPUs multiply at once in bfloat16; one row more than a whole
# number of them can cost as much as all (measured on AMX: 457 rows take twice the time of 464).
_TILE = 16
# Asked for answers at a checkpoint: the model as it is, and a progress of its own.
Examine = Callable[[Any], Mapping[str, float]]


class AnswerTrainer(SFTTrainer):
    """SFTTrainer with five differences; optimiser, schedule, checkpoints and devices are its own.

    - Rows of a micro-batch are packed (``tasks.train.packing``) where the model's attention allows.
    - On a CPU the head is taken where a token is trained alone, as TRL itself does on GPUs.
    - What a micro-batch cannot hold is taken in halves: the step stays the same step.
    - The order of rows is drawn anew in each epoch, and found again on resuming.
    - Validation weighs tokens, not batches, and asks for answers too (``examine``).

    ``micro_rows`` is how many rows are taken at once; it shrinks when memory runs out. ``notes``
    tells what a report should, ``save_seconds`` is how long training waited for checkpoints to be
    written. ``figures`` are laid over what is logged.
    """

    loss_is_scaled_for_ga: Any = True

    def __init__(
        self,
        *,
        packing: bool,
        micro_rows: int,
        examine: Examine = lambda _: {},
        **options: Any,
    ) -> None:
        super().__init__(data_collator=collate, **options)
        self.notes: list[str] = []
        self.micro_rows = micro_rows
        self.save_seconds = 0.0
        self.figures: Callable[[], Mapping[str, float]] = dict
        self._num_tokens = 0
        self._examine = examine
        self._packs = packing and self._can_pack()
        self._attention = PACKED if self._packs else self._plain_attention()
        self._base.set_attn_implementation(self._attention)
        # The loss below is divided by the trained tokens of the whole step, whatever the model.
        self.model_accepts_loss_kwargs = True
        self._step_rows: tuple[int, list[Rows]] = (-1, [])

    # ------------------------------------------------------------------------------------ training

    def training_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """One micro-batch, in as many parts as memory wants; its share of the step's loss."""
        rows: Rows = inputs["rows"]
        step, before = self._step_rows
        before = before if step == self.state.global_step else []
        self._step_rows = (self.state.global_step, [*before, rows])
        while True:
            try:
                loss = self._in_parts(model, rows, num_items_in_batch)
                break
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or self._alone(rows):
                    raise
                self._halve(error)
                # The failed part left gradients of some layers: the step begins anew.
                model.zero_grad()
                for earlier in before:
                    self._in_parts(model, earlier, num_items_in_batch)
        self._num_tokens += sum(len(row["input_ids"]) for row in rows.rows)
        return loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy summed over trained tokens, over their number in the whole step."""
        rows: Rows = inputs["rows"]
        loss, num_trained = self.summed_loss(model, rows)
        if model.training:
            guard = LossGuard.of(self.callback_handler.callbacks)
            guard.saw(loss.detach() / num_trained, rows.numbers)
        loss = loss / (num_trained if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # Counted over all processes, whose gradients are averaged.
            loss = loss * self.accelerator.num_processes
        return loss

    def summed_loss(self, model: Any, rows: Rows) -> tuple[torch.Tensor, int]:
        """The cross-entropy of the rows' trained tokens in nats, summed, and their number."""
        batch = self._batch(rows.rows)
        labels = batch.pop("labels")
        num_trained = int((labels[:, 1:] != IGNORED).sum())
        batch = {name: value.to(self.args.device) for name, value in batch.items()}
        with self.accelerator.autocast():
            # TRL's kernel skips what is not trained; but past the head's own forward, for which
            # a sharded model waits.
            if self.args.device.type == "cuda" and not self.is_fsdp_enabled:
                output = model(**batch, labels=labels.to(self.args.device), fused_lm_head=True)
                return -output.log_probs.sum(), num_trained
            trained = torch.nonzero((labels[:, 1:] != IGNORED).any(0)).flatten()
            logits = model(**batch, use_cache=False, logits_to_keep=trained).logits
        targets = labels[:, trained + 1].to(logits.device)
        loss = functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return loss, num_trained

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochSampler:
        """Drawn from the seed and the epoch: a resumed training finds the same order."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        return EpochSampler(
            dataset["length"],
            args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.seed,
            lambda: int(self.state.epoch or 0),
            grouped=args.train_sampling_strategy == "group_by_length",
        )

    def total_tokens(self) -> int:
        """Tokens of the rows trained on, by all processes; to be asked by all of them."""
        return sum(gather_object([self._num_tokens]))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None counted: the plan tells them, and inputs here have no tensor to count by."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Transformers' own log: TRL's adds the metrics that ``compute_loss`` left out."""
        super(SFTTrainer, self).log({**logs, **self.figures()}, start_time)

    def compile_layers(self) -> None:
        """``torch.compile`` each layer: all have one shape, so the code of one serves all."""
        for module in self._base.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.compile(dynamic=True)  # one shape for all micro-batches

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Transformers' own: TRL's writes a model card into every checkpoint."""
        started = time.monotonic()
        super(SFTTrainer, self)._save_checkpoint(model, trial)
        self.save_seconds += time.monotonic() - started

    def _in_parts(
        self, model: Any, rows: Rows, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        step: Any = super().training_step
        parts = rows.parts(self.micro_rows)
        losses = [step(model, {"rows": part}, num_items_in_batch) for part in parts]
        return torch.stack(losses).sum()

    def _alone(self, rows: Rows) -> bool:
        """Whether there is nothing to halve; several processes have to do it together."""
        return min(self.micro_rows, len(rows.rows)) == 1 or self.args.world_size > 1

    def _halve(self, error: RuntimeError) -> None:
        self.micro_rows = max(1, self.micro_rows // 2)
        clear_device_cache(garbage_collection=True)
        note = (
            f"Memory ran out at step {self.state.global_step + 1}: rows are taken "
            f"{self.micro_rows} at a time from there on, as many a step as before."
        )
        logger.warning("%s (%s)", note, str(error).splitlines()[0])
        self.notes.append(note)

    # ---------------------------------------------------------------------------------- validation

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss a trained token over all rows, each once, and what ``examine`` finds."""
        whole: Any = self.model
        model = self._wrap_model(whole, training=False)
        model.eval()
        dataset = dataloader.dataset
        loss, count = self._validation_loss(model, dataset)
        metrics = {"loss": loss / count, **self._examined()}
        named = {f"{metric_key_prefix}_{name}": float(value) for name, value in metrics.items()}
        none: Any = None
        return EvalLoopOutput(none, none, named, len(dataset))

    def _validation_loss(self, model: Any, dataset: Any) -> tuple[float, int]:
        order = sorted(range(len(dataset)), key=lambda i: dataset[i]["length"])
        batches = Rows([dataset[i] for i in order]).parts(self.args.per_device_eval_batch_size)
        processes, mine = self.args.world_size, self.args.process_index
        # All processes go forward equally often, as those that share a model must.
        rounds = -(-len(batches) // processes)
        loss, count = torch.zeros((), dtype=torch.float64), 0
        for number in range(rounds):
            at = number * processes + mine
            batch_loss, batch_count = self._without_gradient(model, batches[at % len(batches)])
            if at < len(batches):
                loss, count = loss + batch_loss, count + batch_count
        if processes == 1:
            return float(loss), count
        sums = gather_object([(float(loss), count)])
        return sum(part for part, _ in sums), sum(part for _, part in sums)

    def _without_gradient(self, model: Any, rows: Rows) -> tuple[float, int]:
        while True:
            try:
                with torch.no_grad():
                    parts = [self.summed_loss(model, p) for p in rows.parts(self.micro_rows)]
                return sum(float(loss) for loss, _ in parts), sum(n for _, n in parts)
            except RuntimeError as error:
                if not should_reduce_batch_size(error) or self._alone(rows):
                    raise
                self._halve(error)

    def _examined(self) -> Mapping[str, float]:
        self._base.set_attn_implementation("sdpa")
        try:
            return self._examine(self.model)
        finally:
            self._base.set_attn_implementation(self._attention)

    # ------------------------------------------------------------------------------------- batches

    def _batch(self, rows: Any) -> dict[str, Any]:
        plain: list[Row] = list(rows)
        if self._packs:
            return pack(plain, _TILE if self.args.bf16 else 1)
        tokenizer: Any = self.processing_class
        return dict(pad(plain, tokenizer.pad_token_id))

    def _can_pack(self) -> bool:
        reason = why_not_packed(self._base)
        if reason is not None:
            self.notes.append(f"Rows were padded, not packed: {reason}.")
        return reason is None

    def _plain_attention(self) -> str:
        return "sdpa" if self.args.device.type == "cuda" else "eager"

    @property
    def _base(self) -> Any:
        model = self.accelerator.unwrap_model(self.model)
        return model.get_base_model() if hasattr(model, "get_base_model") else model
