"""Leaks of held-out rows: by words against brute force, by meaning on a labelled set."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean import decontaminate as module
from tasks.clean.config import DecontaminationConfig
from tasks.clean.decontaminate import decontaminate, shingle
from tasks.clean.rows import Finding, Rows
from tasks.embeddings import EmbeddingConfig, embed
from tasks.example import Example, Message, content_id, to_table

DATA = Path(__file__).parents[2] / "data"
CONFIG = DecontaminationConfig()


def row(prompt: str, answer: str = "a") -> Example:
    turns = (Message("user", prompt), Message("assistant", answer))
    return Example(content_id(turns), turns, "human", "g")


def rows_of(examples: Sequence[Example]) -> Rows:
    return Rows(to_table(examples))


def texts(values: Sequence[str]) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def leaks(
    prompts: Sequence[str | Example],
    held_out: Sequence[str],
    config: DecontaminationConfig = CONFIG,
    answers: Sequence[str] | None = None,
    words: int = 3,
) -> list[Finding]:
    """Findings by words; held-out rows are called h0, h1 ..."""
    examples = [row(p) if isinstance(p, str) else p for p in prompts]
    ids = [f"h{n}" for n in range(len(held_out))]
    given = None if answers is None else texts(answers)
    return decontaminate(rows_of(examples), texts(held_out), ids, given, config, words, None)


GOLDEN = "the parcel came open and half of what I ordered was not in the box"


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (GOLDEN, "golden_exact"),
        (GOLDEN.upper() + "!", "golden_exact"),
        (GOLDEN.replace(" ", " - ").replace("open", "“open”"), "golden_exact"),
        (f"well, {GOLDEN} thanks", "golden_similar"),
        ("the parcel came open and half of what I ordered was not in the car", "golden_similar"),
        (" ".join(map(str, range(80))) + GOLDEN, "golden_containment"),  # held by a long text
        ("the parcel came late and none of what I wanted was in it", None),
        ("the parcel came open", None),
        ("", None),
        ("?!", None),
    ],
)
def test_by_words(prompt: str, reason: str | None) -> None:
    found = leaks([prompt], ["something else", "", GOLDEN])
    assert [(f.index, f.reason) for f in found] == ([(0, reason)] if reason else [])
    assert all("h2" in f.detail for f in found)


def test_a_piece_of_a_long_held_out_text() -> None:
    document = f"{GOLDEN} and the driver who brought it on Monday drove off before I could say so"
    found = leaks([GOLDEN, "the parcel came open and half"], [document])
    assert [(f.index, f.reason, f.detail) for f in found] == [
        (0, "golden_containment", "1.00 of it stand in h0")
    ]


def test_a_greeting_is_not_held_by_every_row_that_begins_with_it() -> None:
    held_out = ["hello", "please cancel my order", "hello there, I have a question for you"]
    rows = [
        "Hello! My kettle leaks and I would like to have another one.",
        "Hello there, I have a question for you: when does the shop in town open on Sundays?",
        "The box was wet. Please cancel my order and send the money back to my card.",
        "hello",
        "Please cancel my order!",
    ]
    found = leaks(rows, held_out)
    assert [(f.index, f.reason) for f in found] == [(3, "golden_exact"), (4, "golden_exact")]


def test_a_lower_least_size_holds_short_texts_too() -> None:
    config = DecontaminationConfig(min_shingles=2)
    found = leaks(["The box was wet, please cancel my order"], ["please cancel my order"], config)
    assert [f.reason for f in found] == ["golden_containment"]


def test_the_same_conversation_is_found_without_a_word_in_its_prompt() -> None:
    example = row("🙂🙂", "Thanks!")
    found = decontaminate(
        rows_of([example, row("🙂", "Thanks!")]),
        texts(["🙂🙂"]),
        [example.id],
        None,
        CONFIG,
        3,
        None,
    )
    assert [(f.index, f.reason) for f in found] == [(0, "golden_exact")]


def test_scripts_without_spaces() -> None:
    question = "我上周订购的水壶底部漏水了请问怎么退货"
    found = leaks([f"你好{question}谢谢", "我的银行卡还没有到"], [question])
    assert [(f.index, f.reason) for f in found] == [(0, "golden_similar")]


ANSWER = "Unplug the kettle, wait ten minutes, descale it with vinegar and rinse it twice"


def test_long_held_out_answers_are_looked_for_in_every_turn() -> None:
    rows = [
        row("what now", f"Sure. {ANSWER}. Tell us how it went."),
        row(f"You told me this: {ANSWER}. It did not help.", "Sorry to hear that"),
        row("what now", "Unplug the kettle"),
    ]
    found = leaks(rows, ["my kettle is white inside", "x"], answers=[ANSWER, "Yes"])
    assert [(f.index, f.reason) for f in found] == [
        (0, "golden_containment"),
        (1, "golden_containment"),
    ]
    assert found[0].detail == "holds 1.00 of the answer of h0"
    assert leaks(rows, ["my kettle is white inside"]) == []


def test_canned_answers_are_no_leak() -> None:
    rows = [row(f"question number {n} about {n * n}", ANSWER) for n in range(40)]
    assert leaks(rows, ["another one"], answers=[ANSWER]) == []
    assert leaks(rows[:2], ["another one", "and one more"], answers=[ANSWER, ANSWER]) == []


def test_long_held_out_prompts_are_looked_for_in_answers() -> None:
    found = leaks([row("write a complaint", f"Dear shop, {GOLDEN}. Yours, A.")], [GOLDEN])
    assert [f.reason for f in found] == ["golden_containment"]


def test_reasons_say_what_the_rows_were_held_against() -> None:
    held_out = texts([GOLDEN])
    found = decontaminate(rows_of([row(GOLDEN)]), held_out, ["h"], None, CONFIG, 3, None, "test")
    assert [(f.reason, f.detail) for f in found] == [("test_exact", "the same as h")]


@pytest.mark.parametrize("num_rows", [0, 1])
def test_nothing_to_hold_against(num_rows: int) -> None:
    assert leaks([GOLDEN] * num_rows, []) == []
    assert leaks([], [GOLDEN]) == []


# ---------------------------------------------------------------- against brute force


def plain(text: str, words: int) -> tuple[list[str], frozenset[tuple[str, ...]]]:
    """The definition: words are runs of letters, marks and digits of the folded text."""
    folded = unicodedata.normalize("NFKC", text).lower()
    tokens = re.findall(r"[^\W_]+", folded)
    runs = [tuple(tokens[i : i + words]) for i in range(max(1, len(tokens) - words + 1))]
    return tokens, frozenset(runs if tokens else [])


def expected(prompt: str, held_out: Sequence[str], config: DecontaminationConfig) -> str | None:
    tokens, own = plain(prompt, 2)
    found = set()
    for text in held_out:
        other_tokens, other = plain(text, 2)
        if not tokens or not other_tokens:
            continue
        shared = len(own & other)
        if tokens == other_tokens:
            found.add("golden_exact")
        elif shared >= config.jaccard * len(own | other) - 1e-9:
            found.add("golden_similar")
        elif any(
            len(side) >= config.min_shingles and shared >= config.containment * len(side) - 1e-9
            for side in (own, other)
        ):
            found.add("golden_containment")
    order = ("golden_exact", "golden_similar", "golden_containment")
    return next((reason for reason in order if reason in found), None)


phrases = st.lists(
    st.lists(st.sampled_from(["a", "B", "c", "d,", "é", "7"]), max_size=14).map(" ".join),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(
    phrases,
    phrases,
    st.sampled_from([0.3, 0.5, 0.6, 1.0]),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.sampled_from([1, 3, 6]),
)
def test_every_row_gets_the_verdict_of_brute_force(
    prompts: list[str], held_out: list[str], jaccard: float, containment: float, least: int
) -> None:
    config = DecontaminationConfig(jaccard=jaccard, containment=containment, min_shingles=least)
    examples = [row(p, f"n{n}") for n, p in enumerate(prompts)]
    found = {f.index: f.reason for f in leaks(examples, held_out, config, words=2)}
    wanted = {i: expected(p, held_out, config) for i, p in enumerate(prompts)}
    assert found == {i: reason for i, reason in wanted.items() if reason}


def test_shared_beginnings_hide_no_leak() -> None:
    """Postings of a template's shingles are long and not walked; what is rare still tells."""
    rng = random.Random(0)
    template = "thank you for calling the help line of the shop today my concern is"
    held_out = [f"{template} {' '.join(rng.choices(WORDS, k=9))}" for _ in range(200)]
    rows = [f"{template} {' '.join(rng.choices(WORDS, k=9))}" for _ in range(200)]
    rows += [f"{text} {rng.choice(WORDS)}" for text in held_out]
    config = DecontaminationConfig(jaccard=0.75, containment=0.9)
    found = {f.index for f in leaks(rows, held_out, config)}
    assert found == {i for i, text in enumerate(rows) if expected_at_3(text, held_out, config)}
    assert set(range(200, 400)) <= found


