"""The model card: true licence, whole lineage, nothing of this machine."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tasks.artifacts import BaseModelRef
from tasks.train.card import CardFacts, hub_license, model_card, public_name
from tasks.train.config import TrainConfig

BASE = BaseModelRef(
    id="meta-llama/Llama-3.1-8B-Instruct",
    digest="b" * 64,
    revision="0e9e39f",
    license="Llama 3.1 Community License",
)
FACTS = CardFacts(
    name="support-tickets",
    base=BASE,
    config=TrainConfig(learning_rate=3e-4, seed=7),
    config_digest="c" * 64,
    data_digest="d" * 64,
    num_rows={"train": 1500, "validation": 200},
    num_trained_tokens=12_345,
    sources={"human": 900, "synthetic": 600},
    metrics={"eval_loss": 0.123456789, "eval_accuracy": 0.91},
    cautions={"synthetic_share": "Two fifths of the rows are synthetic."},
)


def card_of(**changes: Any) -> tuple[dict[str, Any], str]:
    """The card's front matter and its text."""
    _, front, text = model_card(FACTS.model_copy(update=changes)).split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_front_matter_is_the_hubs() -> None:
    front, _ = card_of()
    assert front == {
        "base_model": "meta-llama/Llama-3.1-8B-Instruct",
        "base_model_relation": "adapter",
        "license": "llama3.1",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sft", "retune"],
    }


@pytest.mark.parametrize(
    "part",
    [
        "# support-tickets",
        "d" * 64,
        "c" * 64,
        "b" * 64,
        "0e9e39f",
        "1500 train, 200 validation",
        "human (900), synthetic (600)",
        "12345",
        "| learning_rate | 0.0003 |",
        "| lora.target_modules | q_proj, k_proj, v_proj, o_proj |",
        "| seed | 7 |",
        "| eval_loss | 0.123457 |",
        "- Two fifths of the rows are synthetic.",
        "licence: Llama 3.1 Community License",
        "PeftModel.from_pretrained",
    ],
)
def test_the_card_tells_where_the_model_comes_from(part: str) -> None:
    assert part in card_of()[1]


@pytest.mark.parametrize(
    ("changes", "library", "relation", "loader"),
    [
        ({"method": "full"}, "transformers", "finetune", "AutoModelForCausalLM"),
        ({"method": "lora", "merged": True}, "transformers", "finetune", "AutoModelForCausalLM"),
        ({"method": "qlora"}, "peft", "adapter", "PeftModel"),
    ],
)
def test_a_whole_model_is_told_from_an_adapter(
    changes: dict[str, Any], library: str, relation: str, loader: str
) -> None:
    config = TrainConfig(method=changes["method"])
    front, text = card_of(config=config, merged=changes.get("merged", False))
    assert (front["library_name"], front["base_model_relation"]) == (library, relation)
    assert f"{loader}.from_pretrained" in text
    assert ("PeftModel" in text) == (library == "peft")
    assert ("4-bit" in text) == (changes["method"] == "qlora")
    assert ("lora.r" in text) == (changes["method"] != "full")


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("MIT License", "mit"),
        ("Llama 3.1 Community License", "llama3.1"),
        ("Llama 3.1 Community License Agreement", "llama3.1"),
        ("Meta Llama 3 Community License", "llama3"),
        ("llama3.3", "llama3.3"),
        ("LLAMA 2 Community License Agreement", "llama2"),
        ("Llama 4 Community License Agreement", "llama4"),
        ("Gemma Terms of Use", "gemma"),
        ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
        (None, "unknown"),
        ("  ", "unknown"),
    ],
)
def test_licences_have_the_hubs_names(name: str | None, identifier: str) -> None:
    assert hub_license(name) == {"license": identifier}


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Qwen LICENSE AGREEMENT", "qwen-license-agreement"),
        ("Llama 3.9 Community License", "llama-3.9-community"),
        ("Proprietary: ask us", "proprietary-ask-us"),
    ],
)
def test_another_licence_keeps_its_name(name: str, slug: str) -> None:
    assert hub_license(name) == {"license": "other", "license_name": slug}


def test_a_licence_is_never_guessed() -> None:
    front, text = card_of(base=BASE.model_copy(update={"license": None}))
    assert front["license"] == "unknown"
    assert "unknown: it was not given" in text


@pytest.mark.parametrize(
    "path", ["/home/me/models/my-base", "./models/my-base", "models/eu/my-base/", "C:\\m\\my-base"]
)
def test_a_local_path_is_not_told(path: str) -> None:
    base = BASE.model_copy(update={"id": path})
    assert public_name(base) == "my-base"
    card = model_card(FACTS.model_copy(update={"base": base}))
    assert path not in card
    assert "home" not in card


def test_the_same_facts_are_the_same_card() -> None:
    assert model_card(FACTS) == model_card(FACTS.model_copy(deep=True))


def test_what_was_not_recorded_is_said() -> None:
    _, text = card_of(sources={}, metrics={}, num_trained_tokens=None)
    assert "Sources: not recorded" in text
    assert "None were recorded." in text
    assert "Trained tokens" not in text
