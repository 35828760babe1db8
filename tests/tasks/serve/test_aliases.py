"""What the registry says of who answers, on MLflow's own client; and what is kept of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from tasks.serve import aliases
from tasks.serve.aliases import Registry, keep, kept
from tasks.serve.routing import Route, Version


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def register(client: MlflowClient, name: str, *digests: str) -> None:
    client.create_registered_model(name)
    for digest in digests:
        client.create_model_version(name, source="s3://x", tags={"adapter_digest": digest})


def test_routes_follow_the_aliases_and_tags(
    client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    register(client, "tickets", "a" * 64, "b" * 64)
    register(client, "unused", "c" * 64)
    registry = Registry(client, 0.1)
    assert registry.routes() == {}

    one = Version(version="1", served=f"tickets@{'a' * 12}")
    two = Version(version="2", served=f"tickets@{'b' * 12}")
    client.set_registered_model_alias("tickets", "champion", "1")
    assert registry.routes() == {"tickets": Route(champion=one, share=0.1)}
    client.set_registered_model_alias("tickets", "challenger", "2")
    client.set_registered_model_tag("tickets", aliases.SHARE, "0.25")
    client.set_registered_model_tag("tickets", aliases.MODE, "shadow")
    expected = Route(champion=one, challenger=two, share=0.25, shadow=True)
    assert registry.routes() == {"tickets": expected}
    for text in ("much", "1.5", "nan"):
        client.set_registered_model_tag("tickets", aliases.SHARE, text)
        assert registry.routes()["tickets"].share == 0
        assert repr(text) in caplog.text

    # The same name made anew: its version 1 is another.
    client.delete_registered_model("tickets")
    register(client, "tickets", "d" * 64)
    client.set_registered_model_alias("tickets", "champion", "1")
    assert registry.routes()["tickets"].champion.served == f"tickets@{'d' * 12}"


def test_what_was_known_is_kept_on_disk(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    assert kept(file) == {}
    routes = {"tickets": Route(champion=Version(version="1", served="tickets@a"), share=0.1)}
    keep(file, routes)
    assert kept(file) == routes
    assert [path.name for path in tmp_path.iterdir()] == ["routes.json"]
    file.write_text("{")
    assert kept(file) == {}
