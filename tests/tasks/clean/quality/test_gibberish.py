"""Gibberish stands out by its letters; short, uniform and foreign texts do not."""

import json
import math
import random
import string
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean.config import GibberishConfig
from tasks.clean.quality.gibberish import dominant_scripts, gibberish, strangeness, surprises
from tasks.example import normalise

SUBJECTS = ("The kettle", "My parcel", "Your invoice", "The router", "Our order")
VERBS = ("arrived late", "does not work", "was never sent", "is much too loud", "looks broken")
ENDS = ("since Monday.", "and I want my money back.", "although I paid.", "in the kitchen.")
SENTENCES = [f"{s} {v} {e}" for s in SUBJECTS for v in VERBS for e in ENDS]
RUSSIAN = [
    f"{s} {v} {e}"
    for s in ("Чайник", "Мой заказ", "Наш роутер", "Ваш счёт")
    for v in ("пришёл поздно", "не работает", "так и не отправили", "слишком шумит")
    for e in ("с понедельника.", "и я хочу вернуть деньги.", "хотя я заплатил.")
]
CHINESE = [
    "您好，我的订单还没有到，请问什么时候能送达？",
    "这个水壶坏了，我想退货并要求全额退款，谢谢。",
]
FOREIGN = [
    "Guten Tag, mein Wasserkocher ist gestern kaputtgegangen und ich möchte ihn zurückgeben.",
    "Bonjour, je n'ai toujours pas reçu ma commande, pouvez-vous m'aider s'il vous plaît ?",
    "Hola, quisiera saber cuándo llegará mi pedido, porque lo necesito para el viernes.",
    "Dzień dobry, chciałbym zwrócić czajnik, ponieważ nie działa od poniedziałku.",
]

# The prompts of the sample data that no dirt was planted in.
ROOT = Path(__file__).parents[4]
KEY = map(json.loads, (ROOT / "tests/data/sample_key.jsonl").read_text("utf-8").splitlines())
DIRTY = {entry["line"] for entry in KEY if entry["file"] == "synthetic.jsonl"}
LINES = (ROOT / "deployments/sample/synthetic.jsonl").read_text("utf-8").splitlines()
SAMPLE = [json.loads(line)["prompt"] for i, line in enumerate(LINES, 1) if i not in DIRTY]


def texts(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.large_string())


def mashed(seed: int, letters: str = string.ascii_lowercase) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(letters, k=6)) for _ in range(8))


def found(values: Sequence[str]) -> list[int]:
    return [f.index for f in gibberish(texts(values), GibberishConfig())]


def surprises_by_dictionaries(values: Sequence[str]) -> list[float]:
    """The definition, one text after the other: what the kernel must equal."""

    def trigrams_of(text: str) -> list[str]:
        padded = f"  {normalise(text)} "
        return [padded[i : i + 3] for i in range(len(padded) - 2)]

    def contexts_of(counts: Counter[str]) -> Counter[str]:
        contexts: Counter[str] = Counter()
        for trigram, count in counts.items():
            contexts[trigram[:2]] += count
        return contexts

    own = [Counter(trigrams_of(value)) for value in values]
    trigrams = sum(own, Counter())
    contexts = contexts_of(trigrams)
    alphabet = len({trigram[2] for trigram in trigrams}) or 1
    result = []
    for counts in own:
        own_contexts = contexts_of(counts)
        bits = 0.0
        for trigram, count in counts.items():
            others = trigrams[trigram] - count
            total = contexts[trigram[:2]] - own_contexts[trigram[:2]]
            bits -= count * math.log2((others + 0.1) / (total + 0.1 * alphabet))
        result.append(bits / counts.total())
    return result


@settings(deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("abcAB Éıßﬁ漢字\t\n\x1c\u00a0\u3000İΣς👍\u0301"), max_size=20),
        max_size=8,
    )
)
def test_the_kernel_equals_the_definition(values: list[str]) -> None:
    expected = surprises_by_dictionaries(values)
    np.testing.assert_allclose(surprises(texts(values)), expected, rtol=1e-12, atol=1e-12)


def test_the_kernel_equals_the_definition_on_sentences_and_on_a_slice() -> None:
    values = ["left out", *SENTENCES, *RUSSIAN, *CHINESE, *FOREIGN]
    expected = surprises_by_dictionaries(values[1:])
    np.testing.assert_allclose(surprises(texts(values).slice(1)), expected, rtol=1e-12)


