"""Settings laid over others: a config over the one it extends, a sweep's variant over its base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import ConfigError, MissingFileError


def overridden(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` in their place: key by key in mappings, anything else whole."""
    result = dict(values)
    for key, change in changes.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(change, Mapping)
        result[key] = overridden(old, change) if both else change  # type: ignore[arg-type]
    return result


def read_sections(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, laid over those of the file that it ``extends``, if any.

    ``extends`` is a path from the file's own folder. Mappings are laid over each other key by key;
    a list or any other value takes the place of the one it overrides. Raises MissingFileError when
    there is no such file, ConfigError when one cannot be read, is no mapping or extends itself.
    """
    return _read(path, ())


def _read(path: Path, before: tuple[Path, ...]) -> dict[str, Any]:
    by = f", which {before[-1]} extends" if before else ""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{path}{by}: no such configuration. Give CONFIG=<file>.yaml."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}{by}: cannot be read: {error}") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: expected YAML, came {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, came {type(values).__name__}.")
    extended = values.pop("extends", None)
    if extended is None:
        return values
    if not isinstance(extended, str):
        raise ConfigError(f"{path}: extends: expected the path of a file, came {extended!r}.")
    chain = (*before, path.resolve())
    parent = (path.resolve().parent / extended).resolve()
    if parent in chain:
        raise ConfigError(f"{path}: extends: {extended} extends this file in turn.")
    return overridden(_read(parent, chain), values)
