"""A server that is not what was evaluated is caught, in each of the ways in which it can be."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments import environment, vllm
from tasks.artifacts import BaseModelRef, ModelVersion
from tasks.base_model import BaseModelConfig, load_tokenizer, pin, stop_ids
from tasks.example import Example, Message
from tasks.format.probes import FILE, write_probes
from tasks.format.template import Template
from tasks.objects import LocalStore
from tasks.serve import parity
from tasks.serve.activation import CHECKING, activate, name_of, superfluous
from tasks.serve.parity import ParityError, Probe, check
from tasks.serve.reference import measured
from tasks.serve.vllm_server import ServerError, VllmServer
from tasks.storage import commit
from tests.base_models import SMOL
from tests.tasks.serve.adapters import random_adapter
from tests.vllm_server import Fault, StubVllm, running

READY_SECONDS = 300


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    monkeypatch.setenv("RETUNE_MODELS", str(environment.models()))
    monkeypatch.setenv("RETUNE_LOCAL", str(tmp_path / "local"))
    return LocalStore(tmp_path / "store")


@pytest.fixture
def version(
    store: LocalStore, base: BaseModelRef, adapter: Path, probes: list[Probe], tmp_path: Path
) -> ModelVersion:
    """As the registry knows it after a promotion."""
    return registered(store, base, adapter, probes, tmp_path)


def registered(
    store: LocalStore, base: BaseModelRef, adapter: Path, probes: list[Probe], tmp_path: Path
) -> ModelVersion:
    folder = tmp_path / "parity"
    folder.mkdir()
    (folder / parity.FILE).write_text(parity.written(probes), encoding="utf-8")
    parity_uri, parity_digest = commit(store, "parity", folder)
    adapter_uri, artifact_digest = commit(store, "train", adapter)
    return ModelVersion(
        name="tickets",
        version="1",
        alias="champion",
        base_model=base,
        adapter_digest="a" * 64,
        adapter_uri=adapter_uri,
        adapter_artifact_digest=artifact_digest,
        parity_uri=parity_uri,
        parity_digest=parity_digest,
    )


def test_the_probes_hold_what_goes_wrong_elsewhere(probes: list[Probe]) -> None:
    names = [probe.name for probe in probes]
    assert names[:4] == ["system turn", "several turns", "unicode", "whitespace"]
    assert names[4].startswith("row 000000")
    assert all(len(p.log_probs) == len(p.answer_ids) == len(p.base_log_probs) for p in probes)
    assert [turn["role"] for turn in probes[1].turns] == ["user", "assistant", "user"]


def test_what_was_evaluated_is_activated(
    store: LocalStore, version: ModelVersion, base: BaseModelRef
) -> None:
    with running(StubVllm(base)) as stub:
        found = activate(VllmServer(stub.url), store, version, "float32")
        assert activate(VllmServer(stub.url), store, version, "float32") == found  # again
    assert found.num_probes == 5
    assert found.largest_difference < 1e-4
    assert "5 conversations have the trainer's tokens" in found.sentence
    assert list(stub.loaded) == ["tickets@aaaaaaaaaaaa"]
    checking, *rest = [line.split() for line in stub.log]
    assert checking[0] == "load"
    assert checking[1].startswith(CHECKING)
    assert rest[0] == ["unload", checking[1]]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("template", r"several turns: token \d+ of the prompt is .* at the server and .* where it"),
        ("doubled_bos", r"system turn: token 1 of the prompt is '<\|im_start\|>'"),
        ("missing_adapter", "answers with the base model, the adapter is not applied"),
        ("stale_adapter", "another adapter, other weights, or another precision than float32"),
        ("dtype", "another adapter, other weights, or another precision than float32"),
    ],
)
def test_what_was_not_evaluated_is_not_routed(
    store: LocalStore,
    version: ModelVersion,
    base: BaseModelRef,
    stale: Path,
    fault: Fault,
    words: str,
) -> None:
    with (
        running(StubVllm(base, fault, stale)) as stub,
        pytest.raises(ParityError, match=words),
    ):
        activate(VllmServer(stub.url), store, version, "float32")
    assert stub.loaded == {}  # nor is it left behind under the name of the check


def test_an_adapter_that_changes_nothing_could_be_missing(
    base: BaseModelRef, probes: list[Probe]
) -> None:
    same = [p.model_copy(update={"base_log_probs": p.log_probs}) for p in probes]
    with running(StubVllm(base)) as stub:
        with pytest.raises(ParityError, match="too little to tell it from the base model"):
            check(VllmServer(stub.url), "base", same, "float32")
        with pytest.raises(ParityError, match="changes the answers of 0 probes"):
            check(VllmServer(stub.url), "base", [], "float32")


def test_what_cannot_be_held_against_anything_is_not_routed(
    store: LocalStore, version: ModelVersion, base: BaseModelRef, tiny_model: Path
) -> None:
    with running(StubVllm(base)) as stub:
        server = VllmServer(stub.url)
        old = version.model_copy(update={"parity_uri": None})
        with pytest.raises(ParityError, match="registered before parity was recorded"):
            activate(server, store, old, "float32")
        uri, digest = commit(store, "train", tiny_model)
        whole = version.model_copy(update={"adapter_uri": uri, "adapter_artifact_digest": digest})
        with pytest.raises(ParityError, match="whole model, which a running server cannot load"):
            activate(server, store, whole, "float32")
    assert stub.loaded == {}


def test_a_refusal_of_the_server_is_told(
    store: LocalStore, version: ModelVersion, base: BaseModelRef
) -> None:
    with (
        running(StubVllm(base, "refuses")) as stub,
        pytest.raises(ServerError, match="max_lora_rank 4"),
    ):
        activate(VllmServer(stub.url), store, version, "float32")


def test_what_nobody_asks_for_is_superfluous(version: ModelVersion) -> None:
    held = ["tickets@old", "evaluated-1", f"{CHECKING}1", name_of(version)]
    assert superfluous(held, {name_of(version): version}) == [f"{CHECKING}1", "tickets@old"]


@contextmanager
def real_vllm(base: BaseModelRef, dtype: str, *more: str) -> Iterator[VllmServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = vllm.command_of(base, port, dtype=dtype, rank=8, adapters=4, concurrency=4)
    process = subprocess.Popen(
        [*command, *more], env=vllm.variables(os.environ), start_new_session=True
    )
    server = VllmServer(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not server.is_up():
            assert process.poll() is None, "vLLM ended before it was ready"
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)


@pytest.fixture(scope="module")
def smol_base() -> BaseModelRef:
    return pin(BaseModelConfig(id=SMOL))


@pytest.fixture(scope="module")
def smol_probes(
    smol_base: BaseModelRef, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Probe]]:
    """An adapter of the real base model, and what it computes in float32."""
    folder = tmp_path_factory.mktemp("real")
    adapter = random_adapter(folder / "adapter", smol_base, seed=1)
    turns = (Message("user", "Where is my parcel?"), Message("assistant", "On its way."))
    rows: Sequence[Example] = [Example("0" * 64, turns, "human", "g")]
    template = Template(load_tokenizer(smol_base), stop_ids(smol_base))
    write_probes(rows, ["validation"], template, 2048, folder)
    lines = (folder / FILE).read_text("utf-8").splitlines()
    found = [Probe.model_validate_json(line) for line in lines]
    assert len(found) == 6
    return adapter, measured(found, smol_base, adapter, "float32")


@pytest.mark.slow
def test_the_real_server_computes_what_was_evaluated_and_its_faults_are_caught(
    store: LocalStore,
    smol_base: BaseModelRef,
    smol_probes: tuple[Path, list[Probe]],
    tmp_path: Path,
) -> None:
    adapter, probes = smol_probes
    version = registered(store, smol_base, adapter, probes, tmp_path)
    other = random_adapter(tmp_path / "other", smol_base, seed=2)
    with real_vllm(smol_base, "float32") as server:
        found = activate(server, store, version, "float32")
        print(found.sentence)
        assert found.largest_difference < 0.001
        assert server.adapters() == [name_of(version)]
        (base_name,) = server.base_models()
        with pytest.raises(ParityError, match="the adapter is not applied"):
            check(server, base_name, probes, "float32")
        server.load("stale", other)
        with pytest.raises(ParityError, match="another adapter"):
            check(server, "stale", probes, "float32")
        server.unload(name_of(version))
        with pytest.raises(ServerError, match="404"):
            server.log_probs(name_of(version), [1, 2], [3])


@pytest.mark.slow
def test_another_precision_and_another_template_of_the_real_server_are_caught(
    smol_base: BaseModelRef, smol_probes: tuple[Path, list[Probe]], tmp_path: Path
) -> None:
    adapter, probes = smol_probes
    template = tmp_path / "doubled.jinja"
    own = load_tokenizer(smol_base).chat_template
    template.write_text("{{ bos_token }}" + own, encoding="utf-8")
    with real_vllm(smol_base, "bfloat16", "--chat-template", str(template)) as server:
        server.load("adapter", adapter)
        with pytest.raises(ParityError, match=r"system turn: token 1 of the prompt"):
            check(server, "adapter", probes, "float32")
        rightly = [p.model_copy(update={"prompt_ids": p.prompt_ids}) for p in probes]
        with pytest.raises(ParityError, match="another precision than float32"):
            check(_OtherTemplate(server, rightly), "adapter", rightly, "float32")


class _OtherTemplate:
    """The server, as if its template were right: its likelihoods alone are held against."""

    def __init__(self, server: VllmServer, probes: list[Probe]) -> None:
        self._server, self._probes = server, probes

    def tokens(self, turns: Sequence[dict[str, object]], tools: str | None) -> list[int]:
        return next(p.prompt_ids for p in self._probes if p.turns == turns)

    def log_probs(self, model: str, prompt: list[int], answer: list[int]) -> list[float]:
        return self._server.log_probs(model, prompt, answer)

    def text(self, token: int) -> str:
        return self._server.text(token)
