"""A run that is killed at the worst moment of each stage, and what the next one finds."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
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

# Each attempt is a process of its own, forked from one that has imported all: to import is most of
# the time of so small a run. It dies when its stage's work is done and nobody was told: neither
# Prefect's result nor its state is written.
ATTEMPTS = """
import functools, gc, os, signal, sys

import peft, torch, transformers, trl
from mlflow.tracking import MlflowClient

from flows.config import RetrainConfig
from flows.retrain import retrain
from tasks.stage import Stage

config = RetrainConfig.model_validate_json(sys.argv[1])
record = Stage._record


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def dying(body):
    @functools.wraps(body)
    def work(*args, **kwargs):
        body(*args, **kwargs)
        die()

    # The stage's key holds the source of the file that its body is from.
    work.__code__ = work.__code__.replace(co_filename=body.__code__.co_filename)
    return work


def tell(self, state, subject, seconds):
    record(self, state, subject, seconds)
    print("stage", f"{self.name}-{subject}" if subject else self.name, state.name, flush=True)


def attempt(victim):
    Stage._record = tell
    if victim == "alias":
        MlflowClient.set_registered_model_alias = die
    for stage in [found for found in gc.get_objects() if isinstance(found, Stage)]:
        if stage.name == victim:
            stage.body = dying(stage.body)
    retrain(config)


for line in sys.stdin:
    if (child := os.fork()) == 0:
        attempt(line.strip())
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
# Looked at anew in each run.
ANEW = {"find_sources", "find_champion", "heed_withdrawals", "promote", "report"}
STAGES = ["ingest", "lock_golden", "clean", "format", "train", "generate", "evaluate", "gate"]


Attempt = Callable[[str], tuple[int, dict[str, str]]]


@contextlib.contextmanager
def attempts(config: RetrainConfig) -> Iterator[Attempt]:
    """Runs that are killed where told: the exit code, and the state of each call that ended."""
    process = subprocess.Popen(
        [sys.executable, "-c", ATTEMPTS, config.model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    given, told = process.stdin, process.stdout
    assert given is not None
    assert told is not None

    def attempt(victim: str) -> tuple[int, dict[str, str]]:
        given.write(f"{victim}\n")
        given.flush()
        states: dict[str, str] = {}
        for line in told:
            match line.split():
                case ["stage", name, state]:
                    states[name] = state
                case ["ended", code]:
                    return int(code), states
        raise AssertionError("the attempts themselves ended")

    try:
        yield attempt
    finally:
        process.kill()
        process.communicate()


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
    with attempts(config) as attempt:
        for victim in [*STAGES, "alias"]:
            code, states = attempt(victim)
            assert code == -signal.SIGKILL, f"{victim}: {code}"
            anew = {n for n in known & states.keys() if states[n] != "Cached"}
            assert anew == set(), f"killed in {victim}: what was done is done again"
            known |= states.keys() - ANEW
            assert half_made() == []
            with pytest.raises(MlflowException):
                champion(config.name)
        assert "train" in known
        code, states = attempt("report")
        assert code == -signal.SIGKILL
        assert champion(config.name).version == "1", "the model was registered anew"

    last = retrain(config)
    assert last.decision == "no_change"
    assert "Resumed from the checkpoint of step" in " ".join(last.training["notes"])
    assert len(MlflowClient().search_model_versions(f"name = '{config.name}'")) == 1
    assert set(store.keys_under("checkpoints/")) == before
