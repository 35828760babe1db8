"""A secret of the environment stands nowhere that a run leaves something behind."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.retrain import retrain
from tasks.objects import open_store
from tests import postgresql
from tests.conftest import WEBHOOK_SECRET
from tests.flows.conftest import Tiny
from tests.messages_api import StubApi, error

pytestmark = pytest.mark.integration

PLANTED = "planted-key-of-the-judge"


def in_storage() -> Iterator[tuple[str, bytes]]:
    """Every object as text: S3 keeps some of them compressed, and so does Parquet."""
    store = open_store()
    for key in store.keys_under(""):
        body = store.get_bytes(key)
        if key.endswith(".parquet"):
            body = str(pq.read_table(pa.BufferReader(body)).to_pylist()).encode()
        yield key, body


def on_disk(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Logs, databases, results, caches and reports."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "credentials.env":
            yield str(path.relative_to(folder)), path.read_bytes()


def in_databases() -> Iterator[tuple[str, bytes]]:
    """On SQLite they are among the files."""
    if server := os.environ.get("RETUNE_POSTGRESQL"):
        for name in ("retune_prefect", "retune_mlflow"):
            yield name, postgresql.dump(server, name).encode()


def test_no_secret_stands_in_a_log_an_artifact_a_result_or_a_database(
    tiny: Tiny, stack: Path, api: StubApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", PLANTED)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", api.url)
    api.answer = lambda _: error(401, f"no such key: {PLANTED}")  # some servers repeat it
    judged = tiny(evaluate={"judge": {"max_retries": 0}})
    with contextlib.suppress(Exception):  # however it ends, nothing may stand anywhere
        retrain(judged)
    assert api.requests
    secrets = {
        "the judge's key": PLANTED.encode(),
        "the S3 key": os.environ["AWS_SECRET_ACCESS_KEY"].encode(),
        "the webhook's secret": WEBHOOK_SECRET.encode(),
    }
    looked = 0
    found = []
    for place, body in [*in_storage(), *on_disk(stack), *in_databases()]:
        looked += 1
        found += [f"{name} in {place}" for name, secret in secrets.items() if secret in body]
    assert looked > 50
    assert found == []
