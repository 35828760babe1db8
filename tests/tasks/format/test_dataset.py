"""Rows over a limit are rejected and counted, never cut."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tasks.errors import DataError
from tasks.example import Example, Message
from tasks.format.config import FormatConfig
from tasks.format.dataset import Formatted, format_examples, write
from tasks.format.render import render

LAX = FormatConfig(max_rejected_share=1)


def row(ask: str, answer: str | None = "On its way.") -> Example:
    turns = [Message("user", ask)] + ([Message("assistant", answer)] if answer is not None else [])
    return Example(f"id of {ask[:20]}", tuple(turns), "human", "g")


def formatted(rows: list[Example], tokenizer: Any, config: FormatConfig = LAX) -> Formatted:
    """The rows as train, beside one good validation row."""
    splits = ["train"] * len(rows) + ["validation"]
    return format_examples([*rows, row("Where?")], splits, tokenizer, config)


def test_each_split_by_itself_and_test_not_at_all(tokenizer: Any) -> None:
    rows = [row("one"), row("two"), row("three")]
    result = format_examples(rows, ["validation", "test", "train"], tokenizer, FormatConfig())
    assert {split: [i for i, _ in made] for split, made in result.rows.items()} == {
        "train": ["id of three"],
        "validation": ["id of one"],
    }
    assert result.rows["train"][0][1] == render(rows[2].messages, tokenizer)


def test_a_long_row_is_rejected_whole_at_the_very_limit(tokenizer: Any) -> None:
    long = row("Where is it? " * 10)
    length = len(render(long.messages, tokenizer).input_ids)
    fits = FormatConfig(max_length=length, max_rejected_share=1)
    assert formatted([long], tokenizer, fits).num_rejected == {}
    short = FormatConfig(max_length=length - 1, max_rejected_share=1)
    result = formatted([row("short"), long], tokenizer, short)
    assert result.num_rejected == {"too_long": 1}
    assert result.rejected[0] == (
        long.id,
        "too_long",
        f"{length} tokens, at most {length - 1} allowed",
    )
    assert [i for i, _ in result.rows["train"]] == ["id of short"]


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (row("Stop <|im_end|> here"), "special_token", "user turn holds '<|im_end|>'"),
        (
            row("x", "Yes<|im_end|>\n<|im_start|>user\nAnd"),
            "special_token",
            "assistant turn holds '<|im_",
        ),
        (row("An <|endoftext|> in it"), "special_token", "user turn holds '<|endoftext|>'"),
        (row("No answer", None), "nothing_to_train", "expected at least one token"),
    ],
)
def test_rows_that_must_not_be_trained_on(
    tokenizer: Any, bad: Example, reason: str, detail: str
) -> None:
    result = formatted([row("good"), bad], tokenizer)
    assert result.num_rejected == {reason: 1}
    identity, _, said = result.rejected[0]
    assert identity == bad.id
    assert said.startswith(detail)


def test_an_unknown_word_is_not_a_smuggled_token() -> None:
    words = ["<unk>", "<s>", "</s>", "user", "assistant", "Where", "?", "yes"]
    backend = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ' ' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
    )
    rows = [row("Where zebra ?", "yes"), row("Where <unk> ?", "yes"), row("Where </s> ?", "yes")]
    result = formatted(rows, tokenizer)
    assert [i for i, _ in result.rows["train"]] == ["id of Where zebra ?"]
    assert result.num_rejected == {"special_token": 2}


@pytest.mark.parametrize(("share", "fails"), [(0.25, False), (0.2, True)])
def test_too_many_rejected_rows_fail(tokenizer: Any, share: float, fails: bool) -> None:
    rows = [row("one"), row("two"), row("a<|im_end|>")]  # and the validation row
    config = FormatConfig(max_rejected_share=share)
    if not fails:
        assert len(formatted(rows, tokenizer, config).rejected) == 1
        return
    with pytest.raises(DataError, match=r"1 of 4 rows.*'special_token': 1.*max_rejected_share"):
        formatted(rows, tokenizer, config)


@pytest.mark.parametrize(
    ("split", "words"), [("train", "nothing to choose"), ("validation", "nothing to train on")]
)
def test_a_split_without_rows_fails(tokenizer: Any, split: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        format_examples([row("one")], [split], tokenizer, FormatConfig())


def test_written_and_read_back(tokenizer: Any, tmp_path: Path) -> None:
    result = formatted([row("good"), row("a<|im_end|>")], tokenizer)
    write(result, tmp_path)
    [train] = pq.read_table(tmp_path / "train.parquet").to_pylist()
    rendered = result.rows["train"][0][1]
    assert train == {
        "id": "id of good",
        "input_ids": rendered.input_ids,
        "labels": rendered.labels,
    }
    assert pq.read_table(tmp_path / "validation.parquet").num_rows == 1
    assert pq.read_table(tmp_path / "rejected.parquet").column("reason").to_pylist() == [
        "special_token"
    ]


def test_written_without_a_rejected_row(tokenizer: Any, tmp_path: Path) -> None:
    write(formatted([row("good")], tokenizer), tmp_path)
    table = pq.read_table(tmp_path / "rejected.parquet")
    assert (table.num_rows, table.column_names) == (0, ["id", "reason", "detail"])
