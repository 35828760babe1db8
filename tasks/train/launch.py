"""One training in several processes, each on a device of its own, started by ``accelerate launch``.

The processes run ``tasks.train.worker``; the first tells of its progress on its standard output, a
JSON line each time, and leaves its ``Training`` or its error in a file.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from tasks.errors import ConfigError, PreemptedError, RetuneError, TrainingError
from tasks.train.config import TrainConfig
from tasks.train.guards import BadBatchError
from tasks.train.job import Job, Training
from tasks.train.model import dtype_of
from tasks.train.watch import Report

logger = logging.getLogger(__name__)
MARK = "retune-progress "
OUT_OF_MEMORY = "OutOfMemory"
_FSDP = (
    *("--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"),
    *("--fsdp_state_dict_type", "FULL_STATE_DICT", "--fsdp_reshard_after_forward", "true"),
    *("--fsdp_cpu_ram_efficient_loading", "false"),
)


def train_in_processes(job: Job, report: Report) -> Training:
    """Train in ``job.config.devices.num_processes`` processes; answers as ``finetune`` does.

    When memory runs out all of them begin again, from the last checkpoint, with half the rows at a
    time. SIGTERM is passed on to them. Raises what the first process to fail raised.
    """
    notes = _filled_up(job)
    while True:
        try:
            training = _run(job, report)
        except _OutOfMemoryError as error:
            rows = job.micro_rows or job.config.batch_size
            if rows == 1:
                raise TrainingError(f"One row at a time does not fit: {error}") from error
            notes.append(
                f"Memory ran out: rows are taken {rows // 2} at a time from there on, as many a "
                "step as before."
            )
            logger.warning("%s (%s)", notes[-1], error)
            job = job.model_copy(update={"micro_rows": rows // 2})
        else:
            return training.model_copy(update={"notes": [*notes, *training.notes]})


class _OutOfMemoryError(Exception):
    """A process ran out of memory; all have ended."""


def _filled_up(job: Job) -> list[str]:
    num_rows = pq.read_metadata(job.data / "train.parquet").num_rows
    twice = -num_rows % (job.config.batch_size * job.config.devices.num_processes)
    if not twice:
        return []
    return [f"{twice} rows are taken twice in each epoch, so that all processes have as many."]


def check_devices(config: TrainConfig, on_gpu: bool) -> None:
    """Refuse what several processes cannot do. Raises ConfigError."""
    devices = config.devices
    if devices.strategy != "fsdp":
        return
    if not on_gpu:
        raise ConfigError(
            "train.devices.strategy is fsdp, but accelerate shards a model over GPUs alone and "
            "PyTorch sees none: every process would hold all of it. Set the strategy to ddp."
        )
    if config.validation.num_generated:
        raise ConfigError(
            "train.validation.num_generated is set, but under train.devices.strategy fsdp no "
            "process holds the model to generate with. Set num_generated to 0 and metric to "
            "eval_loss, or the strategy to ddp."
        )
    if config.method == "qlora":
        raise ConfigError(
            "train.method is qlora, whose 4-bit weights are not sharded. Set "
            "train.devices.strategy to ddp: each GPU holds all of them in a quarter of the memory."
        )


def command(config: TrainConfig) -> list[str]:
    """The launcher's command line, without the script."""
    devices = config.devices
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--num_processes", str(devices.num_processes), "--num_machines", "1"),
        *("--mixed_precision", "bf16" if dtype_of(config) == torch.bfloat16 else "no"),
        *("--dynamo_backend", "no", "--main_process_port", "0"),
        # On a CPU too: its own --cpu starts one process, whatever is asked for. The processes find
        # no GPU and train on the CPU.
        *(_FSDP if devices.strategy == "fsdp" else ("--multi_gpu",)),
    ]


def _run(job: Job, report: Report) -> Training:
    asked, answer = job.output / "job.json", job.output / "training.json"
    asked.write_text(job.model_dump_json(), "utf-8")
    answer.unlink(missing_ok=True)
    on_gpu = torch.cuda.is_available()
    check_devices(job.config, on_gpu)
    process = subprocess.Popen(
        [*command(job.config), "-m", "tasks.train.worker", str(asked), str(answer)],
        env={**os.environ, **_threads(job.config, on_gpu)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with _passing_on_sigterm(process):
            said = _listen(process, report)
            process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return _answer(answer, process.returncode, said)


def _threads(config: TrainConfig, on_gpu: bool) -> dict[str, str]:
    """On a CPU the processes share its cores."""
    if on_gpu:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // config.devices.num_processes))}


def _listen(process: subprocess.Popen[str], report: Report) -> list[str]:
    """Pass the progress on; answers the last lines of everything else."""
    said: list[str] = []
    for line in process.stdout or ():
        other, _, progress = line.partition(MARK)
        if progress:
            told = json.loads(progress)
            report(told["metrics"], told["step"], told["share"])
        if other.strip():
            logger.info("train: %s", other.rstrip())
            said = [*said[-40:], other]
    return said


def _answer(file: Path, status: int, said: list[str]) -> Training:
    answer: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if "training" in answer:
        return Training.model_validate(answer["training"])
    kind, message = answer.get("error"), answer.get("message", "")
    if kind == OUT_OF_MEMORY:
        raise _OutOfMemoryError(message)
    if kind == BadBatchError.__name__:
        raise BadBatchError(message, Path(answer["file"]))
    known: Any = getattr(importlib.import_module("tasks.errors"), str(kind), None)
    if isinstance(known, type) and issubclass(known, RetuneError):
        raise known(message)
    if status in (-signal.SIGTERM, 128 + signal.SIGTERM):
        raise PreemptedError("SIGTERM ended the processes of the training.")
    raise TrainingError(
        f"The processes of the training ended with status {status}: {message or ''.join(said)}"
    )


@contextmanager
def _passing_on_sigterm(process: subprocess.Popen[str]) -> Iterator[None]:
    """To the processes that train: the launcher would kill them before they have saved."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: Any) -> None:
        for pid in _workers(process.pid):
            os.kill(pid, signal.SIGTERM)

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def _workers(launcher: int) -> list[int]:
    import psutil

    try:
        children = psutil.Process(launcher).children(recursive=True)
        return [c.pid for c in children if "tasks.train.worker" in " ".join(c.cmdline())]
    except psutil.NoSuchProcess:
        return []
