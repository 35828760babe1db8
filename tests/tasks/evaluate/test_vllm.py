"""vLLM as the engine: what it is asked and refuses, against a stub; the same answers, for real."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from deployments import vllm as server
from flows.config import load_config
from tasks.artifacts import BaseModelRef
from tasks.base_model import BaseModelConfig, load_model, load_tokenizer, pin
from tasks.errors import ConfigError
from tasks.evaluate.config import DecodingConfig, EngineConfig
from tasks.evaluate.engines import stops_of
from tasks.evaluate.generate import generate
from tasks.evaluate.known import KnownAnswers
from tasks.evaluate.vllm import served_name, version
from tasks.example import Example, Message
from tasks.objects import LocalStore
from tasks.train.finetune import save_adapter
from tests.json_server import json_server

READY_SECONDS = 300


class Stub:
    """A vLLM server that answers a prompt with its own tokens, backwards, and then stops."""

    def __init__(self, base: BaseModelRef) -> None:
        tokenizer = load_tokenizer(base)
        self.models: list[dict[str, Any]] = [
            {"id": served_name(base), "root": "/elsewhere", "max_model_len": 64, "parent": None}
        ]
        self.stop = min(stops_of(base, tokenizer))
        self.asked: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.refusal: tuple[int, str] | None = None
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if path == "/version":
            return 200, {"version": "0.0.1"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": self.models}
        if path.endswith("_lora_adapter"):
            self.log.append(f"{path.rsplit('/', 1)[1].split('_')[0]} {body['lora_name']}")
            if self.refusal:
                return self.refusal[0], {"error": {"message": self.refusal[1]}}
            return 200, {}
        with self._lock:
            self.asked.append(body)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(0.02)
        with self._lock:
            self._at_once -= 1
        ids = [*reversed(body["prompt"][-3:]), self.stop]
        return 200, {"choices": [{"token_ids": ids}], "object": "text_completion", "id": "c"}


def decoding(url: str, **options: Any) -> DecodingConfig:
    engine = EngineConfig(name="vllm", base_url=url, concurrency=4)
    return DecodingConfig(
        **{"max_new_tokens": 5, "latency_samples": 0, "dtype": "float32", **options}, engine=engine
    )


def row(number: int) -> Example:
    turns = (Message("user", f"question number {number}"), Message("assistant", "yes"))
    return Example(str(number), turns, "human", str(number))


def adapter_in(folder: Path, base: BaseModelRef, targets: list[str]) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    settings = LoraConfig(r=8, target_modules=targets, init_lora_weights=False)
    save_adapter(get_peft_model(load_model(base, torch.float32), settings), base, folder)
    return folder


@pytest.fixture
def base(tiny_model: Path) -> BaseModelRef:
    return pin(BaseModelConfig(id=str(tiny_model)))


@pytest.fixture
def known(tmp_path: Path) -> KnownAnswers:
    return KnownAnswers(LocalStore(tmp_path / "known"), "model")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)


def test_it_is_asked_by_tokens_greedily_and_many_at_once(
    base: BaseModelRef, known: KnownAnswers
) -> None:
    stub, rows = Stub(base), [row(i) for i in range(40)]
    with json_server(stub.answer) as url:
        answers, speed = generate(rows, base, None, decoding(url), known)
    tokenizer = load_tokenizer(base)
    prompts = {tuple(request["prompt"]) for request in stub.asked}
    assert len(prompts) == len(stub.asked) == 40
    for one, answer in zip(rows, answers, strict=True):
        prompt = tokenizer.apply_chat_template(
            [one.messages[0].as_chat()], add_generation_prompt=True, return_dict=False
        )
        assert tuple(prompt) in prompts
        said = [*reversed(prompt[-3:])]
        assert answer.answer == tokenizer.decode(said, skip_special_tokens=True)
        assert (answer.num_tokens, answer.truncated) == (4, False)
    (asked,) = {(r["temperature"], r["max_tokens"], r["model"]) for r in stub.asked}
    assert asked == (0, 5, served_name(base))
    assert 1 < stub.most_at_once <= 4
    assert speed is not None
    assert stub.log == []


def test_an_adapter_is_loaded_under_a_name_of_its_own_and_taken_out_again(
    base: BaseModelRef, known: KnownAnswers, tmp_path: Path
) -> None:
    stub = Stub(base)
    folder = adapter_in(tmp_path / "adapter", base, ["q_proj"])
    with json_server(stub.answer) as url:
        generate([row(1)], base, folder, decoding(url), known)
        generate([row(2)], base, folder, decoding(url), known)
        generate([row(1)], base, folder, decoding(url), known)  # known: nothing is loaded
    names = [request["model"] for request in stub.asked]
    assert len(set(names)) == 2
    assert stub.log == [f"{verb} {name}" for name in names for verb in ("load", "unload")]


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([{"id": "other/model", "root": "/elsewhere"}], r"serves other/model \(from /elsewhere\)"),
        ([], "expected the base model"),
    ],
)
def test_another_base_model_is_refused(
    base: BaseModelRef, known: KnownAnswers, models: list[dict[str, Any]], words: str
) -> None:
    stub = Stub(base)
    stub.models = models
    with json_server(stub.answer) as url, pytest.raises(ConfigError, match=words):
        generate([row(1)], base, None, decoding(url), known)
    assert stub.asked == []


def test_a_server_on_this_machine_is_known_by_its_files(
    base: BaseModelRef, known: KnownAnswers, tiny_model: Path
) -> None:
    stub = Stub(base)
    stub.models = [{"id": "whatever", "root": str(tiny_model)}]
    with json_server(stub.answer) as url:
        generate([row(1)], base, None, decoding(url), known)
    assert stub.asked[0]["model"] == "whatever"


def test_a_refused_adapter_is_told_with_what_it_needs(
    base: BaseModelRef, known: KnownAnswers, tmp_path: Path
) -> None:
    stub = Stub(base)
    stub.refusal = (400, "LoRA rank 8 is greater than max_lora_rank 4.")
    folder = adapter_in(tmp_path / "adapter", base, ["q_proj"])
    with (
        json_server(stub.answer) as url,
        pytest.raises(ConfigError, match=r"refuses the adapter in .*max_lora_rank 4.*enable-lora"),
    ):
        generate([row(1)], base, folder, decoding(url), known)


def test_a_whole_model_is_refused_before_anything_is_asked(
    base: BaseModelRef, known: KnownAnswers, tiny_model: Path
) -> None:
    with pytest.raises(ConfigError, match=r"whole model.*engine's name to transformers"):
        generate([row(1)], base, tiny_model, decoding("http://127.0.0.1:9"), known)


def test_few_shot_examples_that_its_context_has_no_room_for_are_left_out(
    base: BaseModelRef, known: KnownAnswers, caplog: pytest.LogCaptureFixture
) -> None:
    stub = Stub(base)
    with json_server(stub.answer) as url:
        shots = {"1": [row(i) for i in range(50)]}
        generate([row(1)], base, None, decoding(url), known, shots)
    assert "examples left out" in caplog.text
    assert len(stub.asked[0]["prompt"]) <= 64 - 5


def test_another_version_of_the_server_is_another_engine(base: BaseModelRef) -> None:
    with json_server(Stub(base).answer) as url:
        assert version(url) == "0.0.1"
        assert version(f"{url}/") == "0.0.1"


def test_the_command_serves_the_base_model_under_the_name_of_its_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: BaseModelRef
) -> None:
    monkeypatch.setattr(server.environment, "home", lambda: tmp_path)
    config = load_config(Path("deployments/configs/sample.yaml"))
    small = config.model_copy(update={"base_model": BaseModelConfig(id=base.id)})
    with pytest.raises(ConfigError, match=r"vLLM is not installed.*make vllm"):
        server.command(small, 8100)
    python = tmp_path / ".venv-vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    words = server.command(small, 8123)
    assert words[words.index("--served-model-name") + 1] == served_name(base)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "8123"
    assert int(words[words.index("--max-lora-rank") + 1]) >= config.train.lora.r


def test_the_server_is_given_no_key_but_its_own() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "s", "OPENAI_API_KEY": "o", "VLLM_API_KEY": "v", "PATH": "p"}
    found = server.variables(given)
    assert found["VLLM_API_KEY"] == "v"
    assert found["PATH"] == "p"
    assert not {"AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY"} & found.keys()
    assert found["VLLM_NO_USAGE_STATS"] == found["DO_NOT_TRACK"] == "1"


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    """A real vLLM server with the sample's base model, in float32, where two engines agree."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = load_config(Path("deployments/configs/sample.yaml"))
    exact = config.evaluate.decoding.model_copy(update={"dtype": "float32"})
    evaluate = config.evaluate.model_copy(update={"decoding": exact})
    command = server.command(config.model_copy(update={"evaluate": evaluate}), port)
    process = subprocess.Popen(command, env=server.variables(os.environ), start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _is_ready(url):
            assert process.poll() is None, "vLLM ended before it was ready"
            assert time.monotonic() < deadline, f"vLLM was not ready in {READY_SECONDS} s"
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait(10)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("adapted", [False, True])
def test_the_real_server_says_what_transformers_says(
    vllm: str, tmp_path: Path, adapted: bool
) -> None:
    base = pin(BaseModelConfig(id="HuggingFaceTB/SmolLM2-135M-Instruct"))
    adapter = adapter_in(tmp_path / "adapter", base, ["q_proj", "down_proj"]) if adapted else None
    rows = [row(i) for i in range(6)]
    options = {"max_new_tokens": 12, "latency_samples": 2}
    theirs, speed = generate(
        rows, base, adapter, decoding(vllm, **options), KnownAnswers(LocalStore(tmp_path), "vllm")
    )
    here = DecodingConfig(**options, dtype="float32")
    ours, _ = generate(rows, base, adapter, here, KnownAnswers(LocalStore(tmp_path), "here"))
    assert [a.answer for a in theirs] == [a.answer for a in ours]
    assert [a.num_tokens for a in theirs] == [a.num_tokens for a in ours]
    assert speed is not None
    assert sum(a.latency_ms is not None for a in theirs) == 2
    served = httpx.get(f"{vllm}/v1/models").json()["data"]
    assert [model["id"] for model in served] == [served_name(base)]
