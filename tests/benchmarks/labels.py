"""What confident learning finds in the labels of BANKING77, which are known to be noisy."""

from __future__ import annotations

import time
from dataclasses import asdict

import pyarrow.csv

from tasks.artifacts import TaskConfig
from tasks.clean.config import LabelConfig
from tasks.clean.labels import LabelIssue, find_label_issues
from tests.benchmarks.harness import Result, data_file

_SHOWN = 20


def labels() -> Result:
    """How many labels of the training rows are in doubt, and the twenty most doubtful."""
    table = pyarrow.csv.read_csv(data_file("banking77_train.csv"))
    prompts, given = table.column("text").to_pylist(), table.column("category").to_pylist()
    ids = [f"{number:05d}" for number in range(len(prompts))]
    started = time.perf_counter()
    issues = find_label_issues(
        ids, prompts, given, TaskConfig(kind="classification"), LabelConfig()
    )
    seconds = time.perf_counter() - started
    return Result(
        name="labels",
        figure=len(issues),
        unit="labels in doubt",
        target=None,
        holds=True,
        details={
            "rows": len(prompts),
            "share": round(len(issues) / len(prompts), 4),
            "seconds": round(seconds, 1),
            "most_doubtful": [_shown(prompts, issue) for issue in issues[:_SHOWN]],
        },
    )


def _shown(prompts: list[str], issue: LabelIssue) -> dict[str, object]:
    found = asdict(issue) | {"prompt": prompts[issue.index], "line": issue.index + 2}
    wanted = ("line", "prompt", "given", "suggested", "suggested_probability")
    shown = {name: found[name] for name in wanted}
    return shown | {"suggested_probability": round(issue.suggested_probability, 3)}
