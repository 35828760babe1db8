"""A stack with a login, on PostgreSQL: nobody else gets in, and a run goes through."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments import credentials, environment, processes, stack
from tests import postgresql
from tests.conftest import free_port
from tests.flows.conftest import tiny_configs

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Hardened:
    """The stack's folder, its database server and its password."""

    folder: Path
    database: str
    password: str


@pytest.fixture(scope="module")
def hardened(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[], dict[str, str]]
) -> Iterator[Hardened]:
    if postgresql.binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("hardened")
    models = environment.models()
    with postgresql.running(free_port()) as database, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **free_ports(),
            "RETUNE_LOCAL": str(folder),
            "RETUNE_MODELS": str(models),
            "RETUNE_AUTH": "1",
            "RETUNE_POSTGRESQL": database,
        }.items():
            patch.setenv(name, value)
        for name in ("RETUNE_STORE", "RETUNE_DATA", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name, raising=False)
        try:
            stack.up()
            login = credentials.login(folder)
            assert login is not None
            yield Hardened(folder, database, login[1])
        finally:
            stack.down()


@pytest.mark.parametrize("login", [None, ("retune", "guessed"), ("admin", "password1234")])
def test_who_does_not_know_the_password_gets_nowhere(
    hardened: Hardened, login: tuple[str, str] | None
) -> None:
    at = environment.addresses()
    with httpx.Client(trust_env=False, timeout=30, auth=login) as client:
        prefect = client.post(f"{at['Prefect']}/api/flow_runs/filter", json={})
        assert prefect.status_code == 401
        mlflow = client.get(f"{at['MLflow']}/api/2.0/mlflow/experiments/search?max_results=1")
        assert mlflow.status_code == 401
        artifact = client.get(f"{at['MLflow']}/api/2.0/mlflow-artifacts/artifacts?path=.")
        assert artifact.status_code == 401


def test_a_run_goes_through_and_is_found_in_both(
    hardened: Hardened, tiny_model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(tiny_configs(tmp_path, tiny_model, "hardened", 7)().to_yaml())
    done = subprocess.run(
        [sys.executable, "-m", "deployments.start", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads((hardened.folder / "runs" / "latest" / "summary.json").read_text())
    assert summary["decision"] == "promoted"
    at, login = environment.addresses(), (credentials.USER, hardened.password)
    with httpx.Client(trust_env=False, timeout=30, auth=login) as client:
        run = client.get(f"{at['Prefect']}/api/flow_runs/{summary['flow_run_id']}")
        assert run.raise_for_status().json()["state"]["type"] == "COMPLETED"
        alias = {"name": "hardened", "alias": "champion"}
        version = client.get(f"{at['MLflow']}/api/2.0/mlflow/registered-models/alias", params=alias)
        found = version.raise_for_status().json()["model_version"]
    assert found["version"] == summary["model"]["version"]
    assert not list(hardened.folder.rglob("prefect.db*")), "Prefect is on SQLite"
    assert not list(hardened.folder.rglob("mlflow.db*")), "MLflow is on SQLite"
    assert summary["flow_run_id"] in postgresql.dump(hardened.database, "retune_prefect")
    assert summary["flow_run_id"] in postgresql.dump(hardened.database, "retune_mlflow")


def test_the_password_stands_in_its_file_alone(hardened: Hardened) -> None:
    """After the run: in no log, no cache, no page, no object and neither database."""
    await_put_away(hardened.folder)
    for secret in (hardened.password, database_password(hardened)):
        for name in ("retune_prefect", "retune_mlflow"):
            assert secret not in postgresql.dump(hardened.database, name)
        holders = [
            str(file.relative_to(hardened.folder))
            for file in hardened.folder.rglob("*")
            if file.is_file() and secret.encode() in file.read_bytes()
        ]
        assert holders == (["login.env"] if secret == hardened.password else [])
    assert credentials.login_file(hardened.folder).stat().st_mode & 0o777 == 0o600


def test_runs_are_not_told_the_password_of_the_database(hardened: Hardened) -> None:
    """Whatever a run starts inherits the worker's environment; the servers alone need it."""
    holders = [
        " ".join(member.cmdline())
        for member in processes.members(hardened.folder)
        if database_password(hardened) in " ".join(processes.variables(member).values())
    ]
    assert any("prefect server" in holder for holder in holders)
    assert not [holder for holder in holders if "prefect worker start --pool" in holder]


def test_a_killed_worker_leaves_no_password_behind(hardened: Hardened) -> None:
    """The worker holds a run's environment in a file for the time of the run."""
    left = hardened.folder / "tmp" / "prefect-workspace-attempt-left" / "workspace.json"
    left.parent.mkdir()
    left.write_text(hardened.password)
    stack.down()
    assert not left.parent.exists()
    stack.up()


def test_another_login_than_the_running_one_is_refused(
    hardened: Hardened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RETUNE_AUTH")
    assert stack.main(["up"]) == 1
    assert "runs with another RETUNE_AUTH" in capsys.readouterr().err


def database_password(hardened: Hardened) -> str:
    return hardened.database.split(":")[2].partition("@")[0]


def await_put_away(folder: Path) -> None:
    """The worker removes a run's environment some moments after the run has ended."""
    deadline = time.monotonic() + 60
    while list((folder / "tmp").glob("prefect-workspace-attempt-*")):
        assert time.monotonic() < deadline, "the worker left a run's environment behind"
        time.sleep(0.2)
