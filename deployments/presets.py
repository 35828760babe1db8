"""Presets of the form in the Prefect UI: what to start from, other than the weekly config.

In: the YAML files of the folder that RETUNE_PRESETS names, by default
``deployments/configs/presets``. Each holds what it changes, laid over the weekly config; it may
``extend`` another preset. Out: for each ``NAME.yaml`` what the deployment ``retrain-NAME`` starts
from; the comment at its top is the description.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from deployments import environment
from flows.config import RetrainConfig, validated
from tasks.errors import ConfigError
from tasks.overrides import overridden, read_sections

TAG = "preset"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_TAKEN = ("weekly", "manual", "on-data")


@dataclass(frozen=True)
class Preset:
    """A deployment's name, description and config."""

    name: str
    description: str
    config: RetrainConfig


def presets(weekly: Path) -> list[Preset]:
    """The presets over a weekly config, by name.

    Raises ConfigError where the folder or a file cannot be read, where a file's name is none of a
    deployment, and where what comes out is no valid config.
    """
    return [_preset(file, weekly) for file in sorted(_folder().glob("*.yaml"))]


def _folder() -> Path:
    named = os.environ.get("RETUNE_PRESETS")
    folder = Path(named or environment.home() / "deployments" / "configs" / "presets")
    if not folder.is_dir():
        raise ConfigError(f"RETUNE_PRESETS={named}: expected a folder of YAML files.")
    return folder


def _preset(file: Path, weekly: Path) -> Preset:
    if not _NAME.fullmatch(file.stem) or file.stem in _TAKEN:
        raise ConfigError(
            f"{file}: expected a name of lower case, digits and dashes that is none of "
            f"{', '.join(_TAKEN)}: the deployment will be retrain-{file.stem}. Rename the file."
        )
    sections = overridden(read_sections(weekly), read_sections(file))
    return Preset(
        f"retrain-{file.stem}", _comment(file), validated(sections, RetrainConfig, str(file))
    )


def _comment(file: Path) -> str:
    """The lines of comment at the top, without their marks."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines) or f"The preset of {file.name}."
