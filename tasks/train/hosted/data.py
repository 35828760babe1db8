"""Examples -> the JSON Lines files that a fine-tuning API in OpenAI's form trains on, checked.

Form and limits: OpenAI, "Supervised fine-tuning" (at least 10 examples, one a line) and API
reference, Files (512 MB a file); Azure's list of the same models gives 65,536 tokens a training
example, beyond which rows are cut without a word. The bytes depend on nothing but the examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.errors import DataError
from tasks.example import ROLES, Example
from tasks.openai_client import api_message

MIN_TRAIN_ROWS = 10
MAX_BYTES = 512_000_000
MAX_ROW_TOKENS = 65_536
# Around a message's text: OpenAI cookbook, "How to count tokens with tiktoken" (3, and 3 a row for
# the answer's header), rounded up.
_TOKENS_A_MESSAGE = 4

NumTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class UploadFile:
    """One file to upload. ``num_tokens`` is an estimate: the API counts by its own tokenizer."""

    name: str
    body: bytes
    num_rows: int
    num_tokens: int


def upload_file(split: str, examples: Sequence[Example], num_tokens: NumTokens) -> UploadFile:
    """The file of a split; its name holds the digest of its bytes.

    ``num_tokens`` counts the tokens of a text by whatever tokenizer is at hand. Raises DataError
    for too few rows, a row that cannot be trained on, one too long, or a file too large.
    """
    if split == "train" and len(examples) < MIN_TRAIN_ROWS:
        raise DataError(
            f"The train split has {len(examples)} rows, and a fine-tuning API takes at least "
            f"{MIN_TRAIN_ROWS}. Add rows, or train with the engine trl."
        )
    counted = cache(num_tokens)  # the same system turn and tools stand in every row
    lines, total = [], 0
    for number, example in enumerate(examples):
        place = f"{split} row {number} (example {example.id[:12]})"
        check_row(example, place)
        tokens = _tokens(example, counted)
        if tokens > MAX_ROW_TOKENS:
            raise DataError(
                f"{place}: about {tokens:,} tokens, and the API cuts rows off behind "
                f"{MAX_ROW_TOKENS:,}. Shorten the row, or lower format.max_length so that it is "
                "rejected."
            )
        total += tokens
        lines.append(json.dumps(chat_row(example), ensure_ascii=False, separators=(",", ":")))
    body = "".join(f"{line}\n" for line in lines).encode()
    if len(body) > MAX_BYTES:
        raise DataError(
            f"The {split} file has {len(body):,} bytes, and the API takes at most {MAX_BYTES:,}. "
            "Train on fewer or shorter rows."
        )
    name = f"retune-{split}-{hashlib.sha256(body).hexdigest()[:32]}.jsonl"
    return UploadFile(name, body, len(examples), total)


def chat_row(example: Example) -> dict[str, Any]:
    """An example as the API reads it: ``messages``, and ``tools`` where it has some."""
    row: dict[str, Any] = {"messages": [api_message(m) for m in example.messages]}
    if example.tools is not None:
        row["tools"] = json.loads(example.tools)
    return row


def check_row(example: Example, place: str) -> None:
    """Raises DataError, beginning with ``place``, for a row that the API would refuse."""
    if not example.messages or example.messages[-1].role != "assistant":
        came = example.messages[-1].role if example.messages else "no turn at all"
        raise DataError(f"{place}: expected an answer of the assistant last, came {came}.")
    for turn, message in enumerate(example.messages):
        if message.role not in ROLES:
            raise DataError(
                f"{place}, messages[{turn}].role: expected one of {', '.join(ROLES)}, came "
                f"{message.role!r}."
            )
        if message.role == "assistant" and not message.content and not message.tool_calls:
            raise DataError(
                f"{place}, messages[{turn}]: an answer with neither text nor calls teaches "
                "silence. Drop the row."
            )
        for call in message.as_chat().get("tool_calls", ()):
            if not call.get("id"):
                raise DataError(
                    f"{place}, messages[{turn}].tool_calls: a call without an id, which the API "
                    "wants, so that a tool's turn can name it."
                )
        if message.role == "tool" and not message.tool_call_id:
            raise DataError(
                f"{place}, messages[{turn}]: a tool's turn without tool_call_id; the API wants the "
                "id of the call that it answers."
            )


def _tokens(example: Example, num_tokens: NumTokens) -> int:
    texts = [text for m in example.messages for text in (m.content, m.tool_calls) if text]
    texts += [example.tools] if example.tools is not None else []
    return sum(map(num_tokens, texts)) + _TOKENS_A_MESSAGE * (len(example.messages) + 1)
