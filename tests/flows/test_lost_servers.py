"""Servers and workers killed under a run, and started again: the run, or the next one, goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from deployments import environment
from flows.config import RetrainConfig
from tasks.objects import open_store
from tasks.storage import MANIFEST
from tests.flows.conftest import tiny_configs
from tests.flows.test_resilience import finished, submit, summary_of, task_state, wait_for
from tests.flows.test_retrain import champion, states
from tests.services import Services, services

pytestmark = pytest.mark.integration

AWAY_SECONDS = 15
# A run is taken for dead after this time: the shortest that two heartbeats allow.
SILENT_MINUTES = 1
DONE = ("ingest", "clean", "format", "train")


@pytest.fixture(scope="module")
def servers(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[], dict[str, str]]
) -> Iterator[Services]:
    """S3, Prefect, MLflow and a worker, each a process that can be killed alone."""
    models, before = environment.models(), dict(os.environ)
    for name in ("RETUNE_STORE", "RETUNE_DATA", "RETUNE_AUTH", "RETUNE_POSTGRESQL"):
        os.environ.pop(name, None)
    os.environ |= {
        **free_ports(),
        "RETUNE_MODELS": str(models),
        "RETUNE_SILENT_MINUTES": str(SILENT_MINUTES),
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    }
    try:
        with services(tmp_path_factory.mktemp("servers"), "s3", "prefect", "mlflow") as running:
            running.start("worker")
            running.start("watch")
            at = {PREFECT_API_URL: os.environ["PREFECT_API_URL"]}
            with temporary_settings({**at, PREFECT_HOME: os.environ["PREFECT_HOME"]}):
                yield running
    finally:
        os.environ.clear()
        os.environ |= before


def config_of(folder: Path, model: Path, name: str, epochs: int = 40) -> RetrainConfig:
    train = {"epochs": epochs, "early_stopping_patience": 100}
    return tiny_configs(folder, model, name, sum(name.encode()))(train=train)


@pytest.mark.parametrize("server", ["s3", "prefect"])
def test_a_server_killed_in_training_is_waited_for(
    servers: Services, server: str, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, tiny_model, f"lost-{server}", epochs=20)
    run = submit(config)
    wait_for(run.id, lambda _: task_state(run.id, "train") == "Running", 180)
    servers.kill(server)
    time.sleep(AWAY_SECONDS)
    servers.start(server)
    servers.wait(server)
    ended = wait_for(run.id, finished, 240)
    assert ended.state is not None
    assert ended.state.name == "Completed"
    first = summary_of(run.id, servers.folder)
    assert first.decision == "promoted"
    again = submit(config)
    wait_for(again.id, finished, 120)
    second = summary_of(again.id, servers.folder)
    assert second.decision == "no_change"
    assert {states(second)[name] for name in DONE} == {"cached"}


def test_a_worker_lost_with_its_run(servers: Services, tiny_model: Path, tmp_path: Path) -> None:
    """Nobody is left to say so: the run is found dead, and gives up its place in the queue."""
    config = config_of(tmp_path, tiny_model, "lost-worker")
    store = open_store()
    before = set(store.keys_under("checkpoints/"))
    run = submit(config)
    wait_for(
        run.id,
        lambda _: any(
            key.endswith(f"/{MANIFEST}") for key in set(store.keys_under("checkpoints/")) - before
        ),
        180,
    )
    assert task_state(run.id, "train") == "Running"
    servers.kill("worker")
    servers.start("worker")
    next_run = submit(config)
    dead = wait_for(run.id, finished, 60 * SILENT_MINUTES + 120)
    assert dead.state is not None
    assert dead.state.name == "Crashed"
    wait_for(next_run.id, finished, 240)
    summary = summary_of(next_run.id, servers.folder)
    assert summary.decision == "promoted"
    assert {states(summary)[name] for name in DONE[:3]} == {"cached"}
    assert "Resumed from the checkpoint of step" in " ".join(summary.training["notes"])
    assert champion(config.name).tags["flow_run_id"] == str(next_run.id)


# Stops where the version is registered and its alias is not set, until told to go on.
PROMOTION = """
import pathlib, sys, time

from mlflow.tracking import MlflowClient

from flows.config import RetrainConfig
from flows.retrain import retrain

here, away = map(pathlib.Path, sys.argv[2:])
alias = MlflowClient.set_registered_model_alias


def waiting(*given):
    here.touch()
    while not away.exists():
        time.sleep(0.1)
    alias(*given)


MlflowClient.set_registered_model_alias = waiting
print(retrain(RetrainConfig.model_validate_json(sys.argv[1])).decision)
"""


def test_mlflow_killed_between_registering_and_naming_the_champion(
    servers: Services, tiny_model: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path, tiny_model, "lost-mlflow", epochs=8)
    here, away = tmp_path / "here", tmp_path / "away"
    arguments = [sys.executable, "-c", PROMOTION, config.model_dump_json(), str(here), str(away)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        while not here.exists():
            assert process.poll() is None, "the run ended before it promoted"
            time.sleep(0.1)
        servers.kill("mlflow")
        away.touch()
        time.sleep(AWAY_SECONDS)
        servers.start("mlflow")
        said, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    assert said.splitlines()[-1] == "promoted"
    versions = MlflowClient().search_model_versions(f"name = '{config.name}'")
    assert [version.version for version in versions] == ["1"]
    assert champion(config.name).version == "1"
