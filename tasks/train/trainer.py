"""TRL's SFTTrainer with the LM head taken only where a token is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from trl.trainer.sft_trainer import SFTTrainer

from tasks.train.batches import IGNORED


class AnswerTrainer(SFTTrainer):
    """SFTTrainer for rows whose loss is on the answers alone.

    The head of a small model is a third of its work, and most positions are prompt: TRL computes
    the logits of all of them on a CPU, this one of the trained ones. Entropy and token accuracy,
    which nobody reads here, are not computed.
    """

    num_tokens_seen = 0

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy summed over trained tokens, over their number in the whole step."""
        labels = inputs["labels"][:, 1:]
        trained = labels != IGNORED
        base = self.accelerator.unwrap_model(model).get_base_model()
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=self.args.bf16):
            hidden = base.model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
            ).last_hidden_state
            logits = base.get_output_embeddings()(hidden[:, :-1][trained])
        loss = functional.cross_entropy(logits.float(), labels[trained], reduction="sum")
        loss = loss / (trained.sum() if num_items_in_batch is None else num_items_in_batch)
        if model.training:
            self.num_tokens_seen += int(inputs["attention_mask"].sum())
        return (loss, {"logits": logits}) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """The loss alone: logits over a vocabulary of 49,152 are not gathered."""
        with torch.no_grad():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Transformers' own log: TRL's adds the metrics that ``compute_loss`` left out."""
        super(SFTTrainer, self).log(logs, start_time)
