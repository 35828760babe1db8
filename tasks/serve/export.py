"""A version of a model as a folder that another server or provider takes, in the layout it asks.

    python -m tasks.serve.export MODEL FOLDER --to TARGET [--version N] [--merged]

    vllm          https://docs.vllm.ai/en/latest/features/lora.html
    lorax         https://loraexchange.ai/models/adapters/
    huggingface   https://huggingface.co/docs/inference-endpoints (a repository of the hub's form)
    together      https://docs.together.ai/docs/dedicated-endpoints/adapter
    fireworks     https://fireworks.ai/docs/fine-tuning/fine-tuned-import

Exports the champion unless a version is named; with --merged the whole model that the training kept
(``train.merge``). What a target would ignore, and so answer otherwise, is refused. Nothing is sent.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from tasks.artifacts import ModelVersion
from tasks.base_model import load_tokenizer
from tasks.errors import RegistryError, RetuneError
from tasks.objects import open_store
from tasks.serve.aliases import CHAMPION
from tasks.storage import fetch

Target = Literal["vllm", "lorax", "huggingface", "together", "fireworks"]
_ADAPTER, _WEIGHTS, _CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
_MERGED = "merged"
# What Fireworks reads of an adapter; "additional fields may be specified but are ignored".
_FIREWORKS_MODULES = frozenset(
    {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"}
)
_FIREWORKS_RANKS = range(4, 65)


class ExportError(RetuneError):
    """A version that a target cannot serve as it was evaluated."""


class Exported(NamedTuple):
    """Where the export lies, and how its target is told of it."""

    path: Path
    command: str


def export(
    folder: Path,
    output: Path,
    to: Target,
    version: ModelVersion,
    template: Callable[[], str],
    *,
    merged: bool = False,
) -> Exported:
    """Write an adapter, or the whole model with ``merged``, of ``folder`` for a target.

    ``template`` answers the chat template that it was trained with. Whole or not at all, and the
    same files each time. Raises ExportError for what the target cannot serve, or where ``output``
    is there already.
    """
    source = _whole(folder, version) if merged or not _is_adapter(folder) else folder
    settings = _settings(source)
    if settings is not None:
        _check(to, settings, version)
    if output.exists():
        raise ExportError(f"{output} is there already: name another folder, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=".export-"))
    try:
        _copy(source, folder / _CARD, scratch)
        if to == "fireworks" and settings is not None:
            arguments = {"style": "jinja", "args": {"template": template()}}
            _write(scratch / "fireworks.json", {"conversation_config": arguments})
        if to == "together":
            _pack(scratch, scratch / f"{version.name}.tar.gz")
        scratch.chmod(0o755)
        scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    path = output / f"{version.name}.tar.gz" if to == "together" else output
    return Exported(path, _command(to, path, version, settings))


def _is_adapter(folder: Path) -> bool:
    return (folder / _ADAPTER).is_file()


def _settings(folder: Path) -> dict[str, Any] | None:
    """PEFT's settings of an adapter; None of a whole model."""
    if not _is_adapter(folder):
        return None
    found: dict[str, Any] = json.loads((folder / _ADAPTER).read_text("utf-8"))
    return found


def _whole(folder: Path, version: ModelVersion) -> Path:
    """The folder of a whole model."""
    for found in (folder / _MERGED, folder):
        if (found / "config.json").is_file() and list(found.glob("*.safetensors")):
            return found
    raise ExportError(
        f"{version.name} version {version.version} holds no merged model. Train it with "
        "train.merge: true, which checks that it answers as the adapter does, or export the "
        "adapter."
    )


def _check(to: Target, settings: dict[str, Any], version: ModelVersion) -> None:
    what = f"{version.name} version {version.version}"
    hint = "Export it with --merged."
    if settings.get("use_dora") and to != "huggingface":
        raise ExportError(f"{what} is a DoRA adapter, which {to} does not serve. {hint}")
    if settings.get("modules_to_save") and to != "huggingface":
        raise ExportError(f"{what} has whole layers beside the adapter, which {to} drops. {hint}")
    if to != "fireworks":
        return
    ignored = [
        name for name in ("use_rslora", "rank_pattern", "alpha_pattern") if settings.get(name)
    ]
    if ignored:
        raise ExportError(f"{what}: Fireworks ignores {', '.join(ignored)}. {hint}")
    rank = int(settings["r"])
    if rank not in _FIREWORKS_RANKS:
        raise ExportError(f"{what} has rank {rank}; Fireworks takes 4 to 64. {hint}")
    modules = settings["target_modules"]
    other = sorted(set(modules) - _FIREWORKS_MODULES) if isinstance(modules, list) else [modules]
    if other:
        raise ExportError(f"{what} adapts {', '.join(other)}, which Fireworks does not. {hint}")


