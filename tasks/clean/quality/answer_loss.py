"""How much each answer surprises the base model, given its prompt.

The base model has seen none of the rows, so that every loss is a held-out one. An answer that fits
its prompt worse than nearly all others do is often the answer to another prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.artifacts import BaseModelRef
from tasks.clean.quality.perplexity import load
from tasks.likelihood import continuation_surprise

AnswerLoss = Callable[[Sequence[str], Sequence[str]], npt.NDArray[np.float64]]

_MOST_PROMPT_TOKENS = 384  # the last of them: what stands next to the answer says most
_MOST_ANSWER_TOKENS = 128


def make_answer_loss(base: BaseModelRef) -> AnswerLoss:
    """A scorer by the base model, which is loaded at its first answer."""
    loaded: list[tuple[Any, Any]] = []

    def score(prompts: Sequence[str], answers: Sequence[str]) -> npt.NDArray[np.float64]:
        if not loaded:
            loaded.append(load(base))
        return answer_losses(*loaded[0], prompts, answers)

    return score


def answer_losses(
    model: Any, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Mean nats a token of each answer, in the model's own template; NaN for an empty answer."""
    asked = [_prompt_tokens(tokenizer, prompt) for prompt in prompts]
    said = [
        tokenizer(answer, add_special_tokens=False)["input_ids"][:_MOST_ANSWER_TOKENS]
        for answer in answers
    ]
    total = continuation_surprise(model, tokenizer.pad_token_id, asked, said)
    return np.asarray(total / [max(1, len(answer)) for answer in said])


def _prompt_tokens(tokenizer: Any, prompt: str) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids[-_MOST_PROMPT_TOKENS:]
