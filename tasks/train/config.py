"""How a model is trained. Defaults are those of the reference architecture for an 8B model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tasks.artifacts import Record
from tasks.overrides import overridden

Method = Literal["lora", "qlora", "full"]
Engine = Literal["trl", "liger", "unsloth", "openai"]
EVAL_LOSS = "eval_loss"


class LoraSettings(Record):
    """Low-rank adaptation (Hu et al. 2021)."""

    r: int = Field(16, ge=1, le=256, description="Rank; 8 under 1,000 examples, 64 to learn more")
    alpha: int = Field(32, ge=1, le=1024, description="Scale of the update: alpha / r")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout before the adapter")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        min_length=1,
        description="Layers that adapt; all-linear: every linear layer but the head",
    )
    rslora: bool = Field(
        False, description="Scale by alpha / sqrt(r) (Kalajdzievski 2023), for ranks above 32"
    )
    dora: bool = Field(
        False, description="Learn size and direction apart (Liu et al. 2024); slower, for low ranks"
    )


class ValidationSettings(Record):
    """The look at every checkpoint: its loss, and answers to some of the validation rows."""

    metric: str = Field(
        EVAL_LOSS,
        description="What the best checkpoint is chosen by: eval_loss, or a metric of the task "
        "such as accuracy or field_f1, for which answers are generated",
    )
    num_generated: int = Field(
        0, ge=0, le=10_000, description="Validation rows answered at every checkpoint; 0: none"
    )
    max_new_tokens: int = Field(96, ge=1, le=8192, description="Tokens of such an answer")

    @model_validator(mode="after")
    def _metric_needs_answers(self) -> ValidationSettings:
        if self.metric != EVAL_LOSS and self.num_generated == 0:
            raise ValueError(
                f"metric {self.metric} is computed from answers: set num_generated above 0"
            )
        return self


class Guards(Record):
    """When training stops by itself or warns; figures of the reference architecture."""

    learning_rate_range: tuple[float, float] | None = Field(
        None,
        description="Outside it the report warns; None: 1e-4 to 3e-4 for LoRA from 1B parameters "
        "on, 2e-4 to 2e-3 below, 5e-6 to 5e-5 for full fine-tuning",
    )
    max_loss_factor: float = Field(
        5.0, gt=1, description="A loss this many times the first steps' is an explosion and stops"
    )
    divergence: float = Field(
        0.15,
        gt=0,
        description="Relative rise of validation over its best, while training falls, that warns",
    )


class Budget(Record):
    """What a training may cost; above it, training is refused before it starts."""

    max_usd: float | None = Field(None, gt=0, description="Dollars of hardware")
    max_hours: float | None = Field(None, gt=0, description="Hours on the clock")
    usd_per_hour: float | None = Field(
        None, ge=0, description="Price of the machine; None: known GPUs by name, a CPU is free"
    )
    tokens_per_second: float | None = Field(
        None, gt=0, description="Measured speed, where there is one; None: estimated"
    )


class Devices(Record):
    """How many processes train together, each on a device of its own."""

    num_processes: int = Field(1, ge=1, le=64, description="1: in the flow's own process")
    strategy: Literal["ddp", "fsdp"] = Field(
        "ddp", description="ddp: the whole model on each device; fsdp: a part of it on each"
    )


class HostedSettings(Record):
    """A fine-tuning API in OpenAI's form; the key comes from the environment."""

    model: str = Field("gpt-4.1-mini-2025-04-14", min_length=1, description="The API's base model")
    base_url: str | None = Field(None, description="None: OPENAI_BASE_URL, or OpenAI's own")
    poll_seconds: float = Field(30.0, gt=0, le=3600, description="Between two looks at the job")
    usd_per_million_tokens: float | None = Field(
        None, ge=0, description="Price of trained tokens; None: unknown, then max_usd is refused"
    )


class TrainConfig(Record):
    """One training; the best checkpoint by ``validation.metric`` is kept."""

    method: Method = Field(
        "lora",
        description="lora: an adapter; qlora: an adapter on 4-bit weights; full: all weights, for "
        "5,000 rows and more",
    )
    engine: Engine = Field(
        "trl",
        description="trl: everywhere; liger and unsloth: faster kernels on NVIDIA GPUs, to be "
        "installed first; openai: a fine-tuning API",
    )
    lora: LoraSettings = Field(LoraSettings(), description="The adapter")
    epochs: float = Field(3.0, gt=0, le=100, description="Passes over the training rows")
    batch_size: int = Field(8, ge=1, le=1024, description="Rows in a micro-batch, on each device")
    gradient_accumulation: int = Field(1, ge=1, le=1024, description="Micro-batches in a step")
    learning_rate: float = Field(2e-4, gt=0, lt=0.1, description="Peak learning rate")
    schedule: Literal["cosine", "linear", "constant_with_warmup", "constant"] = Field(
        "cosine", description="Learning rate after the warm-up"
    )
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of steps that warm up")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm")
    neftune_alpha: float | None = Field(
        None, gt=0, le=100, description="Noise on the embeddings (Jain et al. 2023); 5 is usual"
    )
    packing: bool = Field(
        True,
        description="Rows of a micro-batch in one sequence, without padding and with what they "
        "begin with in common computed once; no row sees another",
    )
    group_by_length: bool = Field(True, description="Batches of rows of similar length")
    evaluations_per_epoch: int = Field(
        2, ge=1, le=100, description="Validations, each with a checkpoint, in an epoch"
    )
    early_stopping_patience: int = Field(
        3, ge=1, le=100, description="Validations without improvement before training stops"
    )
    validation: ValidationSettings = Field(
        ValidationSettings(), description="What is looked at at every checkpoint"
    )
    precision: Literal["auto", "bfloat16", "float32"] = Field(
        "auto",
        description="Of the frozen weights and the arithmetic; the adapter is float32. auto: "
        "bfloat16 where the processor computes in it, float32 where it is emulated",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations: less memory, a third more time"
    )
    compile: bool = Field(
        False, description="torch.compile the layers: a slow start, then faster; for long runs"
    )
    merge: bool = Field(
        False, description="Also keep the merged model, checked against the adapter"
    )
    guards: Guards = Field(Guards(), description="When training stops or warns")
    budget: Budget = Field(Budget(), description="Above it training is refused")
    devices: Devices = Field(Devices(), description="Processes that train together")
    hosted: HostedSettings = Field(HostedSettings(), description="For the engine openai")
    sweep: tuple[dict[str, Any], ...] = Field(
        (),
        max_length=16,
        description="Overrides of this section, a training each; the best by validation is kept",
    )
    seed: int = Field(0, ge=0, description="Of the adapter's weights, the order and the dropout")

    @field_validator("sweep")
    @classmethod
    def _no_sweep_in_a_sweep(cls, sweep: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for overrides in sweep:
            if "sweep" in overrides:
                raise ValueError("an override of a sweep cannot hold a sweep")
        return sweep

    def variants(self) -> list[TrainConfig]:
        """The trainings of the sweep, or this one alone.

        Raises pydantic.ValidationError for an override that does not fit.
        """
        own = self.model_dump() | {"sweep": ()}
        overrides = self.sweep or ({},)
        return [TrainConfig.model_validate(overridden(own, change)) for change in overrides]

    @model_validator(mode="after")
    def _kernels_are_compiled_already(self) -> TrainConfig:
        if self.compile and self.engine == "liger":
            raise ValueError("engine liger has kernels that torch.compile cannot read: choose one")
        return self

    @model_validator(mode="after")
    def _every_variant_is_valid(self) -> TrainConfig:
        if self.sweep:
            self.variants()
        return self
