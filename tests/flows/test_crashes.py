"""A run that is killed at the worst moment of each stage, and what the next one finds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.config import RetrainConfig
from flows.retrain import retrain
from tasks.objects import open_store
from tasks.storage import MANIFEST
from tests.flows.conftest import Tiny
from tests.flows.test_retrain import champion

pytestmark = pytest.mark.integration

# The work is done, and nobody was told: neither Prefect's result nor its state is written yet.
RUN = """
import functools, os, signal, sys
from tasks.stage import Stage

victim, config = sys.argv[1:]
make, record = Stage.__init__, Stage._record


def dying(body):
    @functools.wraps(body)
    def die(*args, **kwargs):
        body(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    # The stage's key holds the source of the file that its body is from.
    die.__code__ = die.__code__.replace(co_filename=body.__code__.co_filename)
    return die


def init(self, body, name, *rest):
    make(self, dying(body) if name == victim else body, name, *rest)


def tell(self, state, subject, seconds):
    record(self, state, subject, seconds)
    print("stage", f"{self.name}-{subject}" if subject else self.name, state.name, flush=True)


Stage.__init__, Stage._record = init, tell
from mlflow.tracking import MlflowClient

if victim == "alias":
    MlflowClient.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from flows.config import RetrainConfig
from flows.retrain import retrain

retrain(RetrainConfig.model_validate_json(config))
"""
# Looked at anew in each run.
ANEW = {"find_sources", "find_champion", "promote", "report"}
STAGES = ["ingest", "lock_golden", "clean", "format", "train", "generate", "evaluate", "gate"]


def attempt(config: RetrainConfig, victim: str) -> tuple[int, dict[str, str]]:
    """Run, and be killed where told; the exit code, and the state of each call that ended."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, victim, config.model_dump_json()],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=300,
    )
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("stage ")]
    return done.returncode, {name: state for _, name, state in lines}


def half_made() -> list[str]:
    """Artifacts that a reader would take for whole, and are not."""
    store = open_store()
    found = []
    for key in store.keys_under(""):
        folder, _, name = key.rpartition("/")
        if name == MANIFEST:
            files = json.loads(store.get_bytes(key))["files"]
            found += [
                f"{folder}/{f['path']}" for f in files if not store.size(f"{folder}/{f['path']}")
            ]
    return found


def test_killed_after_the_work_of_each_stage_in_turn(tiny: Tiny, stack: Path) -> None:
    config = tiny()
    store = open_store()
    before = set(store.keys_under("checkpoints/"))
    known: set[str] = set()
    for victim in [*STAGES, "alias"]:
        code, states = attempt(config, victim)
        assert code == -signal.SIGKILL, f"{victim}: {code}"
        anew = {n for n in known & states.keys() if states[n] != "Cached"}
        assert anew == set(), f"killed in {victim}: what was done is done again"
        known |= states.keys() - ANEW
        assert half_made() == []
        with pytest.raises(MlflowException):
            champion(config.name)
    assert "train" in known
    code, states = attempt(config, "report")
    assert code == -signal.SIGKILL
    assert champion(config.name).version == "1", "the model was registered anew"

    last = retrain(config)
    assert last.decision == "no_change"
    assert "Resumed from the checkpoint of step" in " ".join(last.training["notes"])
    assert len(MlflowClient().search_model_versions(f"name = '{config.name}'")) == 1
    assert set(store.keys_under("checkpoints/")) == before
