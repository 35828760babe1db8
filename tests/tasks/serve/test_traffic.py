"""What is kept of requests: through outages, whole or counted, and free of personal data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import StorageError
from tasks.objects import LocalStore
from tasks.serve.exchange import Exchange, counted, figures_of, record_of
from tasks.serve.texts import texts_of, with_texts
from tasks.serve.traffic import FIGURES, MESSAGES, Book, Feedback, keep_feedback

NOW = datetime(2026, 11, 28, 5, 30, tzinfo=UTC)


def exchange(number: int = 0, said: str = "well", **more: Any) -> Exchange:
    request = {"model": "m", "messages": [{"role": "user", "content": f"how {number}"}]}
    message = {"role": "assistant", "content": said}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    fields = {
        "request_id": f"req-{number}",
        "created_at": NOW,
        "endpoint": "/v1/chat/completions",
        "model": "m",
        "model_version": "1",
        "side": "champion",
        "unit": f"unit-{number}",
        "status": 200,
        "seconds": 0.5,
        "streamed": False,
        "sampled": True,
        "request": json.dumps(request),
        "response": json.dumps(answer),
    }
    return Exchange(**{**fields, **more})


def shout(texts: Sequence[list[str]]) -> list[list[str] | None]:
    return [[text.upper() for text in of_one] for of_one in texts]


class Away(LocalStore):
    """A store that is away until it is told otherwise."""

    away = True

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        if self.away:
            raise StorageError("away")
        return super().put_bytes(key, body, if_absent=if_absent)


def lines(store: LocalStore, folder: str) -> list[dict[str, Any]]:
    bodies = [store.get_bytes(key) for key in store.keys_under(folder)]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_nothing_is_lost_while_storage_is_away_until_there_is_too_much(tmp_path: Path) -> None:
    store = Away(tmp_path)
    book = Book(store, shout, max_records=2500)
    for number in range(2600):
        book.take(exchange(number, sampled=number % 2 == 0))
    assert not book.write()
    assert book.lost == {"full": 100}
    store.away = False
    assert book.write()
    assert len(lines(store, FIGURES)) == 2500
    records = lines(store, MESSAGES)
    assert len(records) == 1250
    assert records[0]["request"]["messages"][0]["content"].startswith("HOW ")
    assert all(key.startswith(f"{FIGURES}2026-11-28/05/") for key in store.keys_under(FIGURES))
    assert book.write()
    assert len(lines(store, FIGURES)) == 2500


def test_one_record_that_cannot_be_scrubbed_takes_no_other_with_it(tmp_path: Path) -> None:
    def scrub(texts: Sequence[list[str]]) -> list[list[str] | None]:
        if any("bad" in text for of_one in texts for text in of_one):
            raise ValueError("choked")
        return [None if "personal" in of_one[-1] else of_one for of_one in texts]

    store = LocalStore(tmp_path)
    book = Book(store, scrub, 100)
    for number, said in enumerate(["well", "bad", "personal", "fine", "x" * 300_000]):
        book.take(exchange(number, said))
    assert book.write()
    assert [r["request_id"] for r in lines(store, MESSAGES)] == ["req-0", "req-3"]
    assert len(lines(store, FIGURES)) == 5
    assert book.lost == {"unreadable": 1, "personal_data": 1, "too_long": 1}


@pytest.mark.parametrize(
    ("said", "more", "expected"),
    [
        ("well", {}, (False, False, None)),
        ("  ", {}, (True, False, None)),
        ("I'm sorry, but I can't help with that.", {}, (False, True, None)),
        ("", {"status": 500}, (False, False, None)),
        ('{"a": 1}', {"json": True}, (False, False, True)),
        ("no json", {"json": True}, (False, False, False)),
    ],
)
def test_figures_say_how_it_was_answered(
    said: str, more: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    more = dict(more)
    if more.pop("json", False):
        more["request"] = json.dumps({"response_format": {"type": "json_schema"}})
    (figures,) = figures_of([counted(exchange(said=said, **more))])
    assert (figures.empty, figures.refused, figures.json_valid) == expected
    assert figures.num_characters == len(said)


def test_every_text_is_scrubbed_and_what_names_nobody_stays() -> None:
    request = {
        "model": "m",
        "user": "jane",
        "messages": [
            {"role": "system", "content": "for Jane"},
            {"role": "user", "content": [{"type": "text", "text": "I am Jane"}]},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "f", "arguments": "Jane"}}
                ],
            },
        ],
        "tools": [{"type": "function", "function": {"name": "f", "description": "of Jane"}}],
        "metadata": {"who": "Jane"},
    }
    record = record_of(exchange(request=json.dumps(request), user="pseudonym"))
    assert "user" not in record["request"]
    texts = texts_of(record)
    assert texts == ["for Jane", "I am Jane", "Jane", "Jane", "well"]
    changed = with_texts(record, [text.replace("Jane", "<P>") for text in texts])
    assert json.dumps(changed).count("Jane") == 1  # in the tool's definition
    assert changed["request"]["messages"][0] == {"role": "system", "content": "for <P>"}


def test_feedback_is_kept_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = Feedback(request_id="req-1", asked_at=NOW, created_at=NOW, correction="say this")
    assert keep_feedback(store, first, shout)
    assert not keep_feedback(store, first.model_copy(update={"score": 1.0}), shout)
    (kept,) = [json.loads(store.get_bytes(key)) for key in store.keys_under("traffic/feedback/")]
    assert (kept["correction"], kept["score"]) == ("SAY THIS", None)
    with pytest.raises(ValueError, match="personal data"):
        keep_feedback(store, first, lambda texts: [None for _ in texts])
