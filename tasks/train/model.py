"""A base model and the settings of a training -> the model as it is trained, or a refusal.

The attention implementation is the caller's choice, and so is the seed: set it before ``prepare``,
since the adapter's weights are drawn there.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from tasks.artifacts import BaseModelRef
from tasks.base_model import load_model, locate, native_dtype
from tasks.errors import ConfigError
from tasks.train.config import TrainConfig
from tasks.train.refusals import check_engine, check_method, check_targets, check_vocabulary


def prepare(base: BaseModelRef, config: TrainConfig, tokenizer: Any) -> Any:
    """The model with what is to be trained set to float32 and ``requires_grad``, all else frozen.

    A ``PeftModel`` for lora and qlora, the transformers model itself for full. Raises ConfigError
    for settings that cannot be trained: see ``tasks.train.refusals``.
    """
    check_engine(config)
    check_method(config)
    if config.engine == "unsloth":
        return _with_unsloth(base, config, tokenizer)
    model = load_base(base, config)
    check_vocabulary(model, tokenizer)
    if config.engine == "liger":
        _apply_liger(model)
    if config.method == "full":
        # Everything learns, the input embeddings too. With tie_word_embeddings the head is the
        # same tensor, so it moves with them, and is counted, optimised and saved once.
        return model.requires_grad_(True)
    check_targets(model, config)
    # PEFT keeps the adapter in float32 on a bfloat16 base (autocast_adapter_dtype).
    return get_peft_model(model, lora_config(config, model))


def load_base(base: BaseModelRef, config: TrainConfig) -> Any:
    """The base model in the precision of its method.

    full: float32, whatever ``precision``, which then is autocast's alone. AdamW's steps are about
    the learning rate in size, and bfloat16 keeps 8 bits: a weight of 0.02 does not move by 1e-5
    (Micikevicius et al. 2017, section 3.1; Zamirai et al. 2020). qlora: linear layers in 4 bits.
    """
    if config.method == "full":
        return load_model(base, torch.float32)
    dtype = dtype_of(config)
    if config.method == "lora":
        return load_model(base, dtype)
    return load_quantised(base, dtype, compute_dtype=dtype)


def dtype_of(config: TrainConfig) -> torch.dtype:
    """The precision of the frozen weights and the arithmetic."""
    name = native_dtype() if config.precision == "auto" else config.precision
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def load_quantised(base: BaseModelRef, dtype: torch.dtype, compute_dtype: torch.dtype) -> Any:
    """The base model with its linear layers in NF4, scales quantised too (Dettmers et al. 2023).

    ``dtype`` is that of the other weights, and of the 4-bit ones when they are unpacked. PEFT's
    ``prepare_model_for_kbit_training`` would raise the others to float32. They are frozen, so that
    gains no digit: norms compute in float32 anyway, while embeddings and head of an 8B model would
    take 2 GiB more, and every activation between the layers twice the memory.
    """
    settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    model = load_model(base, dtype, quantization=settings).requires_grad_(False)
    for module in model.modules():
        # On CPUs with AVX512-BF16 bitsandbytes 0.50 repacks a layer at the first forward pass
        # without gradients, and a repacked layer passes none back: after the first validation the
        # layers before it would stop learning, without a word.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def lora_config(config: TrainConfig, model: Any) -> LoraConfig:
    """The adapter's settings as PEFT names them; all-linear becomes the names of those layers.

    PEFT's own all-linear lists every layer by its whole path, or by endings that it looks for in
    the order of a set: names are the same on every machine, and what servers read.
    """
    lora = config.lora
    named = not isinstance(lora.target_modules, str)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) if named else _linear_layers(model),
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )


def _linear_layers(model: Any) -> list[str]:
    head = model.get_output_embeddings()
    linear = (torch.nn.Linear, Conv1D)  # Conv1D is GPT-2's
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, linear) and module is not head
        }
    )


def keep_float32(model: Any) -> None:
    """Put what is trained back to float32; call it once TRL's trainer is made.

    SFTTrainer casts the adapter of a quantised model to bfloat16, in which AdamW loses small steps.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def count_parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters; of 4-bit weights every weight counts, not every byte.

    Tied weights count once. As ``PeftModel.get_nb_trainable_parameters``, for any model.
    """
    trainable = total = 0
    for parameter in model.parameters():
        number = parameter.numel()
        if type(parameter).__name__ == "Params4bit":
            number = 2 * number * parameter.element_size()
        total += number
        trainable += number if parameter.requires_grad else 0
    return trainable, total


def _apply_liger(model: Any) -> None:
    """Liger's kernels in place of the model's layers. Needs an NVIDIA GPU.

    Without its losses: the head is taken on the trained positions alone, by the trainer.
    """
    from liger_kernel.transformers import (  # type: ignore[import-not-found, unused-ignore]
        _apply_liger_kernel_to_instance,
    )
    from liger_kernel.transformers.monkey_patch import (  # type: ignore[import-not-found, unused-ignore]
        MODEL_TYPE_TO_APPLY_LIGER_FN,
    )

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(
            f"train.engine is liger, which has no kernels for {model.config.model_type} models. "
            "Set train.engine to trl."
        )
    _apply_liger_kernel_to_instance(
        model=model, cross_entropy=False, fused_linear_cross_entropy=False
    )


def _with_unsloth(base: BaseModelRef, config: TrainConfig, tokenizer: Any) -> Any:
    """The model as Unsloth prepares it. Needs an NVIDIA GPU.

    Unsloth patches transformers at import, and all of it only where it comes first: import it at
    the start of the process. The base model's files were checked when its tokenizer was loaded.
    """
    from transformers import AutoConfig
    from unsloth import FastLanguageModel  # type: ignore[import-not-found, unused-ignore]

    if config.lora.dora:
        raise ConfigError(
            "DoRA is not available with train.engine unsloth: set train.lora.dora to false, or the "
            "engine to trl."
        )
    folder = str(locate(base.id, base.revision))
    checkpointing = "unsloth" if config.gradient_checkpointing else False
    model, _ = FastLanguageModel.from_pretrained(
        model_name=folder,
        max_seq_length=AutoConfig.from_pretrained(folder).get_text_config().max_position_embeddings,
        dtype=dtype_of(config),
        load_in_4bit=config.method == "qlora",
        full_finetuning=config.method == "full",
        float32_mixed_precision=True if config.method == "full" else None,  # master weights
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,
        fix_tokenizer=False,
        trust_remote_code=False,
        random_state=config.seed,
    )
    check_vocabulary(model, tokenizer)
    if config.method == "full":
        return model
    check_targets(model, config)
    return FastLanguageModel.get_peft_model(
        model,
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=lora_config(config, model).target_modules,
        use_rslora=config.lora.rslora,
        use_gradient_checkpointing=checkpointing,
        random_state=config.seed,
    )
