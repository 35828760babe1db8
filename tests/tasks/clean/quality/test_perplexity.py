"""Only borderline texts are scored, the strangest first; a score that is no number passes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.base_model import BaseModelConfig, pin
from tasks.clean.config import GibberishConfig, PerplexityConfig, QualityConfig
from tasks.clean.quality.gibberish import Strangeness
from tasks.clean.quality.perplexity import bits_per_character, borderline, make_score, perplexity

FAR = np.array([np.nan, 0.0, 4.0, 4.1, 6.0, 8.0, 8.1, 5.0])
STRANGE = Strangeness(bits=np.ones(8), order=np.ones(8), deviations=FAR)
TEXTS = pa.array([f"text {i}" for i in range(8)], pa.large_string())
ON = PerplexityConfig(enabled=True)


def test_the_borderline_lies_between_the_limits_strangest_first() -> None:
    assert borderline(STRANGE, GibberishConfig(), ON).tolist() == [5, 4, 7, 3]
    few = PerplexityConfig(enabled=True, max_rows=2)
    assert borderline(STRANGE, GibberishConfig(), few).tolist() == [5, 4]


def test_only_the_borderline_is_scored_and_what_is_too_high_goes() -> None:
    seen: list[str] = []

    def score(texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return np.array([4.1, 4.0, np.nan, 6.25])

    found = perplexity(TEXTS, STRANGE, GibberishConfig(), ON, score)
    assert seen == ["text 5", "text 4", "text 7", "text 3"]
    assert [(f.index, f.reason) for f in found] == [(3, "perplexity"), (5, "perplexity")]
    assert found[0].detail == "6.2 bits a character to the base model, at most 4 are allowed"


def test_where_nothing_is_borderline_no_model_is_asked() -> None:
    calm = Strangeness(bits=np.ones(8), order=np.ones(8), deviations=np.zeros(8))

    def score(texts: Sequence[str]) -> Any:
        pytest.fail("asked")

    assert perplexity(TEXTS, calm, GibberishConfig(), ON, score) == []


@pytest.mark.parametrize(
    "gibberish", [GibberishConfig(enabled=False), GibberishConfig(max_deviations=4.0)]
)
def test_without_a_borderline_the_config_is_wrong(gibberish: GibberishConfig) -> None:
    with pytest.raises(ValueError, match="gibberish"):
        QualityConfig(gibberish=gibberish, perplexity=ON)
    QualityConfig(gibberish=gibberish)


FLUENT = [
    "I would like to know where my order is and when it will arrive.",
    "The kettle does not work any more, so I want to send it back.",
    "Thank you for your message. We will send you a new lamp tomorrow.",
]
MASHED = [
    "qwx vbn mmw qqz pfk xrt zzv bgt wqx plm kjh",
    "dfg hjk lkj asd fgh zxc vbn mnb vcx poi uyt rew",
    "xq zjv kwp fyb qgh mrt lcd nsx vbz jkq wpf hyg",
]


@pytest.mark.slow
def test_the_base_model_tells_gibberish_from_fluent_text(smol: Path) -> None:
    score = make_score(pin(BaseModelConfig(id=str(smol))))
    scores = score([*FLUENT, *MASHED])
    limit = PerplexityConfig().max_bits_per_character
    assert scores[:3].max() < limit - 0.5
    assert scores[3:].min() > limit


@pytest.mark.slow
def test_a_score_does_not_depend_on_its_batch(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    texts = ["", "a", *FLUENT, "word " * 1000, *MASHED]
    together = bits_per_character(model, tokenizer, texts)
    alone = [bits_per_character(model, tokenizer, [text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, rtol=1e-4)
    assert np.isnan(together[:2]).all()
    assert np.isfinite(together[2:]).all()
    assert len(bits_per_character(model, tokenizer, [])) == 0
