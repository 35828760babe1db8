"""The checks together: nothing disappears, a group is never cut, and a rerun gives the same."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.clean.config import CleanConfig, PiiConfig, SplitConfig
from tasks.clean.pipeline import clean_examples, split_of, write
from tasks.errors import DataError
from tasks.example import Example, Message, content_id, from_table
from tasks.objects import LocalStore
from tasks.storage import commit

NO_PII = CleanConfig(pii=PiiConfig(enabled=False))
THINGS = ("kettle", "router", "lamp", "tablet", "charger", "camera")
FAULTS = ("does not start", "arrived broken", "was billed twice", "makes a strange noise")
ENDS = ("Who can help me with it this week?", "I want to send it back.", "What does that cost?")
PROMPTS = [f"The {t} that I bought {f}. {e}" for t in THINGS for f in FAULTS for e in ENDS]


def row(prompt: str, answer: str = "We are sorry.", line: int = 1) -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    identity = content_id(turns)
    return Example(identity, turns, "human", identity, meta={"file": "rows.csv", "line": f"{line}"})


GOLDEN = row("How do I connect the new speaker to the telephone of my grandmother?")


def dirty_rows() -> list[Example]:
    """Clean rows among one or two of each kind of dirt, with personal data in the rejected ones."""
    named = "Daniel Moreau, daniel.moreau@example.com, +1 202-555-0134"
    rows = [row(prompt) for prompt in PROMPTS]
    rows += [row(PROMPTS[0].upper()), row(f"Hello, {PROMPTS[1]} Thanks."), row(PROMPTS[2], "")]
    rows += [
        row(f"I am {named}. {GOLDEN.prompt}"),
        row(f"{'x ' * 75}daniel.moreau@example.com", ""),
    ]
    rows += [row("zxq vbn mmw qqz pfk xrt zzv bgt wqx plm kjh")]
    return rows


def test_nothing_is_lost() -> None:
    rows = dirty_rows()
    cleaned = clean_examples(rows, [GOLDEN], CleanConfig(), TaskConfig())
    assert len(cleaned.examples) + len(cleaned.rejections) == len(rows)
    assert len(cleaned.splits) == len(cleaned.examples)
    out = Counter(e.id for e in cleaned.examples) + Counter(
        r.example.id for r in cleaned.rejections
    )
    assert out == Counter(e.id for e in rows)
    assert cleaned.num_rejected["empty_assistant_turn"] == 2
    assert cleaned.num_rejected["exact_duplicate"] == 1
    assert cleaned.num_rejected["golden_overlap"] == 1
    assert cleaned.num_rejected["gibberish"] == 1
    assert cleaned.steps[0] == ("read", len(rows))
    assert cleaned.steps[-1] == ("gibberish", len(cleaned.examples))


def test_when_nothing_is_left_the_counts_say_why() -> None:
    rows = [row("Where is it?", "", line=3), row("Where is it now?", "  ", line=4)]
    with pytest.raises(DataError, match=r"All 2 rows.*empty_assistant_turn: 2.*rows\.csv:3"):
        clean_examples(rows, [GOLDEN], NO_PII, TaskConfig())


def test_rejected_rows_can_be_read_back_and_samples_hold_no_personal_data(tmp_path: Path) -> None:
    cleaned = clean_examples(dirty_rows(), [GOLDEN], CleanConfig(), TaskConfig())
    write(cleaned, CleanConfig(), tmp_path)
    rejected = pq.read_table(tmp_path / "rejected.parquet")
    assert from_table(rejected) == [r.example for r in cleaned.rejections]
    assert all(rejected.column("detail").to_pylist())
    assert Counter(rejected.column("reason").to_pylist()) == cleaned.num_rejected
    kept = pq.read_table(tmp_path / "examples.parquet")
    assert from_table(kept) == cleaned.examples
    assert kept.column("split").to_pylist() == cleaned.splits
    text = (tmp_path / "stats.json").read_text(encoding="utf-8")
    # Half a mail address at the end of a sample would no longer be recognised as one.
    for personal in ("Moreau", "daniel.m", "202-555"):
        assert personal not in text
    stats = json.loads(text)
    assert {s["reason"] for s in stats["samples"]} == set(cleaned.num_rejected)
    assert all(len(s["text"]) <= 160 for s in stats["samples"])


def test_a_rerun_gives_the_same_artifact(tmp_path: Path) -> None:
    addresses = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        cleaned = clean_examples(dirty_rows(), [GOLDEN], CleanConfig(), TaskConfig())
        write(cleaned, CleanConfig(), tmp_path / name)
        addresses.add(commit(LocalStore(tmp_path / "store"), "clean", tmp_path / name))
    assert len(addresses) == 1


groups = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(groups), st.lists(groups))
def test_a_group_stays_in_its_split_as_data_grows(now: list[str], later: list[str]) -> None:
    config = SplitConfig()
    before = {group: split_of(group, config) for group in now}
    after = {group: split_of(group, config) for group in [*later, *now]}
    assert before.items() <= after.items()


@given(groups, st.floats(0.05, 0.45))
def test_a_larger_train_share_takes_no_row_out_of_train(group: str, share: float) -> None:
    small = SplitConfig(train=share, validation=0.5, test=0.5 - share)
    large = SplitConfig(train=share + 0.05, validation=0.45, test=0.5 - share)
    assert split_of(group, small) != "train" or split_of(group, large) == "train"


def test_the_shares_are_about_right() -> None:
    counts = Counter(split_of(f"customer-{n}", SplitConfig()) for n in range(10_000))
    assert abs(counts["train"] - 8000) < 160
    assert abs(counts["validation"] - 1000) < 120
    assert abs(counts["test"] - 1000) < 120


def test_a_group_is_never_cut() -> None:
    rows = [
        Example(e.id, e.messages, e.source, f"customer-{n % 20}")
        for n, e in enumerate(map(row, PROMPTS))
    ]
    cleaned = clean_examples(rows, [GOLDEN], NO_PII, TaskConfig())
    splits = {(e.group, s) for e, s in zip(cleaned.examples, cleaned.splits, strict=True)}
    assert len(splits) == 20
    assert len({s for _, s in splits}) > 1
