"""The checks together: what they find in the sample data, and which comes first."""

import csv
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.clean.config import PerplexityConfig, QualityConfig
from tasks.clean.quality.checks import quality_findings
from tasks.clean.rows import Rows
from tasks.example import Example, Message, to_table

ROOT = Path(__file__).parents[4]
Place = tuple[str, int]


def rows_of(*turns: tuple[str, str]) -> Rows:
    return Rows(
        to_table(
            Example(str(i), (Message("user", u), Message("assistant", a)), "human", str(i))
            for i, (u, a) in enumerate(turns)
        )
    )


@pytest.fixture(scope="module")
def sample() -> dict[Place, tuple[str, str]]:
    """Prompt and answer of every row of the sample data that can be read, by file and line."""
    folder = ROOT / "deployments" / "sample"
    rows: dict[Place, tuple[str, str]] = {}
    with (folder / "human.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if row["message"] and row["ticket"]:
                rows["human.csv", reader.line_num] = row["message"], row["ticket"]
    for name in ("production.jsonl", "synthetic.jsonl"):
        for number, line in enumerate((folder / name).read_text("utf-8").splitlines(), 1):
            try:
                row = json.loads(line)
                turns = row.get("messages") or []
                prompt = row["prompt"] if "prompt" in row else turns[-2]["content"]
                answer = row["completion"] if "prompt" in row else turns[-1]["content"]
            except (ValueError, AttributeError, LookupError, TypeError):
                continue
            if isinstance(prompt, str) and isinstance(answer, str):
                rows[name, number] = prompt, answer
    return rows


@pytest.mark.parametrize("languages", [(), ("en",)], ids=["any language", "English"])
def test_all_gibberish_of_the_sample_is_found_and_nothing_else(
    sample: dict[Place, tuple[str, str]], languages: tuple[str, ...]
) -> None:
    lines = (ROOT / "tests/data/sample_key.jsonl").read_text("utf-8").splitlines()
    planted = {(k["file"], k["line"]) for k in map(json.loads, lines) if k["kind"] == "gibberish"}
    places = list(sample)
    findings = quality_findings(rows_of(*sample.values()), QualityConfig(languages=languages))
    assert len(places) > 1400
    assert {f.reason for f in findings} == {"gibberish"}
    assert {places[f.index] for f in findings} == planted


WORDS = ["kettle", "lamp", "router", "parcel", "order", "arrived", "late", "broken", "today"]
WORDS += ["please", "send", "it", "back", "now"]


def ordinary(seed: int) -> tuple[str, str]:
    rng = random.Random(seed)
    prompt = f"The {rng.choice(WORDS)} {' '.join(rng.choices(WORDS, k=12))}, thank you."
    return prompt, f"We are sorry. {' '.join(rng.choices(WORDS, k=15))}."


ODD = {
    "gibberish": (
        "wqttqq vxmmz vz enxlw tou vmcvxbzvx mcxbx fkhh qoipuqor hkhhddfsla kfaaf",
        "Yes.",
    ),
    "refusal": (
        "Please send the kettle back to me now.",
        "I'm sorry, but I can't assist with that.",
    ),
    "boilerplate": (
        "Where is my lamp, please?",
        "As an AI language model, I cannot see your lamp.",
    ),
    "wrong_language": ("Guten Tag, mein Wasserkocher ist kaputt und soll zurück.", "Send it back."),
    "prompt_length_outlier": ("The lamp is late today. " * 400, "We are sorry, it arrived today."),
    "answer_length_outlier": (
        "Please send the order now.",
        " ".join(f"The {word} number {i} arrived." for i in range(300) for word in WORDS[:2]),
    ),
    "repeated_ngrams": ("Please send the router now.", "We are sorry, it is late. " * 8),
}
USUAL = [ordinary(seed) for seed in range(300)]
CONFIG = QualityConfig(languages=("en",))


def test_every_reason_is_found_where_it_belongs() -> None:
    findings = quality_findings(rows_of(*USUAL, *ODD.values()), CONFIG)
    assert [f.index for f in findings] == [*range(300, 300 + len(ODD))]
    assert [f.reason for f in findings] == [*ODD]
    assert all(f.detail for f in findings)


def test_a_row_has_one_finding_the_first_in_order() -> None:
    prompt, answer = ODD["gibberish"][0], ODD["refusal"][1]
    findings = quality_findings(rows_of(*USUAL, (prompt, answer)), CONFIG)
    assert [f.reason for f in findings] == ["gibberish"]
    assert findings[0].detail.startswith("prompt: ")


def test_gibberish_in_an_answer_is_found_too() -> None:
    findings = quality_findings(rows_of(*USUAL, (USUAL[0][0], ODD["gibberish"][0])), CONFIG)
    assert [(f.index, f.reason) for f in findings] == [(300, "gibberish")]
    assert findings[0].detail.startswith("answer: ")


def test_checks_can_be_switched_off() -> None:
    off = QualityConfig.model_validate(
        {
            "gibberish": {"enabled": False},
            "reject_boilerplate": False,
            "max_length_deviations": 1e9,
            "max_repeated_share": 1.0,
        }
    )
    assert quality_findings(rows_of(*USUAL, *ODD.values()), off) == []


def test_the_base_model_is_asked_only_where_the_config_says_so() -> None:
    rows = rows_of(*USUAL, ODD["gibberish"], ("Please, kettle 4x7 zq vx lamp 9k now.", "Yes."))
    asked: Counter[str] = Counter()

    def score(texts: Sequence[str]) -> Any:
        asked.update(texts)
        return np.full(len(texts), 6.0)

    assert [f.reason for f in quality_findings(rows, CONFIG, score)] == ["gibberish"]
    assert not asked
    strict = PerplexityConfig(enabled=True, borderline_deviations=0.5)
    config = CONFIG.model_copy(update={"perplexity": strict})
    assert [f.reason for f in quality_findings(rows, config)] == ["gibberish"]
    reasons = Counter(f.reason for f in quality_findings(rows, config, score))
    assert reasons["gibberish"] == 1
    assert 0 < reasons["perplexity"] <= len(asked)
    assert ODD["gibberish"][0] not in asked


@pytest.mark.parametrize("count", [0, 1, 5])
def test_few_rows_are_hardly_judged(count: int) -> None:
    assert quality_findings(rows_of(*USUAL[:count]), CONFIG) == []


def test_texts_of_all_kinds_do_no_harm() -> None:
    strange = [
        "",
        " ",
        "\x00",
        "\ud7ff",
        "漢" * 30,
        "👍" * 30,
        "\u0301" * 30,
        "1" * 100,
        "é" * 3000,
    ]
    findings = quality_findings(rows_of(*((a, b) for a in strange for b in strange)), CONFIG)
    assert {f.index for f in findings} <= set(range(len(strange) ** 2))
