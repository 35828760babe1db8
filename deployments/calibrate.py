"""Compare the judge with people: python -m deployments.calibrate FILE [CONFIG.yaml]

FILE holds answers that people rated, as CSV or JSON lines with the fields prompt, reference, answer
and rating (1 to 5); CONFIG's section evaluate.judge says who judges. The result is kept in storage:
the next report shows it, and ``gate.min_judge_spearman`` is held against it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deployments import environment
from flows.config import load_config
from tasks.anthropic_client import make_client
from tasks.errors import RetuneError
from tasks.evaluate.calibration import calibrate, read_rated, store_calibration
from tasks.objects import open_store

_DEFAULT = Path(__file__).parent / "configs" / "sample.yaml"


def main(arguments: list[str]) -> int:
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m deployments.calibrate FILE [CONFIG.yaml]", file=sys.stderr)
        return 2
    environment.apply()
    try:
        rows = read_rated(Path(arguments[0]))
        config = load_config(Path((arguments[1:] or [str(_DEFAULT)])[0]))
        judge = config.evaluate.judge
        store = open_store()
        with make_client(os.environ, judge.max_retries) as client:
            found = calibrate(rows, judge, client, store)
        store_calibration(store, found)
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    print(found.as_text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
