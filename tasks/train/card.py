"""What is known of a trained model -> its model card: ``README.md`` in the hub's form."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import Field

from tasks.artifacts import BaseModelRef, Record
from tasks.train.config import TrainConfig

# https://huggingface.co/docs/hub/repositories-licenses; those that language models come under.
_IDENTIFIER = re.compile(
    r"apache-2\.0|mit|openrail(\+\+)?|(bigscience|creativeml|bigcode)-openrail-m"
    r"|bigscience-bloom-rail-1\.0|bsd(-[23]-clause)?|bsd-3-clause-clear|cc0-1\.0"
    r"|cc-by(-nc)?(-sa|-nd)?-[34]\.0|[al]?gpl-3\.0|gpl-2\.0|lgpl-2\.1|mpl-2\.0|isc|unlicense"
    r"|llama(2|3|3\.[123]|4)|gemma|unknown|other"
)
_LONG_NAMES = (
    (re.compile(r"(the )?apache[ -]*(license|licence)?,?[ -]*(version|v)? ?2(\.0)?"), "apache-2.0"),
    (re.compile(r"(the )?mit (license|licence)"), "mit"),
    (re.compile(r"gemma( terms of use| license| licence)"), "gemma"),
    (
        re.compile(
            r"(?:meta )?llama[ -]?(2|3|3\.1|3\.2|3\.3|4)"
            r"(?: community)?(?: license| licence)?(?: agreement)?"
        ),
        r"llama\1",
    ),
)


class CardFacts(Record):
    """What a card tells. Counts are of rows; ``metrics`` were taken on the validation rows."""

    name: str
    base: BaseModelRef
    config: TrainConfig
    config_digest: str
    data_digest: str
    num_rows: dict[str, int] = Field(description="By split: train, validation")
    num_trained_tokens: int | None = None
    sources: dict[str, int] = Field({}, description="Rows by source")
    metrics: dict[str, float] = Field({}, description="By name, as the log names them")
    cautions: dict[str, str] = Field({}, description="Sentences by a stable name")
    merged: bool = Field(False, description="Whether the adapter was merged into the base model")


def model_card(facts: CardFacts) -> str:
    """The card in Markdown, its YAML front matter first.

    It holds no time, no path and no address, so that the same training writes the same card.
    """
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = {
        "What it is": _what(facts),
        "Training data": _data(facts),
        "Training": _training(facts),
        "Metrics on the validation rows": _table(facts.metrics) or "None were recorded.",
        "Limits": _limits(facts),
        "How to load": _how_to_load(facts),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{front}---\n\n# {facts.name}\n\n{body}\n"


def hub_license(name: str | None) -> dict[str, str]:
    """The licence as the hub's metadata names it: ``license``, and ``license_name`` for another.

    The name is the config's; one that is not given stays ``unknown`` and is never guessed from the
    model's name.
    """
    if name is None or not name.strip():
        return {"license": "unknown"}
    plain = " ".join(name.lower().split())
    for pattern, identifier in _LONG_NAMES:
        if match := pattern.fullmatch(plain):
            plain = match.expand(identifier)
    plain = plain.removesuffix(" license").removesuffix(" licence")
    if _IDENTIFIER.fullmatch(plain):
        return {"license": plain}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.+]+", "-", plain).strip("-")}


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    adapter = _is_adapter(facts)
    return {
        "base_model": public_name(facts.base),
        "base_model_relation": "adapter" if adapter else "finetune",
        **hub_license(facts.base.license),
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*(["lora"] if facts.config.method != "full" else []), "sft", "retune"],
    }


def public_name(base: BaseModelRef) -> str:
    """The base model's name on the hub, or its folder's name where it lies on a machine."""
    on_hub = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", base.id)
    return base.id if on_hub else re.split(r"[/\\]", base.id.rstrip("/\\"))[-1]


def _is_adapter(facts: CardFacts) -> bool:
    return facts.config.method != "full" and not facts.merged


def _what(facts: CardFacts) -> str:
    kind = {
        "lora": "A LoRA adapter",
        "qlora": "A LoRA adapter, trained on 4-bit weights (QLoRA),",
        "full": "All weights fine-tuned, a whole model",
    }[facts.config.method]
    merged = " merged into it; this is the whole model" if facts.merged else ""
    base, licence = facts.base, facts.base.license or "unknown: it was not given"
    lines = [
        f"{kind} of `{public_name(base)}`{merged}.",
        f"- Base model's files: SHA-256 `{base.digest}`"
        + (f", revision `{base.revision}`" if base.revision else ""),
        f"- Base model's licence: {licence}. It holds for this model too.",
    ]
    return "\n".join([lines[0], "", *lines[1:]])


def _data(facts: CardFacts) -> str:
    rows = ", ".join(f"{number} {split}" for split, number in facts.num_rows.items())
    sources = ", ".join(f"{s} ({number})" for s, number in sorted(facts.sources.items()))
    lines = [
        f"- Data: SHA-256 `{facts.data_digest}`",
        f"- Rows: {rows}",
        f"- Sources: {sources or 'not recorded'}",
    ]
    if facts.num_trained_tokens is not None:
        lines.insert(2, f"- Trained tokens in an epoch: {facts.num_trained_tokens}")
    return "\n".join(lines)


def _training(facts: CardFacts) -> str:
    config = facts.config
    settings: dict[str, Any] = {"method": config.method}
    if config.method != "full":
        settings |= {f"lora.{k}": v for k, v in config.lora.model_dump(mode="json").items()}
    names = (
        "epochs batch_size gradient_accumulation learning_rate schedule warmup_share weight_decay "
        "max_grad_norm neftune_alpha precision packing seed"
    )
    settings |= {name: getattr(config, name) for name in names.split()}
    return f"- Config: SHA-256 `{facts.config_digest}`\n\n{_table(settings)}"


def _table(values: dict[str, Any]) -> str:
    if not values:
        return ""
    rows = [f"| {name} | {_shown(value)} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _limits(facts: CardFacts) -> str:
    lines = [
        "- It learned from the rows above, and is only known to do what they show.",
        "- The metrics are of rows that chose the checkpoint; the evaluation that decides about "
        "promotion is on other rows, and stands in the registry.",
        "- It keeps the base model's limits.",
    ]
    if facts.config.method == "qlora" and not facts.merged:
        lines.append(
            "- It was trained on 4-bit weights: on the base model's full weights its answers differ"
            " slightly from those in training."
        )
    lines += [f"- {sentence}" for sentence in facts.cautions.values()]
    return "\n".join(lines)


def _how_to_load(facts: CardFacts) -> str:
    if not _is_adapter(facts):
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH", dtype="auto")\n'
            'tokenizer = AutoTokenizer.from_pretrained("PATH")\n```'
        )
    name = public_name(facts.base)
    return (
        "```python\nfrom peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{name}", dtype="auto")\n'
        'model = PeftModel.from_pretrained(base, "PATH")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n```'
    )