def _copy(source: Path, card: Path, target: Path) -> None:
    """What serves, and the card; not the logs of the training, nor the table of its rows."""
    if _is_adapter(source):
        names = [_ADAPTER, _WEIGHTS]
    else:
        names = [f.name for f in source.iterdir() if f.is_file() and f.name != _CARD]
    for name in sorted(names):
        shutil.copyfile(source / name, target / name)
    own = source / _CARD
    shutil.copyfile(own if own.is_file() else card, target / _CARD)


def _pack(folder: Path, archive: Path) -> None:
    """One archive with the files at its root, and without times or owners: the same bytes."""

    def bare(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        return entry

    files = sorted(file for file in folder.iterdir() if file != archive)
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        for file in files:
            packed.add(file, file.name, filter=bare)
    for file in files:
        file.unlink()


def _write(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False), "utf-8")


def _command(to: Target, path: Path, version: ModelVersion, settings: dict[str, Any] | None) -> str:
    """What to type, or to send, next."""
    base, name = version.base_model.id, version.name
    if settings is None:
        return {
            "vllm": f"vllm serve {path} --served-model-name {name}",
            "lorax": f"lorax-launcher --model-id {path}",
            "huggingface": f"hf upload YOURS/{name} {path}",
            "together": f"together models upload --model-name {name} --model-source URL",
            "fireworks": f"firectl create model {name} {path}",
        }[to]
    adapter = f"together models upload --model-name {name} --model-source URL --model-type adapter"
    return {
        "vllm": f"vllm serve {base} --enable-lora --max-lora-rank {_room(settings)} "
        f"--lora-modules {name}={path}",
        "lorax": f'lorax-launcher --model-id {base}, and requests with "adapter_id": "{path}", '
        '"adapter_source": "local"',
        "huggingface": f"hf upload YOURS/{name} {path}",
        "together": f"{adapter} --base-model {base} (URL: a presigned one of the archive)",
        "fireworks": f"firectl create model {name} {path} "
        "--base-model accounts/fireworks/models/THEIR-NAME-OF-THE-BASE",
    }[to]


def _room(settings: dict[str, Any]) -> int:
    """The least of the ranks that vLLM knows into which all layers fit."""
    rank = max([int(settings["r"]), *map(int, (settings.get("rank_pattern") or {}).values())])
    return next((room for room in (8, 16, 32, 64, 128, 256, 320, 512) if room >= rank), rank)


def _version(client: MlflowClient, name: str, version: str | None) -> ModelVersion:
    try:
        found = (
            client.get_model_version_by_alias(name, CHAMPION)
            if version is None
            else client.get_model_version(name, version)
        )
    except MlflowException as error:
        which = f"version {version}" if version else "champion"
        raise RegistryError(f"{name}: there is no {which}: {error.message}") from error
    return ModelVersion.of(name, str(found.version), None, found.tags)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tasks.serve.export")
    parser.add_argument("model", help="the model's name in the registry")
    parser.add_argument("folder", type=Path, help="where to write it; must not be there yet")
    targets = ("vllm", "lorax", "huggingface", "together", "fireworks")
    parser.add_argument("--to", choices=targets, required=True)
    parser.add_argument("--version", help="a version; by default the champion")
    parser.add_argument("--merged", action="store_true", help="the whole model, not the adapter")
    given = parser.parse_args(arguments)
    try:
        version = _version(MlflowClient(), given.model, given.version)
        folder = fetch(open_store(), version.adapter_uri, version.adapter_artifact_digest)
        done = export(
            folder,
            given.folder.absolute(),
            given.to,
            version,
            lambda: str(load_tokenizer(version.base_model).chat_template),
            merged=given.merged,
        )
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{version.name} version {version.version} is in {done.path}\n  {done.command}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