def test_more_characters_than_are_told_apart_are_still_judged() -> None:
    rare = "".join(chr(0x4E00 + i) for i in range(1000))
    bits = surprises(texts([*SENTENCES, rare]))
    assert np.isfinite(bits).all()
    assert bits[-1] > bits[:-1].max()


def test_a_null_is_an_empty_text() -> None:
    np.testing.assert_array_equal(surprises(texts(["ab", None])), surprises(texts(["ab", ""])))


def test_random_letters_stand_out_and_sentences_do_not() -> None:
    mash = [mashed(seed) for seed in range(5)]
    findings = gibberish(texts([*SENTENCES, *mash]), GibberishConfig())
    assert [f.index for f in findings] == list(range(100, 105))
    assert {f.reason for f in findings} == {"gibberish"}
    assert "bits a character" in findings[0].detail


def test_a_row_does_not_vouch_for_itself() -> None:
    text = mashed(1) * 20
    alone = surprises(texts([*SENTENCES, text]))[-1]
    assert alone > 2 * surprises(texts(SENTENCES)).max()


def test_several_copies_vouch_for_each_other() -> None:
    """Why duplicates go first: what is said often is not an outlier."""
    once = surprises(texts([*SENTENCES, mashed(1)]))[-1]
    twice = surprises(texts([*SENTENCES, mashed(1), mashed(1)]))[-1]
    assert twice < once / 2


def test_the_order_of_the_rows_does_not_matter() -> None:
    values = [*SENTENCES, *RUSSIAN, *FOREIGN, mashed(1)]
    order = random.Random(0).sample(range(len(values)), len(values))
    shuffled = surprises(texts([values[i] for i in order]))
    np.testing.assert_array_equal(shuffled, surprises(texts(values))[order])


@pytest.mark.parametrize(
    "values",
    [
        [],
        [mashed(1)],
        [SENTENCES[0], mashed(1)],
        [*SENTENCES[:8], mashed(1)],
        ["The same sentence again."] * 50,
        [*SENTENCES, "qx zzk"],
    ],
    ids=["none", "one", "two", "nine", "alike", "short"],
)
def test_where_there_is_too_little_evidence_nothing_goes(values: list[str]) -> None:
    assert found(values) == []


def test_a_few_rows_of_another_script_are_no_gibberish() -> None:
    assert found([*SENTENCES, *CHINESE, *RUSSIAN[:3]]) == []


def test_a_few_rows_of_another_language_are_no_gibberish() -> None:
    assert found([*SENTENCES, *FOREIGN]) == []
    assert found([*SAMPLE, *FOREIGN]) == []


def test_each_script_is_judged_by_its_own() -> None:
    letters = "абвгдежзийклмнопрстуфхцчшщыьэюя"
    mash = [mashed(seed, letters) for seed in range(3)]
    values = [*SENTENCES, *RUSSIAN, *mash, mashed(1)]
    assert found(values) == list(range(len(values) - 4, len(values)))


@pytest.mark.parametrize(
    "text",
    [
        "for i in range(10): print(i, x[i])",
        '<div class="row"><p>Hello</p></div>',
        "2024-01-02 03:04:05,123 ERROR [main] com.acme.Shop - failed",
        "See https://example.com/a/b?c=1&d=2#frag for it.",
        "Which ATMs accept this circuit board, Xavier Quezada?",
    ],
)
def test_what_is_strange_but_in_order_stays(text: str) -> None:
    assert len(SAMPLE) > 200
    assert found([*SAMPLE, text]) == []


def test_the_script_of_most_letters() -> None:
    scripts = dominant_scripts(texts(["abc дe", "абв d", "1 + 1!", "", "日本のケトル", "订单 A1"]))
    latin, cyrillic, none, empty, kana, han = scripts.tolist()
    assert len({latin, cyrillic, none, kana}) == 4
    assert none == empty
    assert kana == han


def test_short_texts_have_no_strangeness() -> None:
    strange = strangeness(texts([*SENTENCES, "short"]), GibberishConfig())
    assert np.isnan([strange.bits[-1], strange.deviations[-1]]).all()
    assert np.isfinite(strange.deviations[:-1]).all()


def test_switched_off() -> None:
    values = texts([*SENTENCES, mashed(1)])
    assert gibberish(values, GibberishConfig(enabled=False)) == []
