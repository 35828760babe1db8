"""The product as its user runs it, with the real SmolLM2: learn, promote, refuse what is worse."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config import load_config
from flows.retrain import retrain
from tests.base_models import SMOL
from tests.flows.test_retrain import champion, states

pytestmark = [pytest.mark.integration, pytest.mark.slow]

COMPLAINTS = {
    "billing": ["I was charged twice", "the invoice is wrong", "my refund has not come"],
    "delivery": ["the parcel is late", "the courier lost my box", "tracking shows nothing"],
    "login": ["my password is refused", "the code never arrives", "I am locked out"],
}
OPENINGS = ["Hello,", "Good evening,", "Listen,", "Dear team,", "Once more:", "Hi there,"]
CLOSINGS = [
    "please help.",
    "what now?",
    "thanks in advance.",
    "I am waiting.",
    "this is new to me.",
]


def rows(openings: list[str], closings: list[str]) -> list[dict[str, str]]:
    return [
        {"prompt": f"{opening} {complaint}, {closing}", "completion": label}
        for label, complaints in COMPLAINTS.items()
        for opening, complaint, closing in product(openings, complaints, closings)
    ]


def write(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def config(stack: Path, smol: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file beside its data: 3 labels, about 100 rows to learn from, 45 that decide."""
    folder = tmp_path_factory.mktemp("end-to-end")
    training = rows(OPENINGS[:4], CLOSINGS[:4])
    random.Random(0).shuffle(training)
    write(folder / "rows.jsonl", training[:130])
    write(folder / "golden.jsonl", rows(OPENINGS[4:], CLOSINGS[2:])[:54])
    columns = {"user": "prompt", "assistant": "completion", "label": "completion"}
    values: dict[str, Any] = {
        "name": "end-to-end",
        "task": {"kind": "classification", "system_prompt": "Name the topic."},
        "base_model": {"id": SMOL, "license": "Apache-2.0"},
        "ingest": {"sources": [{"path": str(folder / "rows.jsonl"), "columns": columns}]},
        "golden": {"source": {"path": str(folder / "golden.jsonl"), "columns": columns}},
        # Sentences put together from few parts are alike on purpose, and few for the test's time.
        "clean": {
            "duplicates": {"threshold": 0.99},
            "decontamination": {"jaccard": 0.9, "containment": 1.0, "embeddings": False},
            "allow": ["few_examples"],
        },
        "train": {
            "learning_rate": 0.002,
            "epochs": 2,
            "evaluations_per_epoch": 1,
            "lora": {"dropout": 0.0},
        },
        "evaluate": {
            "decoding": {
                "max_new_tokens": 6,
                "batch_size": 27,
                "latency_samples": 2,
            },
            # What is forgotten has a test of its own, with real weights (test_general.py).
            "general": {"enabled": False},
        },
        "gate": {"primary": "accuracy"},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def start(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.start", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def test_a_model_that_a_prompt_would_do_for_is_not_promoted(config: Path, stack: Path) -> None:
    """The task is so easy that the base model with a few examples in its prompt solves it too."""
    done = start(config)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("ingest: completed", "train 100%", "Decision: inconclusive"):
        assert line in done.stdout
    summary = json.loads((stack / "runs" / "latest" / "summary.json").read_text())
    few_shot, base = (summary["metrics"][r]["accuracy"] for r in ("base_few_shot", "base"))
    assert few_shot["ci_low"] > base["ci_high"]
    undecided = [d for d in summary["differences"] if d["verdict"] == "inconclusive"]
    assert {(d["metric"], d["baseline"]) for d in undecided} == {("accuracy", "base_few_shot")}
    assert "base model with examples in its prompt" in summary["sentence"]
    assert len(summary["settling"]) == 1


def test_raw_examples_in_a_promoted_model_out(config: Path, stack: Path) -> None:
    """Whoever serves without examples in the prompt, for their cost, has the rules say so."""
    values = yaml.safe_load(config.read_text())
    values["gate"]["rules"] = [
        {"metric": "primary", "kind": "superiority"},
        {"metric": "others", "kind": "non_inferiority", "margin": 0.05},
    ]
    config.write_text(yaml.safe_dump(values))
    done = start(config)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("train: cached", "promote: completed", "Decision: promoted"):
        assert line in done.stdout
    summary = json.loads((stack / "runs" / "latest" / "summary.json").read_text())
    candidate, base = (summary["metrics"][role]["accuracy"] for role in ("candidate", "base"))
    assert candidate["ci_low"] > base["ci_high"]
    assert candidate["n"] == summary["data"]["num_golden"] == 54
    assert summary["judge"].startswith("neither ANTHROPIC_API_KEY")
    assert champion("end-to-end").tags["base_model"] == SMOL


def test_shuffled_labels_are_blocked(config: Path, stack: Path) -> None:
    before = champion("end-to-end")
    data = config.parent / "rows.jsonl"
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    labels = [line["completion"] for line in lines]
    random.Random(1).shuffle(labels)
    write(data, [{**line, "completion": label} for line, label in zip(lines, labels, strict=True)])
    summary = retrain(load_config(config))
    assert summary.status == "completed"
    assert summary.decision == "blocked"
    assert summary.reasons[0].startswith("accuracy got worse: candidate ")
    assert champion("end-to-end").version == before.version
    # The champion's answers were taken from the first run: it is the same model.
    parts = next(s["parts"] for s in summary.stages if s["name"] == "generate")
    found = {part["subject"]: part["state"] for part in parts}
    assert found == {
        "base": "cached",
        "base_few_shot": "completed",  # its examples are mislabelled too
        "champion": "cached",
        "candidate": "completed",
    }
    assert states(summary)["gate"] == "completed"
