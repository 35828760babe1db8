"""The checks together: nothing disappears, nothing leaks, and a rerun gives the same."""

import json
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifacts import TaskConfig
from tasks.clean.account import Account
from tasks.clean.config import CleanConfig, PiiConfig
from tasks.clean.models import Models
from tasks.clean.output import write
from tasks.clean.pipeline import clean_rows
from tasks.clean.rows import Finding, Rows
from tasks.errors import DataError
from tasks.example import Example, to_table
from tasks.objects import LocalStore
from tasks.storage import commit
from tests.examples import make_example

VOCABULARY = [
    *("kettle", "router", "lamp", "tablet", "charger", "camera", "garden", "window"),
    *("river", "mountain", "letter", "bridge", "market", "teacher", "winter", "orange"),
    *("silver", "travel", "mirror", "candle", "pocket", "bottle", "ticket", "doctor"),
    *("forest", "simple", "quickly", "never", "always", "before", "behind", "under"),
    *("yellow", "morning", "evening", "carry", "listen", "borrow", "repair", "explain"),
    *("return", "wonder", "follow", "promise", "between", "during", "without", "another"),
    *("several",),
]
RNG = random.Random(7)
# Twelve words in an order of their own: no two resemble each other.
PROMPTS = [" ".join(RNG.sample(VOCABULARY, 12)) + "?" for _ in range(72)]
GOLDEN = make_example("How do I connect the new speaker to the telephone of my grandmother?")
TEXT = TaskConfig()


def config(**changes: Any) -> CleanConfig:
    return CleanConfig.model_validate({"allow": ["few_examples"], **changes})


def without_pii(**changes: Any) -> CleanConfig:
    return config(pii={"enabled": False}, **changes)


def run(
    examples: list[Example], how: CleanConfig, task: TaskConfig = TEXT, **models: Any
) -> Account:
    return clean_rows(
        Rows(to_table(examples)), Rows(to_table([GOLDEN])), how, task, Models(**models)
    )


def row(prompt: str, answer: str = "We are sorry.", line: int = 1, **more: Any) -> Example:
    return make_example(prompt, answer, line=line, **more)


def dirty_rows() -> list[Example]:
    """Clean rows among one or two of each kind of dirt, with personal data in the rejected ones."""
    named = "Daniel Moreau, daniel.moreau@example.com, +1 202-555-0134"
    rows = [row(prompt) for prompt in PROMPTS]
    rows += [row(PROMPTS[0].upper()), row(f"Hello, {PROMPTS[1]} Thanks."), row(PROMPTS[2], "")]
    rows += [
        row(f"I am {named}. {GOLDEN.prompt}"),
        row(f"{'x ' * 75}daniel.moreau@example.com", ""),
        row("zxq vbn mmw qqz pfk xrt zzv bgt wqx plm kjh"),
        row("Can the blender crush ice?", "As an AI language model, I cannot say."),
        row("What does the warranty of the toaster cover? Itâ€™s two years old."),
    ]
    return rows


def rejected(account: Account) -> pa.Table:
    return pa.concat_tables(account.rejected)


def test_nothing_is_lost() -> None:
    rows = dirty_rows()
    account = run(rows, config())
    out = Counter(account.rows.column("id").to_pylist())
    gone = rejected(account)
    assert out + Counter(gone.column("id").to_pylist()) == Counter(e.id for e in rows)
    reasons = account.num_rejected
    assert reasons["empty_assistant_turn"] == 2
    assert reasons["exact_duplicate"] == 1
    assert reasons["gibberish"] == 1
    assert reasons["boilerplate"] == 1
    assert sum(n for reason, n in reasons.items() if reason.startswith("golden_")) == 1
    assert sum(reasons.values()) == len(gone)
    assert all(gone.column("detail").to_pylist())
    first, *steps = account.steps
    assert (first.name, first.num_out) == ("read", len(rows))
    for before, step in zip(account.steps, steps, strict=False):
        assert step.num_in == before.num_out
        assert step.num_in - step.num_out == sum(step.num_rejected.values())
    assert steps[-1].num_out == len(account.rows)
    assert next(s for s in steps if s.name == "unicode").bars["repaired"] == 1


