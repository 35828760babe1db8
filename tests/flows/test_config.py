"""The configurations that ship, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from transformers import LlamaConfig

from deployments import environment
from flows.config import RetrainConfig, SynthesisConfig, load_config, read_config
from tasks.clean.form import form_findings
from tasks.clean.rows import Rows
from tasks.errors import ConfigError, MissingFileError
from tasks.example import to_table
from tasks.ingest.snapshot import read_golden, read_source
from tasks.train.estimate.hardware import Hardware, peak_bf16
from tasks.train.estimate.plan import make_plan, schedule
from tests.model_shapes import LLAMA_8B, NUM_8B

CONFIGS = environment.home() / "deployments" / "configs"
SAMPLE = CONFIGS / "sample.yaml"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_that_ships_is_valid_and_survives_its_own_yaml(path: Path) -> None:
    model = SynthesisConfig if path.stem.endswith("-synthesize") else RetrainConfig
    config = read_config(path, model)
    assert model.model_validate(yaml.safe_load(config.to_yaml())) == config
    assert model.model_validate_json(config.model_dump_json()) == config


def test_the_reference_settings_are_those_of_the_reference_architecture() -> None:
    config = load_config(CONFIGS / "llama-3.1-8b.yaml")
    assert config.base_model.id == "meta-llama/Llama-3.1-8B-Instruct"
    assert config.base_model.license == "Llama 3.1 Community License"
    assert (config.train.lora.r, config.train.lora.alpha, config.train.lora.dropout) == (
        16,
        32,
        0.05,
    )
    assert config.train.lora.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert config.train.precision == "bfloat16"
    assert config.train.gradient_checkpointing
    assert config.train.learning_rate == 2e-4
    assert config.train.early_stopping_patience == 3


def changed(tmp_path: Path, change: dict[str, object]) -> Path:
    values = yaml.safe_load(SAMPLE.read_text())
    path = tmp_path / "changed.yaml"
    path.write_text(yaml.safe_dump(values | change))
    return path


def test_more_gpus_take_the_same_steps_and_each_has_room() -> None:
    one = load_config(CONFIGS / "llama-3.1-8b.yaml")
    steps = schedule(5000, one.train)
    for num_gpus in (2, 4, 8):
        config = load_config(CONFIGS / f"llama-3.1-8b-{num_gpus}gpu.yaml")
        assert config.train.devices.num_processes == num_gpus
        assert schedule(5000, config.train) == steps
        assert config.model_dump(exclude={"train"}) == one.model_dump(exclude={"train"})
        a100 = Hardware(
            name="NVIDIA A100-SXM4-80GB",
            kind="cuda",
            num_devices=num_gpus,
            memory_bytes=80 * 2**30,
            peak_flops=peak_bf16("NVIDIA A100-SXM4-80GB"),
            usd_per_hour=1.99,
        )
        plan = make_plan(
            [400] * 5000, 500_000, 250, LlamaConfig(**LLAMA_8B), NUM_8B, config.train, a100
        )
        assert plan.memory.total < a100.memory_bytes
        assert plan.seconds is not None
        assert plan.usd == pytest.approx(plan.seconds / 3600 * 1.99 * num_gpus)


def test_a_config_over_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(SAMPLE.read_text("utf-8"), "utf-8")
    child = tmp_path / "own" / "child.yaml"
    child.parent.mkdir()
    child.write_text("extends: ../base.yaml\nname: other\ntrain: {epochs: 7}\n", "utf-8")
    base, config = load_config(SAMPLE), load_config(child)
    assert (config.name, config.train.epochs) == ("other", 7)
    assert config.train.model_copy(update={"epochs": base.train.epochs}) == base.train
    assert config.ingest == base.ingest

    child.write_text("extends: [a]\n", "utf-8")
    with pytest.raises(ConfigError, match=r"extends: expected the path of a file, came \['a'\]"):
        load_config(child)
    child.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match=r"child.yaml: cannot be read: .*utf-8"):
        load_config(child)
    with pytest.raises(ConfigError, match=r"own: cannot be read: .*Is a directory"):
        load_config(child.parent)
    child.write_text("extends: nowhere.yaml\n", "utf-8")
    with pytest.raises(MissingFileError, match=r"nowhere.yaml, which .*child.yaml extends: no su"):
        load_config(child)
    child.write_text("extends: ../base.yaml\n", "utf-8")
    (tmp_path / "base.yaml").write_text("extends: own/child.yaml\n", "utf-8")
    with pytest.raises(ConfigError, match=r"own/child.yaml extends this file in turn"):
        load_config(child)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"trian": {}}, r"trian: unknown key\. Remove it, or look for a misspelling"),
        ({"train": {"epochs": "many"}}, r"train\.epochs: .*number.*; came 'many'"),
        ({"train": {"learning_rate": 3}}, r"train\.learning_rate: .*less than 0\.1; came 3"),
        ({"name": "Not A Name"}, r"name: .*pattern"),
        ({"ingest": {"sources": []}}, r"ingest\.sources: .*at least 1 item"),
        ({"ingest": {"sources": [{"source": "human"}]}}, r"a source needs `path`, `hub` or both"),
        ({"golden": {}}, r"golden\.source: missing\. Add it"),
        ({"clean": {"split": {"train": 0.5}}}, r"must be 1, came 0\.7"),
        ({"evaluate": {"metrics": ["acuracy"]}}, r"evaluate\.metrics\.0: .*'exact_match'"),
    ],
)
def test_a_wrong_config_names_the_field(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_config(changed(tmp_path, change))


def test_a_file_that_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.yaml: no such configuration"):
        load_config(tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: [unclosed")
    with pytest.raises(ConfigError, match=r"expected YAML"):
        load_config(broken)
    broken.write_text("- a\n- b\n")
    with pytest.raises(ConfigError, match=r"expected a mapping of sections, came list"):
        load_config(broken)


@pytest.mark.parametrize("model", [RetrainConfig, SynthesisConfig])
def test_the_form_explains_itself(model: type[RetrainConfig | SynthesisConfig]) -> None:
    """The Prefect UI draws its form from this schema: every field says what it is."""
    schema = model.model_json_schema()
    for name, definition in schema["$defs"].items():
        for field, properties in definition.get("properties", {}).items():
            assert "description" in properties, f"{name}.{field} has no description"


REAL = environment.home().parent / "shared" / "data"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside the checkout")
@pytest.mark.parametrize(
    ("name", "num_rows", "num_golden", "answer"),
    [
        ("banking77", 2000, 300, "card_arrival"),
        ("nlupp", 1500, 200, '{"intents": ["how_long", "pin", "arrival", "new"], "slots": {}}'),
    ],
)
def test_the_configs_for_real_data_read_it(
    name: str, num_rows: int, num_golden: int, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETUNE_DATA", str(REAL))
    config = load_config(CONFIGS / f"{name}.yaml")
    examples, bad = read_source(config.ingest.sources[0], config.task)
    assert (len(examples), bad) == (num_rows, [])
    assert examples[0].answer == answer
    assert form_findings(Rows(to_table(examples)), config.task, 10_000, None) == []
    assert len(read_golden(config.golden, config.task)) == num_golden
