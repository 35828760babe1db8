"""A replica on the real registry, real S3 and a real vLLM: promoted, refused, rolled back."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from mlflow.tracking import MlflowClient

from deployments import environment
from deployments.services import serve
from deployments.services.serve import Adapters, OutgrownError, serves
from tasks.artifacts import BaseModelRef, ParityReference
from tasks.base_model import BaseModelConfig, load_tokenizer, locate, pin, stop_ids
from tasks.errors import ConfigError
from tasks.format.probes import FILE, write_probes
from tasks.format.template import Template
from tasks.objects import open_store
from tasks.registry import versions
from tasks.registry.rollback import roll_back
from tasks.serve import parity
from tasks.serve.parity import Probe
from tasks.serve.reference import measured
from tasks.serve.routing import served_name
from tasks.serve.vllm_server import VllmServer
from tasks.storage import commit
from tests.base_models import SMOL
from tests.tasks.registry.makers import LINEAGE, decision
from tests.tasks.registry.makers import adapter as an_adapter
from tests.tasks.serve.adapters import random_adapter
from tests.vllm_server import StubVllm, running

READY_SECONDS = 400


class Models:
    """Makes versions of a model that can be served, and promotes them."""

    def __init__(self, name: str, base: BaseModelRef, folder: Path) -> None:
        self.name, self.base, self._folder = name, base, folder
        self._champion: str | None = None
        template = Template(load_tokenizer(base), stop_ids(base))
        write_probes([], [], template, 400, folder)
        lines = (folder / FILE).read_text("utf-8").splitlines()
        self._probes = [Probe.model_validate_json(line) for line in lines]

    def promote(self, seed: int, measured_on: int | None = None) -> str:
        """A version with an adapter of its own, and the likelihoods of it or of another one."""
        weights = self._weights(seed)
        found = measured(self._probes, self.base, self._weights(measured_on or seed), "float32")
        output = self._folder / f"parity-{seed}-{measured_on}"
        output.mkdir(exist_ok=True)
        (output / parity.FILE).write_text(parity.written(found), encoding="utf-8")
        store = open_store()
        uri, digest = commit(store, "train", weights)
        parity_uri, parity_digest = commit(store, "parity", output)
        name = self.digest(seed)
        made = an_adapter(name).model_copy(
            update={"uri": uri, "digest": digest, "base_model": self.base}
        )
        reference = ParityReference(
            uri=parity_uri, digest=parity_digest, adapter_digest=name, dtype="float32"
        )
        version = versions.promote(
            MlflowClient(), self.name, made, decision(name, self._champion), LINEAGE, reference
        )
        self._champion = name
        return version.version

    def digest(self, seed: int) -> str:
        return hashlib.sha256(f"{self.name} {seed}".encode()).hexdigest()

    def served(self, seed: int) -> str:
        return served_name(self.name, self.digest(seed))

    def back(self) -> str:
        done = roll_back(MlflowClient(), self.name, None, "ada", "worse", datetime.now(UTC))
        found = versions.find(MlflowClient(), self.name, "champion")
        assert found is not None
        self._champion = found.adapter_digest
        return done.champion

    def _weights(self, seed: int) -> Path:
        folder = self._folder / f"adapter-{seed}"
        return folder if folder.is_dir() else random_adapter(folder, self.base, seed)


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def tag(name: str, version: str) -> str:
    return str(MlflowClient().get_model_version(name, version).tags.get(serve.PARITY, ""))


def of_its_own(source: Path, folder: Path) -> BaseModelRef:
    """A base model of the test's own: a server holds the adapters of all models of its base."""
    shutil.copytree(source, folder)
    config = folder / "config.json"
    config.write_text(f"{config.read_text()}\n")
    return pin(BaseModelConfig(id=str(folder)))


@pytest.fixture
def base(tiny_model: Path, tmp_path: Path) -> BaseModelRef:
    return of_its_own(tiny_model, tmp_path / "base")


@pytest.mark.integration
def test_aliases_decide_what_a_server_holds(
    stack: Path, base: BaseModelRef, tmp_path: Path
) -> None:
    """With a server of a tiny model in vLLM's place."""
    models = Models("held-tickets", base, tmp_path)

    with running(StubVllm(base)) as stub:
        server = VllmServer(stub.url)
        adapters = Adapters(server, MlflowClient(), open_store(), base, "float32", 8, 0.0)
        models.promote(1)
        adapters.look()
        assert set(stub.loaded) == {models.served(1)}
        assert tag(models.name, "1").startswith("passed: 4 conversations have the trainer's tokens")

        models.promote(2, measured_on=1)  # what is served would not be what was measured
        adapters.look()
        loads = len(stub.log)
        adapters.look()
        assert len(stub.log) == loads, "refused for good, and tried again"
        assert "another adapter" in tag(models.name, "2")
        assert set(stub.loaded) == {models.served(1)}  # the one before goes on

        models.back()
        models.promote(3)
        adapters.look()
        assert set(stub.loaded) == {models.served(1), models.served(3)}
        models.promote(4)
        adapters.look()
        adapters.look()
        assert set(stub.loaded) == {models.served(3), models.served(4)}  # 1 is drained