def test_when_nothing_is_left_the_counts_say_why() -> None:
    rows = [row("Where is it?", "", line=3), row("Where is it now?", "  ", line=4)]
    with pytest.raises(DataError, match=r"All 2 rows.*empty_assistant_turn: 2.*rows\.csv:3"):
        run(rows, without_pii())


def test_rejected_rows_can_be_read_back_and_samples_hold_no_personal_data(tmp_path: Path) -> None:
    account = run(dirty_rows(), config())
    write(account, config(), tmp_path)
    gone = pq.read_table(tmp_path / "rejected.parquet")
    assert gone.equals(rejected(account))
    assert pq.read_table(tmp_path / "examples.parquet").equals(account.rows.table)
    text = (tmp_path / "stats.json").read_text(encoding="utf-8")
    # Half a mail address at the end of a sample would no longer be recognised as one.
    for personal in ("Moreau", "daniel.m", "202-555"):
        assert personal not in text
    stats = json.loads(text)
    assert {s["reason"] for s in stats["samples"]} == set(account.num_rejected)
    assert all(len(s["text"]) <= 160 for s in stats["samples"])
    assert json.loads((tmp_path / "profile.json").read_text(encoding="utf-8"))


def test_a_run_without_rejections_writes_the_same_files(tmp_path: Path) -> None:
    account = run([row(p) for p in PROMPTS], without_pii())
    assert account.rejected == []
    write(account, without_pii(), tmp_path)
    assert pq.read_table(tmp_path / "rejected.parquet").num_rows == 0


def test_a_rerun_gives_the_same_artifact(tmp_path: Path) -> None:
    addresses = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(run(dirty_rows(), config()), config(), tmp_path / name)
        addresses.add(commit(LocalStore(tmp_path / "store"), "clean", tmp_path / name))
    assert len(addresses) == 1


def test_a_group_is_never_cut() -> None:
    rows = [row(p, group=f"customer-{n % 20}") for n, p in enumerate(PROMPTS)]
    table = run(rows, without_pii()).rows.table
    pairs = set(
        zip(table.column("group").to_pylist(), table.column("split").to_pylist(), strict=True)
    )
    assert len(pairs) == 20
    assert len({split for _, split in pairs}) > 1


WORDS = [f"word{n}" for n in range(60)]
day = datetime(2026, 1, 5, tzinfo=UTC)
weeks = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(range(12)),  # the text: repeats within and between weeks are common
            st.sampled_from(["human", "production", "synthetic"]),
            st.sampled_from(range(8)),  # the customer
        ),
        min_size=1,
        max_size=8,
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(weeks)
def test_what_was_held_out_is_never_trained_on_in_a_later_week(
    weeks: list[list[tuple[int, str, int]]],
) -> None:
    """Each week adds newer rows; an example, or a copy of it under another customer, stays out."""
    how = without_pii(
        quality={"gibberish": {"enabled": False}},
        split={"train": 0.4, "validation": 0.1, "test": 0.5, "production_holdout": 0.3},
    )
    seen: list[Example] = []
    held_out: set[str] = set()
    for number, week in enumerate(weeks):
        seen += [
            row(
                " ".join(WORDS[5 * text : 5 * text + 8]),
                source=source,
                group=f"customer-{customer}",
                created_at=day + timedelta(weeks=number, minutes=minute),
            )
            for minute, (text, source, customer) in enumerate(week)
        ]
        try:
            rows = run(seen, how).rows
        except DataError:  # everything of a first, small week may leak into its own test split
            continue
        ids, splits = rows.column("id").to_pylist(), rows.column("split").to_pylist()
        trained = {i for i, s in zip(ids, splits, strict=True) if s in ("train", "validation")}
        assert not trained & held_out
        held_out |= set(ids) - trained


