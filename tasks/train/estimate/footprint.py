"""The arithmetic and the memory of training a model: its shape and settings -> FLOPs and bytes.

Estimates from published formulas, each named where it stands; they hold for dense decoders. Of a
mixture of experts all experts are counted, which is too much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tasks.artifacts import Record
from tasks.train.config import LoraSettings, TrainConfig

_FLOAT32 = 4
_ADAMW_STATES = 8  # two float32 moments for each trained parameter (Loshchilov & Hutter 2017)
# NF4 with double quantisation (Dettmers et al. 2023, section 3): 4 bits a weight, an 8-bit scale a
# block of 64, and a float32 scale of scales for every 256 blocks.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)


class ModelShape(Record):
    """What of a model decides its cost. Counts are of parameters.

    ``num_layer_parameters`` are those of the layers, without embeddings and head;
    ``num_quantisable`` those in linear layers, which QLoRA stores in 4 bits; ``num_adapter`` those
    that LoRA would add. ``attention_width`` is heads times their size.
    """

    num_parameters: int
    num_layer_parameters: int
    num_quantisable: int
    num_adapter: int
    num_layers: int
    num_heads: int
    hidden_size: int
    attention_width: int
    vocab_size: int

    @property
    def num_head(self) -> int:
        return self.vocab_size * self.hidden_size


class Memory(Record):
    """Bytes on one device. All but ``activations`` stay, whatever the batch.

    ``libraries`` is what a process holds without a model; counted on a CPU alone.
    """

    weights: int
    adapter: int
    gradients: int
    optimiser: int
    activations: int
    libraries: int = 0

    @property
    def fixed(self) -> int:
        return self.weights + self.adapter + self.gradients + self.optimiser + self.libraries

    @property
    def total(self) -> int:
        return self.fixed + self.activations


def shape_of(model_config: Any, num_parameters: int, lora: LoraSettings) -> ModelShape:
    """The shape of a ``transformers.PretrainedConfig``'s causal model, built without its weights.

    Layers adapt as PEFT chooses them: by the last part of their name, or, for ``all-linear``,
    every linear layer but the head.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    auto: Any = AutoModelForCausalLM  # its from_config is untyped
    with torch.device("meta"):
        model = auto.from_config(model_config)
    head = model.get_output_embeddings()
    linear = {
        # GPT-2's Conv1D is a linear layer that keeps its weights as (in, out).
        name: tuple(module.weight.shape)[:: -1 if isinstance(module, Conv1D) else 1]
        for name, module in model.named_modules()
        if module is not head and isinstance(module, (torch.nn.Linear, Conv1D))
    }
    embedding = model.get_input_embeddings().weight
    tied = head is None or head.weight is embedding
    num_embedded = embedding.numel() if tied else embedding.numel() + head.weight.numel()
    text = model_config.get_text_config()
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelShape(
        num_parameters=num_parameters,
        num_layer_parameters=num_parameters - num_embedded,
        num_quantisable=sum(rows * columns for rows, columns in linear.values()),
        num_adapter=_num_adapter(linear, lora),
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        hidden_size=text.hidden_size,
        attention_width=text.num_attention_heads * head_size,
        vocab_size=text.vocab_size,
    )


def _num_adapter(linear: dict[str, tuple[int, ...]], lora: LoraSettings) -> int:
    """r columns in and r rows out for each adapted layer; DoRA adds a size for each output."""
    if lora.target_modules == "all-linear":
        adapted = list(linear.values())
    else:
        names = lora.target_modules
        adapted = [
            size
            for name, size in linear.items()
            if any(name == target or name.endswith(f".{target}") for target in names)
        ]
    return sum(lora.r * (out + into) + (out if lora.dora else 0) for out, into in adapted)


def forward_flops(
    shape: ModelShape, num_tokens: float, num_pairs: float, num_at_head: float
) -> float:
    """FLOPs of one forward pass of the base model.

    2 a parameter and token, and 2 a layer, width and pair of tokens under the causal mask, where
    ``num_pairs`` sums the squared lengths of rows (Kaplan et al. 2020, table 1). The head is
    counted at ``num_at_head`` tokens alone.
    """
    layers = 2 * shape.num_layer_parameters * num_tokens
    attention = 2 * shape.num_layers * shape.attention_width * num_pairs
    return layers + attention + 2 * shape.num_head * num_at_head


