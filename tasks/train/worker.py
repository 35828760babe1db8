"""One process of several that train together; see ``tasks.train.launch``.

accelerate launch ... -m tasks.train.worker JOB.json TRAINING.json
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size

from tasks.errors import RetuneError
from tasks.train.finetune import finetune
from tasks.train.guards import BadBatchError
from tasks.train.job import Job
from tasks.train.launch import MARK, OUT_OF_MEMORY


def main(job_file: Path, answer_file: Path) -> int:
    """Train; answers the exit status. Of several that fail the first to say why is believed."""
    job = Job.model_validate_json(job_file.read_text("utf-8"))

    def report(metrics: dict[str, float], step: int, share: float) -> None:
        told = {"metrics": metrics, "step": step, "share": share}
        # In one write: the processes share this pipe, and a line must not be torn.
        os.write(sys.stdout.fileno(), f"{MARK}{json.dumps(told)}\n".encode())

    try:
        training = finetune(job, report)
    except BadBatchError as error:
        return _failed(answer_file, error, file=str(error.file))
    except RetuneError as error:
        return _failed(answer_file, error)
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        return _failed(answer_file, error, OUT_OF_MEMORY)
    if PartialState().is_main_process:
        answer_file.write_text(json.dumps({"training": training.model_dump(mode="json")}), "utf-8")
    return 0


def _failed(answer_file: Path, error: Exception, kind: str | None = None, **more: Any) -> int:
    answer = {"error": kind or type(error).__name__, "message": str(error), **more}
    try:
        with answer_file.open("x", encoding="utf-8") as file:
            json.dump(answer, file)
    except FileExistsError:
        logging.getLogger(__name__).info("another process said why: %s", error)
    return 1


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