def test_no_training_row_copies_a_row_of_the_test_split() -> None:
    account = run([row(p, group=f"customer-{n}") for n, p in enumerate(PROMPTS)], without_pii())
    test = account.rows.column("split").to_pylist().count("test")
    assert test > 0
    longer = [
        row(f"{p} And by the way, thank you for the quick answer last time.", group=f"other-{n}")
        for n, p in enumerate(PROMPTS)
    ]
    both = run(
        [*(row(p, group=f"customer-{n}") for n, p in enumerate(PROMPTS)), *longer],
        without_pii(duplicates={"threshold": 1.0}),
    )
    splits = dict(
        zip(
            both.rows.column("group").to_pylist(),
            both.rows.column("split").to_pylist(),
            strict=True,
        )
    )
    trained = {g for g, s in splits.items() if s in ("train", "validation")}
    for n in range(len(PROMPTS)):
        if splits.get(f"customer-{n}") == "test":
            assert f"other-{n}" not in trained
    assert both.num_rejected["test_containment"] > 0


def test_contradictions_go_to_review_and_out() -> None:
    labels = TaskConfig(kind="classification")
    rows = [row(p, "a" if n % 2 else "b") for n, p in enumerate(PROMPTS)]
    rows += [row("Does the oven heat evenly?", "a"), row("Does the oven heat evenly?!", "b")]
    account = run(rows, without_pii(labels={"enabled": False}), labels)
    assert account.num_rejected["conflict"] == 2
    assert [(i.kind, i.dropped) for i in account.review] == [("conflict", True)] * 2


def test_general_rows_are_spared_the_form_of_the_task() -> None:
    tickets = TaskConfig(kind="structured")
    rows = [row(p, '{"a": 1}') for p in PROMPTS]
    rows += [row("Name a river in Peru.", "The Marañón."), row("Name a sea.", "", general="yes")]
    rows += [row("Name a lake in Peru.", "Titicaca.", general="yes")]
    account = run(rows, without_pii(), tickets)
    assert account.num_rejected["answer_not_json"] == 1
    assert account.num_rejected["empty_assistant_turn"] == 1
    assert "Titicaca." in account.rows.answers.to_pylist()


def test_too_few_rows_are_refused_unless_allowed_by_name() -> None:
    rows = [row(p) for p in PROMPTS[:40]]
    with pytest.raises(DataError, match=r"rows to train on; under 100.*clean\.allow"):
        run(rows, CleanConfig(pii=PiiConfig(enabled=False)))
    assert "few_examples" in run(rows, without_pii()).cautions


def test_an_unusual_discard_is_told_or_fails() -> None:
    rows = [row(p) for p in PROMPTS]
    assert "discard_low" in run(rows, without_pii()).cautions
    many = rows + [row(p, "") for p in PROMPTS]
    assert "50% of the rows were discarded" in run(many, without_pii()).cautions["discard_high"]
    with pytest.raises(DataError, match=r"50% of the rows.*empty_assistant_turn: 72"):
        run(many, without_pii(discard={"on_high": "fail"}))


def test_models_are_asked_for_what_only_they_can_tell() -> None:
    asked: list[int] = []

    def count_tokens(texts: list[str]) -> list[int]:
        asked.append(len(texts))
        return [len(t.split()) for t in texts]

    def embed(texts: Any) -> Any:
        vectors = np.zeros((len(texts), 2), dtype=np.float32)
        vectors[:, 0] = ["grandma" in t or "grandmother" in t for t in texts]
        vectors[:, 1] = 1 - vectors[:, 0]
        return vectors

    def judge(rows: Rows) -> tuple[list[Finding], dict[str, Any]]:
        return [Finding(0, "judge_score", "graded 1")], {"spent_usd": 0.5}

    rows = [row(p) for p in PROMPTS]
    rows += [row("Pair grandma's phone and her loudspeaker?"), row("word " * 40)]
    account = run(
        rows,
        without_pii(form={"max_tokens": 30}),
        count_tokens=count_tokens,
        embed=embed,
        judge=judge,
    )
    assert account.num_rejected["too_long"] == 1
    assert account.num_rejected["golden_meaning"] == 1
    assert account.num_rejected["judge_score"] == 1
    assert next(s for s in account.steps if s.name == "judge").notes == ("spent_usd: 0.5",)


def test_progress_reaches_its_end() -> None:
    shares: list[float] = []
    clean_rows(
        Rows(to_table([row(p) for p in PROMPTS])),
        Rows(to_table([GOLDEN])),
        without_pii(),
        TEXT,
        progress=shares.append,
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