def training_flops(
    shape: ModelShape,
    num_tokens: float,
    num_pairs: float,
    trained_tokens: float,
    config: TrainConfig,
) -> float:
    """FLOPs of forward and backward over ``num_tokens``, the head at ``trained_tokens`` alone.

    Backward costs a forward for the activations' gradients and another for the weights' (Kaplan et
    al. 2020). LoRA leaves the second out for the frozen weights (Hu et al. 2021) and adds both for
    the adapter's own; the attention scores, having no weights, always cost two. Gradient
    checkpointing repeats the layers' forward (Chen et al. 2016). QLoRA's unpacking of the weights
    is not counted: it is no arithmetic of the model's.
    """
    forward = forward_flops(shape, num_tokens, num_pairs, trained_tokens)
    layers = forward_flops(shape, num_tokens, num_pairs, 0)
    scores = forward_flops(shape, 0, num_pairs, 0)
    again = layers if config.gradient_checkpointing else 0.0
    if config.method == "full":
        return 3 * forward + again
    adapter = 2 * shape.num_adapter * num_tokens
    repeated = adapter if config.gradient_checkpointing else 0.0
    return 2 * forward + scores + 3 * adapter + again + repeated


def memory(
    shape: ModelShape,
    lengths: Sequence[int],
    trained_share: float,
    config: TrainConfig,
    kind: Literal["cuda", "cpu"],
    libraries: int = 0,
) -> Memory:
    """Bytes on each device, the activations being those of the longest rows in one micro-batch.

    The adapter and its gradients are float32. Full fine-tuning keeps float32 weights; computing in
    bfloat16, autocast holds a copy of them in it during a step. FSDP shares all of this among its
    processes. ``trained_share`` is the share of tokens that have a label. What a GPU's own
    libraries hold on it, about 0.5 GiB, is not counted.
    """
    width = _FLOAT32 if config.precision == "float32" else 2  # auto, where there is a choice
    trained = shape.num_parameters if config.method == "full" else shape.num_adapter
    shards = config.devices.num_processes if config.devices.strategy == "fsdp" else 1
    return Memory(
        weights=_weights(shape, config, width) // shards,
        adapter=0 if config.method == "full" else _FLOAT32 * trained // shards,
        gradients=_FLOAT32 * trained // shards,
        optimiser=_ADAMW_STATES * trained // shards,
        activations=_activations(shape, lengths, trained_share, config, width, kind == "cpu"),
        libraries=libraries,
    )


def _weights(shape: ModelShape, config: TrainConfig, width: int) -> int:
    if config.method == "full":
        copy = 0 if config.precision == "float32" else width
        return (_FLOAT32 + copy) * shape.num_parameters
    if config.method == "qlora":
        packed = NF4_BYTES * shape.num_quantisable
        return int(packed) + width * (shape.num_parameters - shape.num_quantisable)
    return width * shape.num_parameters


def _activations(
    shape: ModelShape,
    lengths: Sequence[int],
    trained_share: float,
    config: TrainConfig,
    width: int,
    scores_are_kept: bool,
) -> int:
    """Korthikanti et al. 2022, equation 1: s b h (34 + 5 a s / h) bytes a layer in 16 bits.

    The second part, the attention scores, is kept by plain attention (on a CPU) and not by fused
    kernels. With checkpointing a layer keeps its input, and one layer at a time the rest. The head
    keeps logits, their float32 copy, its log-softmax and its gradient where tokens are trained.
    """
    longest = sorted(lengths, reverse=True)[: config.batch_size]
    packed = config.packing
    tokens = sum(longest) if packed else len(longest) * longest[0]
    pairs = tokens**2 if packed else len(longest) * longest[0] ** 2
    inside = 34 * tokens * shape.hidden_size
    scores = 5 * shape.num_heads * pairs if scores_are_kept else 0
    layer = (inside + scores) * width // 2
    kept = layer * shape.num_layers
    if config.gradient_checkpointing:
        kept = width * tokens * shape.hidden_size * shape.num_layers + layer
    logits = round(tokens * trained_share) * shape.vocab_size * (width + 3 * _FLOAT32)
    return kept + logits
