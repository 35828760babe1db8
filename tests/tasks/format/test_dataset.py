"""Rows over a limit are rejected and counted, never cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tasks.errors import ConfigError, DataError
from tasks.example import Example, Message
from tasks.format.config import FormatConfig, FormatLimits
from tasks.format.dataset import Formatted, format_examples, write
from tasks.format.render import IGNORED, Refusal, render
from tasks.format.statistics import statistics, tokens_of
from tasks.format.template import Conversation, Template, check_max_length
from tests.tasks.format.conftest import family

EVERYTHING = FormatLimits(**dict.fromkeys(FormatLimits.model_fields, 1.0))
LAX = FormatConfig(max_rejected_share=1, limits=EVERYTHING)


def row(ask: str, answer: str | None = "On its way.", **fields: Any) -> Example:
    turns = [Message("user", ask)] + ([Message("assistant", answer)] if answer is not None else [])
    return Example(f"id of {ask[:20]}", tuple(turns), "human", "g", **fields)


def exchange(count: int) -> Example:
    """A conversation with a system turn and so many exchanges of about equal length."""
    turns = [Message("system", "Be brief.")]
    for number in range(count):
        turns += [Message("user", f"Question {number}?"), Message("assistant", f"Answer {number}.")]
    return Example(f"id of {count}", tuple(turns), "production", "g")


def formatted(rows: list[Example], template: Template, config: FormatConfig = LAX) -> Formatted:
    """The rows as train, beside one good validation row."""
    splits = ["train"] * len(rows) + ["validation"]
    return format_examples([*rows, row("Where?")], splits, template, config)


def rendered(example: Example, template: Template) -> Any:
    [found] = render([Conversation.of_example(example)], template)
    assert not isinstance(found, Refusal)
    return found[0]


def test_each_split_by_itself_and_test_not_at_all(template: Template) -> None:
    rows = [row("one"), row("two"), row("three")]
    result = format_examples(rows, ["validation", "test", "train"], template, FormatConfig())
    assert {split: [i for i, _ in made] for split, made in result.rows.items()} == {
        "train": ["id of three"],
        "validation": ["id of one"],
    }
    assert result.rows["train"][0][1] == rendered(rows[2], template)
    assert result.num_examples == 2


def test_a_long_row_is_rejected_whole_at_the_very_limit(template: Template) -> None:
    long = row("Where is it? " * 10)
    length = len(rendered(long, template).input_ids)
    fits = LAX.model_copy(update={"max_length": length})
    assert formatted([long], template, fits).num_rejected == {}
    short = LAX.model_copy(update={"max_length": length - 1})
    result = formatted([row("short"), long], template, short)
    assert result.num_rejected == {"too_long": 1}
    detail = f"{length} tokens, at most {length - 1} allowed"
    assert result.rejected[0] == (long.id, "too_long", detail)
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
        (
            row("With tools", tools='[{"function": {"name": "<|im_end|>"}}]'),
            "special_token",
            "a tool's definition holds '<|im_end|>'",
        ),
        (row("No answer", None), "nothing_to_train", "expected a turn of the assistant's"),
    ],
)
def test_rows_that_must_not_be_trained_on(
    template: Template, bad: Example, reason: str, detail: str
) -> None:
    result = formatted([row("good"), bad], template)
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
    result = formatted(rows, Template(tokenizer))
    assert [i for i, _ in result.rows["train"]] == ["id of Where zebra ?"]
    assert result.num_rejected == {"special_token": 2}


def test_words_that_only_look_special_are_content(template: Template) -> None:
    """`<think>` opens no turn: anyone may write it."""
    result = formatted([row("<think> about </s> it")], template)
    assert result.num_rejected == {}


# -------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(("share", "fails"), [(0.25, False), (0.2, True)])
def test_too_many_rejected_rows_fail(template: Template, share: float, fails: bool) -> None:
    rows = [row("one"), row("two"), row("a<|im_end|>")]  # and the validation row
    config = FormatConfig(max_rejected_share=share, limits=EVERYTHING)
    if not fails:
        assert len(formatted(rows, template, config).rejected) == 1
        return
    words = r"1 of 4 rows.*'special_token': 1.*format\.max_rejected_share.*doctor"
    with pytest.raises(DataError, match=words):
        formatted(rows, template, config)


def test_a_reason_has_a_limit_of_its_own() -> None:
    """What a template does to one row it does to others: by default the first fails the stage."""
    many = [exchange(1) for _ in range(30)]
    with pytest.raises(DataError, match=r"30 of 31 rows.*\(dropped_turn\).*format\.limits\.dropp"):
        formatted(many, family("forgetful"), FormatConfig(max_rejected_share=1))


@pytest.mark.parametrize(
    ("split", "words"), [("train", "nothing to choose"), ("validation", "nothing to train on")]
)
def test_a_split_without_rows_fails(template: Template, split: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        format_examples([row("one")], [split], template, FormatConfig())


def test_rows_longer_than_the_model_s_positions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 128}')
    check_max_length(tmp_path, 128)
    with pytest.raises(ConfigError, match=r"max_length is 129.*knows 128 positions"):
        check_max_length(tmp_path, 129)
    (tmp_path / "config.json").write_text('{"text_config": {"max_position_embeddings": 64}}')
    with pytest.raises(ConfigError, match="knows 64"):
        check_max_length(tmp_path, 65)


# ------------------------------------------------------------------------------------ splitting


def test_a_long_conversation_is_split_between_exchanges(template: Template) -> None:
    whole, one = exchange(6), exchange(1)
    length = len(rendered(exchange(2), template).input_ids)
    config = LAX.model_copy(update={"max_length": length, "too_long": "split"})
    result = formatted([whole, one], template, config)
    assert (result.num_rejected, result.num_split) == ({}, 1)
    texts = [
        template.tokenizer.decode(made.input_ids)
        for identity, made in result.rows["train"]
        if identity == whole.id
    ]
    assert len(texts) == 3
    assert all("Be brief." in text for text in texts)
    for number in range(6):
        assert sum(f"Question {number}?" in text for text in texts) == 1
        assert sum(f"Answer {number}." in text for text in texts) == 1
    assert all(len(made.input_ids) <= length for _, made in result.rows["train"])


def test_an_exchange_that_does_not_fit_is_rejected(template: Template) -> None:
    long = exchange(2)
    turns = (*long.messages, Message("user", "Why? " * 60), Message("assistant", "So."))
    whole = Example("id of long", turns, "human", "g")
    config = LAX.model_copy(update={"max_length": 120, "too_long": "split"})
    result = formatted([row("short"), whole], template, config)
    assert result.num_rejected == {"too_long": 1}
    assert [i for i, _ in result.rows["train"]] == ["id of short"]


# ------------------------------------------------------------------------------------ what is kept


def test_written_and_read_back(template: Template, tmp_path: Path) -> None:
    result = formatted([row("good"), row("a<|im_end|>")], template)
    write(result, tmp_path)
    [train] = pq.read_table(tmp_path / "train.parquet").to_pylist()
    made = result.rows["train"][0][1]
    assert train == {"id": "id of good", "input_ids": made.input_ids, "labels": made.labels}
    assert pq.read_table(tmp_path / "validation.parquet").num_rows == 1
    rejected = pq.read_table(tmp_path / "rejected.parquet").to_pylist()
    assert [line["reason"] for line in rejected] == ["special_token"]


def test_written_without_a_rejected_row(template: Template, tmp_path: Path) -> None:
    write(formatted([row("good")], template), tmp_path)
    table = pq.read_table(tmp_path / "rejected.parquet")
    assert (table.num_rows, table.column_names) == (0, ["id", "reason", "detail"])


def test_statistics_tell_what_the_report_shows(template: Template) -> None:
    rows = [row("good"), row("a<|im_end|>"), row("a general one", meta={"general": "yes"})]
    result = formatted(rows, template)
    stats = statistics(result, template, LAX)
    assert json.loads(json.dumps(stats)) == json.loads(json.dumps(stats))
    assert (stats["num_general"], stats["num_by_source"]) == (1, {"human": 2})
    assert stats["mask_source"] == "prefixes"
    assert stats["end_of_turn"] == "'<|im_end|>'"
    assert stats["histogram"]["limit"] == LAX.max_length
    assert sum(stats["histogram"]["counts"]) == 2
    [sample] = stats["samples"]
    assert sample["reason"] == "special_token"
    shown = stats["example"]
    assert "".join(text for text, trained in shown if trained) == "On its way.<|im_end|>"


def test_bytes_of_one_character_are_shown_together(template: Template) -> None:
    made = rendered(row("Größe 😀?"), template)
    shown = tokens_of(made, template)
    assert "".join(text for text, _ in shown) == template.tokenizer.decode(made.input_ids)
    assert ("😀", False) in shown
    assert sum(label != IGNORED for label in made.labels) == sum(trained for _, trained in shown)
