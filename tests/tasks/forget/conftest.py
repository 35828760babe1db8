"""A store with a customer in it, and a registry on SQLite with models trained on her rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.forgetting import Build, World, build_world


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    return MlflowClient(uri, uri)


@pytest.fixture
def build(request: pytest.FixtureRequest) -> Build:
    """Makes such a store under a folder; its rows are the test's own."""
    return lambda folder: build_world(folder, request.node.name)


@pytest.fixture
def world(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    return build(tmp_path / "world")


@pytest.fixture
def versions(client: MlflowClient, world: World) -> Iterator[dict[str, Any]]:
    """Three versions: the first and champion trained on Anna, the second not, the third on what?"""
    client.create_registered_model(world.name)
    made = {}
    for name, data, dataset in (
        ("old", world.digests["clean"], world.digests["format"]),
        ("new", world.digests["clean without"], "none"),
        ("lost", "f" * 64, "none"),
    ):
        tags = {"data_digest": dataset, "adapter_uri": f"s3://adapters/{name}"}
        run = client.create_run("0", tags=tags)
        made[name] = client.create_model_version(
            world.name, "s3://x", run.info.run_id, tags={"data_digest": data}
        )
    client.set_registered_model_alias(world.name, "champion", made["old"].version)
    yield made
    client.delete_registered_model(world.name)
