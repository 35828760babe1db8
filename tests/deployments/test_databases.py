"""Prefect's and MLflow's databases: SQLite, or on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deployments import backup, databases
from tasks.errors import ConfigError, StorageError
from tests import postgresql
from tests.conftest import free_port

DATABASES = {"retune_prefect", "retune_mlflow"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    if postgresql.binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgresql.running(free_port()) as url:
        yield url


def ask(url: str, query: str) -> list[Any]:
    async def asked() -> list[Any]:
        connection = await asyncpg.connect(f"{url}/postgres")
        try:
            return [row[0] for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(asked())


def test_sqlite_lies_in_the_stack_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETUNE_POSTGRESQL", raising=False)
    found = databases.environment(tmp_path)
    assert found["PREFECT_API_DATABASE_CONNECTION_URL"].startswith("sqlite+aiosqlite:///")
    assert str(tmp_path) in found["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert found["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    databases.prepare()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mysql://me:hidden-word@host", "expected postgresql://"),
        ("postgresql:///hidden-word", "expected postgresql://"),
        ("postgresql://me:hidden-word@host/mine", "after the host host: expected the server"),
        ("postgresql://me:hidden-word@host?ssl=1", "after the host host: expected the server"),
    ],
)
def test_what_is_no_server_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    monkeypatch.setenv("RETUNE_POSTGRESQL", given)
    with pytest.raises(ConfigError, match="RETUNE_POSTGRESQL") as refused:
        databases.server()
    assert message in str(refused.value)
    assert "hidden-word" not in str(refused.value)


def test_the_databases_are_made_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_POSTGRESQL", address)
    databases.prepare()
    first = ask(address, "SELECT oid FROM pg_database WHERE datname LIKE 'retune_%' ORDER BY 1")
    databases.prepare()
    assert ask(address, "SELECT oid FROM pg_database WHERE datname LIKE 'retune_%' ORDER BY 1") == (
        first
    )
    assert set(ask(address, "SELECT datname FROM pg_database")) >= DATABASES


def test_a_wrong_password_and_a_user_who_may_make_nothing_are_named(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = address.rpartition("@")[2]
    monkeypatch.setenv("RETUNE_POSTGRESQL", f"postgresql://retune:hidden-word@{host}")
    with pytest.raises(ConfigError, match=f"{host} refuses the user and password") as refused:
        databases.prepare()
    assert "hidden-word" not in str(refused.value)
    for name in DATABASES:
        ask(address, f"DROP DATABASE IF EXISTS {name}")
    ask(address, "CREATE ROLE guest LOGIN PASSWORD 'guest'")
    monkeypatch.setenv("RETUNE_POSTGRESQL", f"postgresql://guest:guest@{host}")
    with pytest.raises(ConfigError, match=r"make retune_prefect for it, or give it CREATEDB"):
        databases.prepare()


def test_a_server_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("RETUNE_POSTGRESQL", f"postgresql://me:hidden-word@127.0.0.1:{port}")
    with pytest.raises(StorageError, match=f"127.0.0.1:{port} does not answer") as away:
        databases.prepare()
    assert "hidden-word" not in str(away.value)


def test_half_a_backup_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    monkeypatch.setenv("RETUNE_POSTGRESQL", "postgresql://me:hidden-word@127.0.0.1:5432")
    for command in ("save", "restore"):
        assert backup.main([command, str(tmp_path / "backup.tar")]) == 1
        told = capsys.readouterr().err
        assert "pg_dump" in told
        assert "hidden-word" not in told
    assert not (tmp_path / "backup.tar").exists()
