"""A vLLM server on this machine, for the evaluation: python -m deployments.vllm CONFIG.yaml

Serves the config's base model on 127.0.0.1 and RETUNE_VLLM_PORT (8100) until it is interrupted, and
loads adapters when it is asked to. It runs in ``.venv-vllm``, which ``make vllm`` installs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from deployments import environment
from deployments.processes import MARK
from flows.config import RetrainConfig, load_config
from tasks.artifacts import BaseModelRef
from tasks.base_model import locate, pin
from tasks.errors import ConfigError, RetuneError
from tasks.evaluate.engines import precision
from tasks.evaluate.vllm import served_name

# What vLLM 0.32 lets --max-lora-rank be.
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_ADAPTERS = 2  # at once: one of each run that evaluates at this moment
_CACHE_GIB = "1"
# The stack's mark among them: what it started is found by it, to be ended.
_INHERITED = (MARK, "VLLM_", "HF_", "CUDA_", "OMP_", "LD_", "LC_", "LANG", "PATH", "HOME", "TMPDIR")


def python() -> Path:
    """The Python of vLLM's own environment. Raises ConfigError where it is not installed."""
    found = environment.home() / ".venv-vllm" / "bin" / "python"
    if not found.is_file():
        raise ConfigError(f"vLLM is not installed: expected {found}. Run make vllm, once.")
    return found


def command(config: RetrainConfig, port: int) -> list[str]:
    """What starts the server. Raises as ``pin`` does where there is no such base model."""
    decoding = config.evaluate.decoding
    return command_of(
        pin(config.base_model),
        port,
        dtype=precision(decoding),
        rank=config.train.lora.r,
        adapters=_ADAPTERS,
        concurrency=decoding.engine.concurrency,
    )


def command_of(
    base_model: BaseModelRef, port: int, *, dtype: str, rank: int, adapters: int, concurrency: int
) -> list[str]:
    """What starts a server of a base model, for so many adapters at once of at most this rank.

    Raises ConfigError where vLLM is not installed.
    """
    settings = {
        "model": str(locate(base_model.id, base_model.revision)),
        "served-model-name": served_name(base_model),
        "host": environment.LOOPBACK,
        "port": str(port),
        "dtype": dtype,
        "max-lora-rank": str(next(known for known in _RANKS if known >= rank)),
        "max-loras": str(adapters),
        "max-num-seqs": str(concurrency),
    }
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    module = "vllm.entrypoints.openai.api_server"
    return [str(python()), "-m", module, *flags, "--enable-lora"]


def variables(given: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: of ``given`` what it needs, and no key but its own."""
    kept = {name: value for name, value in given.items() if name.startswith(_INHERITED)}
    return {
        **kept,
        **environment.quiet(),
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": given.get("VLLM_CPU_KVCACHE_SPACE", _CACHE_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Threads that wait for each other on busy cores cost more than they give.
        "OMP_NUM_THREADS": given.get("OMP_NUM_THREADS", "1"),
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": environment.LOOPBACK,
        "HF_HUB_OFFLINE": "1",
    }


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m deployments.vllm CONFIG.yaml", file=sys.stderr)
        return 2
    environment.apply()
    try:
        started = command(load_config(Path(arguments[0])), environment.vllm_port())
        print(f"vLLM on http://{environment.LOOPBACK}:{environment.vllm_port()}; Ctrl-C ends it.")
        return subprocess.run(started, env=variables(os.environ), check=False).returncode
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