@pytest.mark.integration
def test_a_refusal_that_may_pass_is_tried_again(
    stack: Path, base: BaseModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models("refused-tickets", base, tmp_path)
    models.promote(1)
    monkeypatch.setattr(serve, "_RETRY_SECONDS", 0.0)
    with running(StubVllm(base, "refuses")) as stub:
        adapters = Adapters(VllmServer(stub.url), MlflowClient(), open_store(), base, "float32", 8)
        adapters.look()
        assert tag(models.name, "1").startswith("not loaded: ")
        assert "max_lora_rank" in tag(models.name, "1")
        stub.fault = None
        adapters.look()
        assert models.served(1) in stub.loaded
        assert tag(models.name, "1").startswith("passed: ")


@pytest.mark.integration
def test_the_stacks_own_replica_says_why_it_serves_nothing(stack: Path) -> None:
    log = stack / "logs" / "serve.log"
    eventually(lambda: "nothing is served: RETUNE_SERVE is 0" in log.read_text())


@pytest.mark.integration
def test_an_adapter_without_room_asks_for_a_server_with_more(
    stack: Path, base: BaseModelRef, tmp_path: Path
) -> None:
    models = Models("larger-tickets", base, tmp_path)
    models.promote(1)
    with running(StubVllm(base)) as stub:
        adapters = Adapters(VllmServer(stub.url), MlflowClient(), open_store(), base, "float32", 4)
        with pytest.raises(OutgrownError, match="has rank 8") as raised:
            adapters.look()
    assert raised.value.rank == 8
    assert stub.loaded == {}


def test_whether_a_machine_serves_is_said_in_one_variable() -> None:
    assert serves({})
    assert serves({"RETUNE_SERVE": "1"})
    assert not serves({"RETUNE_SERVE": "0"})
    with pytest.raises(ConfigError, match="RETUNE_SERVE=yes"):
        serves({"RETUNE_SERVE": "yes"})


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_promoted_served_refused_and_rolled_back_with_a_real_server(
    stack: Path, tmp_path: Path
) -> None:
    """The stack's own gateway before a real vLLM, asked all the time."""
    base = of_its_own(locate(SMOL), tmp_path / "base")
    models = Models("served-for-real", base, tmp_path)
    environ = {**os.environ, "RETUNE_SERVE": "1", "RETUNE_SERVE_MODEL": models.name}
    command = [sys.executable, "-m", "deployments.services.serve"]
    log = (tmp_path / "serve.log").open("wb")
    replica = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    gateway = f"http://127.0.0.1:{environment.gateway_port()}"
    body = {
        "model": models.name,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4,
        "temperature": 0,
    }

    def ask() -> httpx.Response:
        return httpx.post(f"{gateway}/v1/chat/completions", json=body, timeout=60)

    def version() -> str:
        return str(ask().headers.get("x-model-version"))

    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            statuses.append(ask().status_code)

    loader = threading.Thread(target=load)
    try:
        models.promote(1)
        eventually(lambda: ask().status_code == 200, READY_SECONDS)
        assert version() == "1"
        loader.start()
        started = time.monotonic()
        models.promote(2)
        eventually(lambda: version() == "2", READY_SECONDS)
        print(f"promoted and answering after {time.monotonic() - started:.1f} s")
        models.promote(3, measured_on=2)
        eventually(lambda: tag(models.name, "3").startswith("failed: "), READY_SECONDS)
        assert version() == "2", "a version without parity was routed"
        started = time.monotonic()
        models.back()  # 3 goes; 2 answers all along
        models.back()
        eventually(lambda: version() == "1", READY_SECONDS)
        print(f"rolled back twice and answering after {time.monotonic() - started:.1f} s")
        stop.set()
        loader.join()
        assert set(statuses) == {200}
        assert len(statuses) > 10
    finally:
        stop.set()
        replica.send_signal(signal.SIGTERM)
        try:
            replica.wait(60)
        finally:
            if replica.poll() is None:
                os.killpg(replica.pid, signal.SIGKILL)
            log.close()
    assert replica.returncode == 0, (tmp_path / "serve.log").read_text()[-3000:]
