"""Human rows of a small ticket task, and a stub that writes and grades examples."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.anthropic_client import make_client
from tasks.artifacts import TaskConfig
from tasks.example import Example, Message, content_id
from tasks.objects import LocalStore
from tasks.synthesize.config import SynthesizeConfig
from tasks.synthesize.pipeline import Synthesis, synthesize_examples
from tests.messages_api import Reply, StubApi, grade, tool_use

BATCHES = {
    "budget_usd": 100.0,
    "input_usd_per_million": 0.5,
    "output_usd_per_million": 2.5,
    "poll_seconds": 0.01,
    "settle_seconds": 0.0,
}
TASK = TaskConfig(
    kind="structured",
    system_prompt="Turn the message into a ticket & answer in <JSON>.",
    answer_schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["kind", "urgent"],
        "properties": {"kind": {"enum": ["billing", "defect"]}, "urgent": {"type": "boolean"}},
    },
)
ANSWER = {"kind": "billing", "urgent": True}
WORDS = ["amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heron", "islet", "joker"]


def sentence(seed: int, words: int = 9) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words)) + f" {seed}"


def row(prompt: str, answer: str = json.dumps(ANSWER), **fields: Any) -> Example:
    messages = (Message("user", prompt), Message("assistant", answer))
    values = {"source": "human", "group": f"g-{prompt[:12]}", **fields}
    return Example(id=content_id(messages), messages=messages, **values)


@pytest.fixture
def rows() -> list[Example]:
    return [row(sentence(i), group=f"group-{i}") for i in range(30)]


@pytest.fixture(autouse=True)
def writer(api: StubApi) -> StubApi:
    """Writes two new examples a request, named after the digits in its seeds, and grades 5."""

    def answer(params: dict[str, Any]) -> Reply:
        text = params["messages"][0]["content"]
        if params["tool_choice"]["name"] == "record_judgement":
            return grade(5)
        number = sum(map(int, re.findall(r"\d+", text))) + len(text) * 1000
        examples = [{"prompt": sentence(number + i), "answer": ANSWER} for i in range(2)]
        return tool_use("record_examples", {"examples": examples}, usage=(500, 100))

    api.answer = answer
    return api


def config(**sections: Any) -> SynthesizeConfig:
    values: dict[str, Any] = {
        "generation": {"num_calls": 5, "seeds_per_call": 3, "examples_per_call": 2},
        "batches": BATCHES,
        "judge": {"batches": BATCHES},
        "diversity": {"embedding": None, "min_rows": 5},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return SynthesizeConfig.model_validate(values)


Synthesize = Callable[..., Synthesis]


@pytest.fixture
def run(api: StubApi, rows: list[Example], tmp_path: Path) -> Synthesize:
    """The whole of a synthesis, on the rows of the fixture unless told otherwise."""

    def synthesize(
        given: list[Example] | None = None,
        splits: list[str] | None = None,
        golden: list[Example] | None = None,
        task: TaskConfig = TASK,
        **sections: Any,
    ) -> Synthesis:
        given = rows if given is None else given
        with make_client({"ANTHROPIC_BASE_URL": api.url}, max_retries=1) as client:
            return synthesize_examples(
                given,
                splits or ["train"] * len(given),
                golden or [],
                config(**sections),
                task,
                client,
                LocalStore(tmp_path / "store"),
            )

    return synthesize