WORDS = [f"w{n}" for n in range(60)]


def expected_at_3(text: str, held_out: Sequence[str], config: DecontaminationConfig) -> bool:
    own = plain(text, 3)[1]
    for other in (plain(h, 3)[1] for h in held_out):
        shared = len(own & other)
        share = max(shared / len(own), shared / len(other))
        if shared >= config.jaccard * len(own | other) or share >= config.containment:
            return True
    return False


@given(st.permutations(range(6)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_held_out_rows_does_not_matter(order: list[int]) -> None:
    held = [f"{GOLDEN} {n}" for n in range(6)]
    ids = [f"h{n}" for n in range(6)]
    rows = rows_of([row(GOLDEN)])
    shuffled = texts([held[i] for i in order]), [ids[i] for i in order]
    found = decontaminate(rows, shuffled[0], shuffled[1], None, CONFIG, 3, None)
    assert [f.detail for f in found] == ["similarity 0.93 to h0"]


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [GOLDEN, "x y z", *[f"{GOLDEN} {n}" for n in range(9)]]
    whole = leaks(rows, [GOLDEN])
    monkeypatch.setattr(module, "_BLOCK", 2)
    assert leaks(rows, [GOLDEN]) == whole
    assert len(whole) == 10


@given(st.lists(st.text(max_size=30), max_size=5), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_shingles_are_a_function_of_the_text_alone(values: list[str], words: int) -> None:
    made = shingle(texts(values), words)
    for at, value in enumerate(values):
        alone = shingle(texts(["other one", value]).slice(1), words)
        assert made.wholes[at] == alone.wholes[0]
        own = made.hashes[made.offsets[at] : made.offsets[at + 1]]
        assert own.tolist() == alone.hashes.tolist() == sorted(set(own.tolist()))


# ---------------------------------------------------------------- by meaning


VECTORS: dict[str, np.ndarray] = {}


def model(values: Sequence[str]) -> np.ndarray:
    """The real model, each text once."""
    new = sorted(set(values) - VECTORS.keys())
    VECTORS.update(zip(new, embed(new, EmbeddingConfig()), strict=True))
    return np.array([VECTORS[v] for v in values])


def by_meaning(prompts: Sequence[str], held_out: Sequence[str], cosine: float) -> list[Finding]:
    ids = [f"h{n}" for n in range(len(held_out))]
    config = DecontaminationConfig(cosine=cosine, jaccard=1, min_shingles=10_000)
    rows = rows_of([row(p) for p in prompts])
    return decontaminate(rows, texts(held_out), ids, None, config, 3, model)


def test_rewordings_and_paraphrases_at_the_default() -> None:
    """What a small model can and cannot tell; run with -s to see the figures.

    Rewordings are found mostly, paraphrases in other words hardly: no threshold tells them from
    other questions of the same topic, of which a few are nearer in meaning than any paraphrase.
    """
    lines = (DATA / "paraphrases.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    model([pair[side] for pair in pairs for side in ("row", "held_out")])
    found: dict[str, int] = dict.fromkeys(("reworded", "paraphrased", "other"), 0)
    total = dict(found)
    for kind in found:
        chosen = [p for p in pairs if p["kind"] == kind]
        total[kind] = len(chosen)
        for pair in chosen:
            found[kind] += len(by_meaning([pair["row"]], [pair["held_out"]], CONFIG.cosine))
    leaked = found["reworded"] + found["paraphrased"]
    precision = leaked / (leaked + found["other"])
    print(f"meaning at {CONFIG.cosine}: {found} of {total}, precision {precision:.2f}")
    assert total == {"reworded": 20, "paraphrased": 40, "other": 40}
    assert found["reworded"] >= 12
    assert found["other"] <= 3


def test_only_the_meaning_tells() -> None:
    held_out = ["When will the monitor be back in stock?", "How do I change my PIN?"]
    rows = [
        "when is the monitor going to be back in stock", "Do you sell monitors?", "😀", ""
    ]  # fmt: skip
    found = by_meaning(rows, [*held_out, "😀", ""], 0.9)
    assert [(f.index, f.reason) for f in found] == [(0, "golden_meaning")]
    assert re.fullmatch(r"cosine 0\.9\d to h0", found[0].detail)


def test_other_numbers_are_another_question() -> None:
    held_out = ["Please send 250 euros to Anna.", "Send 200 euros to Anna please."]
    found = by_meaning(["Please send 200 euros to Anna."], held_out[:1], 0.9)
    assert found == []
    found = by_meaning(["Please send 200 euros to Anna."], held_out, 0.9)
    assert [f.detail.split()[-1] for f in found] == ["h1"]


def test_the_nearest_is_found_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With vectors of our own: 40 rows, 30 held-out ones, blocks of 7."""
    rng = np.random.default_rng(0)
    names = [f"n{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(70)]
    unit = rng.normal(size=(70, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    vectors = dict(zip(names, unit.astype(np.float32), strict=True))

    def table(values: Sequence[str]) -> np.ndarray:
        return np.array([vectors[v] for v in values])

    rows, held_out = rows_of([row(n) for n in names[:40]]), names[40:]
    whole = decontaminate(rows, texts(held_out), held_out, None, CONFIG, 3, table)
    products = table(names[:40]) @ table(held_out).T
    assert [f.index for f in whole] == np.flatnonzero(products.max(1) >= CONFIG.cosine).tolist()
    for f in whole:
        assert f.detail.split()[-1] == held_out[int(products[f.index].argmax())]
    monkeypatch.setattr(module, "_EMBEDDED_AT_ONCE", 7)
    monkeypatch.setattr(module, "_COMPARED_AT_ONCE", 7)
    assert decontaminate(rows, texts(held_out), held_out, None, CONFIG, 3, table) == whole
    assert 0 < len(whole) < 40
