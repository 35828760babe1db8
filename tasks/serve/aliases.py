"""Who is champion and challenger of every model, asked of the registry; and what was last known.

A gateway goes on with what it last knew while the registry is away, and starts with it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient
from pydantic import TypeAdapter, ValidationError

from tasks.serve.routing import Route, Routes, Version, served_name
from tasks.trial import MODE, SHARE

logger = logging.getLogger(__name__)
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
# Tag of a version: what its last check for parity said, and how that begins where it was not shown.
PARITY, PARITY_FAILED = "parity", "failed"
_ROUTES: TypeAdapter[dict[str, Route]] = TypeAdapter(dict[str, Route])


class Registry:
    """Reads aliases; what a version holds never changes, and is asked for once."""

    def __init__(self, client: MlflowClient, share: float) -> None:
        self._client, self._share = client, share
        # A model of the same name may be made anew; its versions then begin at 1 again.
        self._versions: dict[tuple[str, int, str], Version] = {}

    def routes(self) -> dict[str, Route]:
        """The route of every model that has a champion. Raises what MLflow's client raises."""
        return {
            model.name: self._route(model)
            for model in models(self._client)
            if CHAMPION in model.aliases
        }

    def _route(self, model: Any) -> Route:
        version = {
            alias: self._version(model, str(model.aliases[alias]))
            for alias in (CHAMPION, CHALLENGER, PREVIOUS)
            if alias in model.aliases
        }
        return Route(
            champion=version[CHAMPION],
            challenger=version.get(CHALLENGER),
            previous=version.get(PREVIOUS),
            share=_share(model.name, model.tags, self._share),
            shadow=model.tags.get(MODE) == "shadow",
        )

    def _version(self, model: Any, version: str) -> Version:
        key = (model.name, model.creation_timestamp, version)
        if key not in self._versions:
            tags = self._client.get_model_version(model.name, version).tags
            served = served_name(model.name, tags["adapter_digest"])
            self._versions[key] = Version(version=version, served=served)
        return self._versions[key]


def models(client: MlflowClient) -> Iterator[Any]:
    """Every registered model; the registry answers with some at a time."""
    token = None
    while True:
        page = client.search_registered_models(page_token=token)
        yield from page
        if not (token := page.token):
            return


def _share(name: str, tags: Mapping[str, str], default: float) -> float:
    """A tag is written by hand too: what is no share is not taken for one."""
    text = tags.get(SHARE)
    if text is None:
        return default
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        logger.warning("%s: tag %s=%r is no share from 0 to 1: 0 is taken", name, SHARE, text)
        return 0.0
    return share


def keep(file: Path, routes: Routes) -> None:
    """Write what is known, whole or not at all."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(_ROUTES.dump_json(dict(routes)))
    temporary.replace(file)


def kept(file: Path) -> dict[str, Route]:
    """What was last known; nothing where there is no such file, or another's."""
    try:
        return _ROUTES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError:
        logger.warning("%s holds no routes: the registry is asked first", file)
        return {}
