"""A reference model behind either API, by the real clients: answers, and why there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.artifacts import Contestant, ReferenceModel
from tasks.errors import ConfigError
from tasks.evaluate.answering import answer
from tasks.evaluate.answers import Answer
from tasks.evaluate.config import DecodingConfig
from tasks.evaluate.known import KnownAnswers
from tasks.example import Example, Message
from tasks.objects import LocalStore
from tests.examples import make_example
from tests.messages_api import LOST, Reply, StubApi, error, message

DECODING = DecodingConfig(max_new_tokens=7, repeats=0)


def said(text: str, **options: object) -> Reply:
    return message([{"type": "text", "text": text}], usage=(9, 3), **options)  # type: ignore[arg-type]


def ask(api: StubApi, rows: list[Example]) -> list[Answer]:
    model = ReferenceModel(api="anthropic", model="claude-haiku-4-5", base_url=api.url)
    contestant = Contestant(role="reference", base_model=None, reference=model)
    answers, _ = answer(
        rows, contestant, None, DECODING, {}, KnownAnswers(LocalStore(Path("unused")), "")
    )
    return answers


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)


def test_the_conversation_is_put_as_the_api_has_it(api: StubApi) -> None:
    api.answer = lambda _: said("An answer.")
    turns = (
        Message("system", "Be brief."),
        Message("user", "Hello"),
        Message("assistant", "Hi."),
        Message("user", "What now?"),
        Message("assistant", "This."),
    )
    (given,) = ask(api, [Example("1", turns, "human", "1")])
    assert (given.answer, given.reference, given.num_tokens, given.truncated) == (
        "An answer.",
        "This.",
        3,
        False,
    )
    (request,) = api.requests
    assert request == {
        "model": "claude-haiku-4-5",
        "max_tokens": 7,
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "What now?"},
        ],
        "temperature": 0.0,
    }


def test_a_refusal_is_an_empty_answer_and_a_long_one_is_cut(api: StubApi) -> None:
    api.scripts = {
        "bad": [message([], stop_reason="refusal")],
        "long": [said("half an", stop_reason="max_tokens")],
    }
    refused, cut = ask(api, [make_example("bad", "x"), make_example("long", "x")])
    assert (refused.answer, refused.num_tokens) == ("", 0)
    assert (cut.answer, cut.truncated) == ("half an", True)


@pytest.mark.parametrize("fault", [error(429), error(500), error(529), LOST])
def test_what_passes_is_bridged(api: StubApi, fault: Reply) -> None:
    api.answer = lambda _: said("yes")
    api.scripts = {"one": [fault]}
    (given,) = ask(api, [make_example("one", "x")])
    assert given.answer == "yes"


def test_an_outage_is_no_set_of_wrong_answers(api: StubApi) -> None:
    api.answer = lambda r: error(529) if "two" in str(r["messages"]) else said("yes")
    with pytest.raises(ConnectionError, match="1 of 2 prompts got no answer of claude-haiku-4-5"):
        ask(api, [make_example("one", "x"), make_example("two", "x")])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_key_or_model_is_told_without_the_key(
    api: StubApi, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    api.answer = lambda _: error(status)
    with pytest.raises(ConfigError, match="Check ANTHROPIC_API_KEY") as told:
        ask(api, [make_example("one", "x")])
    assert "sk-secret" not in str(told.value)


def test_nonsense_is_a_failure_that_stops_the_stage(api: StubApi) -> None:
    api.answer = lambda _: Reply(200, "<html>not an API</html>")
    with pytest.raises(ConnectionError, match="1 of 1 prompts got no answer"):
        ask(api, [make_example("one", "x")])


def test_calls_of_tools_are_not_put_to_it(api: StubApi) -> None:
    call = '[{"id":"c","function":{"name":"f","arguments":{}}}]'
    turns = (
        Message("user", "Hello"),
        Message("assistant", "", tool_calls=call),
        Message("tool", "done", tool_call_id="c"),
        Message("assistant", "Yes."),
    )
    (given,) = ask(api, [Example("1", turns, "human", "1")])
    assert given.answer == ""
    assert not api.requests


def test_the_same_model_is_the_same_contestant() -> None:
    model = ReferenceModel(api="anthropic", model="a")
    one, same, other = (
        Contestant(role="reference", base_model=None, reference=reference)
        for reference in (model, model.model_copy(), ReferenceModel(api="openai", model="a"))
    )
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.digest == same.digest != other.digest
    assert one.name == "a"
