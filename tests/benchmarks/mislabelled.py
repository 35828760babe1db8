"""A candidate trained on wrong labels, against a champion trained on right ones.

    make bench B=mislabelled [RETUNE_DATA=<folder with banking77_train.csv and banking77_test.csv>]

Two runs of deployments/configs/banking77.yaml on a stack of their own: on the data as it is, and
with the labels of a share of the training rows shuffled among these rows. The cleaning looks for
wrong labels in both, as it does for a user; the figure is whether the gate blocks what is left of
them. The metrics of both runs are in the details. The rule about the few-shot prompt is left out:
on this data the prompt wins, and there would be no champion.
"""

from __future__ import annotations

import csv
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from deployments import environment
from tests.benchmarks.harness import Result, data_file
from tests.benchmarks.retrain import Measured, own_stack, run

SHARE = 0.3
CONFIG = environment.home() / "deployments" / "configs" / "banking77.yaml"
CHANGES = {
    "evaluate": {"few_shot": {"num_examples": 0}},
    "gate": {
        "rules": [
            {"metric": "primary", "kind": "superiority"},
            {"metric": "macro_f1", "kind": "non_inferiority", "margin": 0.02},
        ]
    },
}


def mislabelled() -> Result:
    training, golden = data_file("banking77_train.csv"), data_file("banking77_test.csv")
    with own_stack() as child, tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump({"extends": str(CONFIG), **CHANGES}))
        right = run({**child, "RETUNE_DATA": str(training.parent)}, config)
        changed = shuffle_labels(training, Path(folder) / training.name, SHARE)
        shutil.copy(golden, folder)
        wrong = run({**child, "RETUNE_DATA": folder}, config)
    blocked = wrong.summary["decision"] == "blocked"
    return Result(
        "mislabelled",
        SHARE,
        "of the training rows with shuffled labels: their candidate is blocked",
        None,
        right.summary["decision"] == "promoted" and blocked,
        details={"changed": changed, "right": _told(right), "shuffled": _told(wrong)},
    )


def shuffle_labels(source: Path, target: Path, share: float, seed: int = 0) -> float:
    """Copy a CSV with ``category`` shuffled among a share of its rows; the share that changed."""
    with source.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    chosen = random.Random(seed).sample(range(len(rows)), round(share * len(rows)))
    labels = [rows[i]["category"] for i in chosen]
    random.Random(seed + 1).shuffle(labels)
    changed = sum(rows[i]["category"] != label for i, label in zip(chosen, labels, strict=True))
    for i, label in zip(chosen, labels, strict=True):
        rows[i]["category"] = label
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return changed / len(rows)


def _told(measured: Measured) -> dict[str, Any]:
    summary = measured.summary
    return {
        "decision": summary["decision"],
        "sentence": summary["sentence"],
        "reasons": summary["reasons"],
        "data": summary["data"],
        "metrics": summary["metrics"],
        "flow_seconds": summary["seconds"],
        "training_seconds": measured.stage("train"),
        "peak_memory_gib": round(measured.peak_gib, 2),
    }
