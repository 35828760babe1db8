"""Exports: each target's layout, the same bytes each time, and what would be served otherwise."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from peft import PeftModel

from tasks.artifacts import BaseModelRef, ModelVersion
from tasks.base_model import load_model
from tasks.objects import open_store
from tasks.serve.export import Exported, ExportError, export, main
from tasks.storage import commit
from tasks.train.adapters import save_full

ADAPTER = {"README.md", "adapter_config.json", "adapter_model.safetensors"}


@pytest.fixture
def artifact(adapter: Path, tmp_path: Path) -> Path:
    """As a training leaves it: the adapter, its card, and what is nobody else's business."""
    folder = tmp_path / "artifact"
    shutil.copytree(adapter, folder)
    (folder / "README.md").write_text("# tickets")
    (folder / "training.json").write_text("{}")
    (folder / "answers.parquet").write_bytes(b"rows")
    return folder


@pytest.fixture
def version(base: BaseModelRef) -> ModelVersion:
    return ModelVersion(
        name="tickets",
        version="3",
        alias=None,
        base_model=base,
        adapter_digest="d" * 64,
        adapter_uri="s3://retune/train/d",
        adapter_artifact_digest="d" * 64,
    )


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def exported(artifact: Path, version: ModelVersion, output: Path, to: Any, **more: Any) -> Exported:
    return export(artifact, output, to, version, lambda: "{{ messages }}", **more)


def change(artifact: Path, **settings: Any) -> None:
    file = artifact / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.mark.parametrize("to", ["vllm", "lorax", "huggingface"])
def test_an_adapter_is_what_was_trained_and_nothing_else(
    artifact: Path, version: ModelVersion, base: BaseModelRef, tmp_path: Path, to: str
) -> None:
    done = exported(artifact, version, tmp_path / "out", to)
    assert names(done.path) == ADAPTER
    assert str(done.path) in done.command
    before, after = (
        PeftModel.from_pretrained(load_model(base, torch.float32), str(folder))
        for folder in (artifact, done.path)
    )
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(before(input_ids=ids).logits, after(input_ids=ids).logits)


def test_vllm_is_told_how_much_room_the_largest_layer_needs(
    artifact: Path, version: ModelVersion, tmp_path: Path
) -> None:
    change(artifact, rank_pattern={"q_proj": 20})
    command = exported(artifact, version, tmp_path / "out", "vllm").command
    assert f"--max-lora-rank 32 --lora-modules tickets={tmp_path / 'out'}" in command


def test_together_gets_one_archive_with_the_files_at_its_root(
    artifact: Path, version: ModelVersion, tmp_path: Path
) -> None:
    done = [exported(artifact, version, tmp_path / name, "together").path for name in "ab"]
    assert names(tmp_path / "a") == {"tickets.tar.gz"}
    with tarfile.open(done[0]) as archive:
        assert set(archive.getnames()) == ADAPTER
        archive.extractall(tmp_path / "c", filter="data")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "c" / weights).read_bytes() == (artifact / weights).read_bytes()
    with tarfile.open(done[0]) as one, tarfile.open(done[1]) as other:
        assert [e.get_info() for e in one] == [e.get_info() for e in other]


def test_fireworks_gets_the_template_that_it_was_trained_with(
    artifact: Path, version: ModelVersion, tmp_path: Path
) -> None:
    done = exported(artifact, version, tmp_path / "out", "fireworks")
    assert names(done.path) == {*ADAPTER, "fireworks.json"}
    told = json.loads((done.path / "fireworks.json").read_text())
    assert told == {
        "conversation_config": {"style": "jinja", "args": {"template": "{{ messages }}"}}
    }


@pytest.mark.parametrize(
    ("to", "settings", "said"),
    [
        ("vllm", {"use_dora": True}, "is a DoRA adapter, which vllm does not serve"),
        ("lorax", {"modules_to_save": ["lm_head"]}, "whole layers beside the adapter"),
        ("fireworks", {"use_rslora": True}, "Fireworks ignores use_rslora"),
        ("fireworks", {"rank_pattern": {"q_proj": 4}}, "Fireworks ignores rank_pattern"),
        ("fireworks", {"r": 128}, "has rank 128; Fireworks takes 4 to 64"),
        ("fireworks", {"r": 2}, "has rank 2;"),
        ("fireworks", {"target_modules": ["q_proj", "lm_head"]}, "adapts lm_head, which"),
        ("fireworks", {"target_modules": "all-linear"}, "adapts all-linear, which"),
    ],
)
def test_what_a_target_would_serve_otherwise_is_refused(
    artifact: Path,
    version: ModelVersion,
    tmp_path: Path,
    to: str,
    settings: dict[str, Any],
    said: str,
) -> None:
    change(artifact, **settings)
    with pytest.raises(ExportError, match=f"tickets version 3.*{said}.*--merged"):
        exported(artifact, version, tmp_path / "out", to)
    assert not list(tmp_path.glob("*out*"))
    # A repository of the hub serves whatever PEFT does.
    if to != "fireworks":
        assert exported(artifact, version, tmp_path / "hub", "huggingface").path.is_dir()


def test_a_whole_model_is_the_one_that_the_training_merged(
    artifact: Path, version: ModelVersion, base: BaseModelRef, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=r"holds no merged model.*train\.merge: true"):
        exported(artifact, version, tmp_path / "out", "huggingface", merged=True)
    (artifact / "merged").mkdir()
    save_full(load_model(base, torch.float32), base, artifact / "merged")
    change(artifact, use_dora=True)
    for to in ("huggingface", "fireworks", "vllm"):
        done = exported(artifact, version, tmp_path / to, to, merged=True)
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names(
            done.path
        )
        assert "adapter_config.json" not in names(done.path)
    assert done.command == f"vllm serve {done.path} --served-model-name tickets"
    packed = exported(artifact, version, tmp_path / "together", "together", merged=True)
    with tarfile.open(packed.path) as archive:
        assert {"config.json", "model.safetensors"} <= set(archive.getnames())


def test_nothing_is_overwritten_and_nothing_half_done_is_left(
    artifact: Path, version: ModelVersion, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with pytest.raises(ExportError, match="out is there already"):
        exported(artifact, version, output, "vllm")
    (artifact / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        exported(artifact, version, tmp_path / "other", "vllm")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["artifact", "out"]


def test_the_command_takes_the_champion_or_a_named_version(
    artifact: Path,
    base: BaseModelRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    uri, digest = commit(open_store(), "train", artifact)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setattr("tasks.serve.export.MlflowClient", lambda: client)
    client.create_registered_model("tickets")
    tags = {
        "base_model": base.id,
        "base_digest": base.digest,
        "adapter_digest": "d" * 64,
        "adapter_uri": uri,
        "adapter_artifact_digest": digest,
    }
    client.create_model_version("tickets", source=uri, tags=tags)
    output = tmp_path / "out"
    assert main(["tickets", str(output), "--to", "fireworks"]) == 1
    assert "tickets: there is no champion" in capsys.readouterr().err
    assert main(["tickets", str(output), "--to", "fireworks", "--version", "1"]) == 0
    said = capsys.readouterr().out
    assert f"tickets version 1 is in {output}" in said
    assert "firectl create model tickets" in said
    template = json.loads((output / "fireworks.json").read_text())["conversation_config"]["args"]
    assert "message" in template["template"]
    client.set_registered_model_alias("tickets", "champion", "1")
    assert main(["tickets", str(tmp_path / "again"), "--to", "vllm"]) == 0
    assert names(tmp_path / "again") == ADAPTER
