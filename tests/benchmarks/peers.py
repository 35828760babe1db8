"""Peers that need an environment of their own, under ``.local/peers``.

python -m tests.benchmarks.peers [llama-factory|litellm]     installs them (2 GB and 0.5)
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from deployments import environment
from tasks.base_model import locate, native_dtype
from tasks.example import Example
from tasks.train.config import TrainConfig
from tests.conftest import free_port

LLAMA_FACTORY = "llamafactory==0.9.5"
LITELLM = "litellm[proxy]==1.106.2"  # 1.107.0 was reported compromised


def folder(name: str = "llama-factory") -> Path:
    return environment.local() / "peers" / name


@contextmanager
def litellm(work: Path, upstream: int, name: str) -> Iterator[int | None]:
    """LiteLLM's proxy before the upstream; None where it is not installed."""
    cli = folder("litellm") / "bin" / "litellm"
    if not cli.is_file():
        print("LiteLLM is not installed: python -m tests.benchmarks.peers", file=sys.stderr)
        yield None
        return
    params = {"model": f"openai/{name}", "api_key": "none"}
    params |= {"api_base": f"http://127.0.0.1:{upstream}/v1"}
    config = work / "litellm.yaml"
    models = [{"model_name": name, "litellm_params": params}]
    config.write_text(
        yaml.safe_dump({"model_list": models, "litellm_settings": {"telemetry": False}})
    )
    port = free_port()
    with (work / "litellm.log").open("wb") as log:
        process = subprocess.Popen(
            [str(cli), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)],
            stdout=log,
            stderr=log,
            cwd=work,
            env={
                **environment.quiet(),
                "PATH": f"{cli.parent}:/usr/bin:/bin",
                "HOME": str(work),
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched
                "LITELLM_TELEMETRY": "False",
            },
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health/liveliness", work / "litellm.log")
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _wait(url: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5, trust_env=False).is_success:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} did not answer: {log.read_text()[-2000:]}")


def install(names: Sequence[str]) -> None:
    """The named peers, or all."""
    for name in names or ("llama-factory", "litellm"):
        {"llama-factory": _install_llama_factory, "litellm": _install_litellm}[name]()


def _install_litellm() -> None:
    place = folder("litellm")
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "pip"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", LITELLM], check=True)


def _install_llama_factory() -> None:
    """LLaMA-Factory with the torch of this project; without the parts for sound and pictures."""
    place = folder()
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin" / "pip"), "--disable-pip-version-check"]
    torch = environment.home() / "requirements-torch.txt"
    subprocess.run([*pip, "install", "--quiet", "-r", str(torch)], check=True)
    subprocess.run([*pip, "install", "--quiet", LLAMA_FACTORY], check=True)
    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "torchvision", "torchaudio"], check=True)
    stub = place / "stubs" / "torchaudio"
    stub.mkdir(parents=True, exist_ok=True)
    (stub / "__init__.py").write_text("")


def llama_factory_tokens_per_second(
    examples: Sequence[Example], system: str, config: TrainConfig, work: Path, num_tokens: int
) -> float | None:
    """Tokens a second of LLaMA-Factory on the same rows; None where it is not installed."""
    cli = folder() / "bin" / "llamafactory-cli"
    if not cli.is_file():
        print("LLaMA-Factory is not installed: python -m tests.benchmarks.peers", file=sys.stderr)
        return None
    data = work / "llama-factory"
    data.mkdir()
    rows = [
        {"instruction": e.prompt, "input": "", "output": e.answer, "system": system}
        for e in examples[:-8]
    ]
    (data / "rows.json").write_text(json.dumps(rows))
    columns = {"system": "system"}
    columns |= {"prompt": "instruction", "query": "input", "response": "output"}
    info = {"rows": {"file_name": "rows.json", "columns": columns}}
    (data / "dataset_info.json").write_text(json.dumps(info))
    model = _in_precision(locate("HuggingFaceTB/SmolLM2-135M-Instruct"), data / "model")
    (data / "train.yaml").write_text(yaml.safe_dump(_settings(config, model, data)))
    subprocess.run(
        [str(cli), "train", str(data / "train.yaml")],
        check=True,
        capture_output=True,
        env={
            **environment.quiet(),
            "PATH": "/usr/bin:/bin",
            "HOME": str(work),
            "PYTHONPATH": str(folder() / "stubs"),
            "HF_HUB_OFFLINE": "1",
        },
    )
    results = json.loads((data / "out" / "train_results.json").read_text())
    return float(num_tokens / results["train_runtime"])


def _in_precision(model: Path, folder: Path) -> Path:
    """The same files, with this processor's precision in ``config.json``.

    LLaMA-Factory takes its precision from there; bfloat16, emulated, makes a step take minutes.
    """
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    settings = json.loads((model / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(settings | {"dtype": native_dtype()}))
    return folder


def _settings(config: TrainConfig, model: Path, data: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": config.lora.r,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": config.lora.dropout,
        "lora_target": ",".join(config.lora.target_modules),
        "dataset_dir": str(data),
        "dataset": "rows",
        "template": "smollm2",
        "cutoff_len": 512,
        "output_dir": str(data / "out"),
        "per_device_train_batch_size": config.batch_size,
        "num_train_epochs": 1.0,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "overwrite_output_dir": True,
    }


if __name__ == "__main__":
    install(sys.argv[1:])
