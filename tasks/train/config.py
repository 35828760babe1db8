"""How an adapter is trained. Defaults are those of the reference architecture for an 8B model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.artifacts import Record


class LoraSettings(Record):
    """Low-rank adaptation (Hu et al. 2021)."""

    r: int = Field(16, ge=1, le=256, description="Rank; 8 under 1,000 examples, 64 to learn more")
    alpha: int = Field(32, ge=1, le=1024, description="Scale of the update: alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter")
    target_modules: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="Layers that adapt"
    )


class TrainConfig(Record):
    """One run of training; the best checkpoint by validation loss is kept."""

    lora: LoraSettings = Field(LoraSettings(), description="The adapter")
    epochs: float = Field(3.0, gt=0, le=100, description="Passes over the training rows")
    batch_size: int = Field(8, ge=1, le=1024, description="Rows in a micro-batch")
    gradient_accumulation: int = Field(1, ge=1, le=1024, description="Micro-batches in a step")
    learning_rate: float = Field(2e-4, gt=0, lt=0.1, description="Peak learning rate")
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="Learning rate after the warm-up"
    )
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of steps that warm up")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm")
    evaluations_per_epoch: int = Field(
        2, ge=1, le=100, description="Validations, each with a checkpoint, in an epoch"
    )
    early_stopping_patience: int = Field(
        3, ge=1, le=100, description="Validations without improvement before training stops"
    )
    precision: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Of the frozen weights and the arithmetic; the adapter is float32"
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, a third more time"
    )
    seed: int = Field(0, ge=0, description="Of the adapter's weights, the order and the dropout")
