"""Answers of a hosted model with the real client: in order, greedy, and failures as failures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest

from tasks.errors import ConfigError, is_transient
from tasks.evaluate.behaviour import behaviour
from tasks.evaluate.hosted import (
    AnswerFailure,
    HostedAnswer,
    answer_hosted,
    ask_chat,
    hosted_answers,
)
from tasks.openai_client import make_client
from tests.examples import make_example
from tests.messages_api import LOST, Reply
from tests.openai_api import StubHosted, completion, error, running

pytestmark = pytest.mark.timeout(60)

MODEL = "ft:base-1"
Result = HostedAnswer | AnswerFailure


class StubChat(StubHosted):
    """Knows one model, and answers from ``script`` by the last word said, else with an echo."""

    def __init__(self) -> None:
        super().__init__("sk-chat")
        self.script: dict[str, Reply] = {}
        self.answer = self._scripted

    @property
    def models(self) -> set[str]:
        return {MODEL}

    def _scripted(self, request: dict[str, Any]) -> Reply:
        said = request["messages"][-1]["content"]
        return self.script.get(said, completion(f"{said}!"))


@pytest.fixture
def api() -> Iterator[StubChat]:
    stub = StubChat()
    with running(stub):
        yield stub


def ask(
    api: StubChat, words: list[str], key: str = "sk-chat", model: str = MODEL, retries: int = 2
) -> list[Result]:
    prompts = [
        [{"role": "system", "content": "Echo."}, {"role": "user", "content": word}]
        for word in words
    ]
    environ = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": api.url}
    with make_client(None, environ, max_retries=retries) as client:
        return hosted_answers(prompts, ask_chat(model, client, max_tokens=5), concurrency=4)


def test_every_prompt_gets_its_own_answer_in_order(api: StubChat) -> None:
    words = [f"word-{i}" for i in range(30)]
    assert ask(api, words) == [HostedAnswer(f"{w}!", 3, False) for w in words]


def test_what_is_asked(api: StubChat) -> None:
    ask(api, ["hello"])
    assert api.requests == [
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Echo."},
                {"role": "user", "content": "hello"},
            ],
            "temperature": 0,
            "seed": 0,
            "max_tokens": 5,
        }
    ]


def test_several_are_asked_at_once(api: StubChat) -> None:
    """Four must have arrived before the first is answered."""
    met = threading.Barrier(4)

    class Meeting(StubChat):
        def call(self, *rest: Any) -> Reply:
            met.wait(30)
            return super().call(*rest)

    with running(Meeting()) as meeting:
        assert len(ask(meeting, list("abcd"))) == 4


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (completion("half", "length"), HostedAnswer("half", 3, True)),
        (completion(""), HostedAnswer("", 3, False)),
        (completion("", "length"), "cut_off"),
        (completion(None, "length"), "cut_off"),
        (completion(None), "malformed"),
        (completion(None, refusal="I will not"), "refusal"),
        (completion("x", "content_filter"), "content_filter"),
        (completion(None, "tool_calls", tool_calls=[{"id": "c"}]), "tool_call"),
        (error(400, "too long"), "invalid_request"),
        (error(422), "invalid_request"),
        (error(500), "unavailable"),
        (LOST, "unavailable"),
        (Reply(200, "{not json"), "malformed"),
        (Reply(200, {"choices": []}), "malformed"),
    ],
)
def test_an_answer_or_the_reason_why_there_is_none(
    api: StubChat, reply: Reply, expected: HostedAnswer | str
) -> None:
    api.script = {"odd": reply}
    before, odd, after = ask(api, ["before", "odd", "after"], retries=0)
    assert (before, after) == (HostedAnswer("before!", 3, False), HostedAnswer("after!", 3, False))
    if isinstance(expected, str):
        assert isinstance(odd, AnswerFailure)
        assert odd.reason == expected
        assert odd.detail
    else:
        assert odd == expected


@pytest.mark.parametrize("fault", [error(429), error(500), error(529), LOST])
def test_what_passes_is_bridged(api: StubChat, fault: Reply) -> None:
    api.faults = {"chat": [fault]}
    assert ask(api, ["a"]) == [HostedAnswer("a!", 3, False)]
    assert api.calls["chat"] == 2


def test_an_api_that_is_away_is_no_set_of_wrong_answers(api: StubChat) -> None:
    api.script = {"a": error(529), "b": error(500)}
    with pytest.raises(openai.APIStatusError) as caught:
        ask(api, ["a", "b"], retries=0)
    assert is_transient(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": "sk-wrong"}, r"401 .*Bearer \*\*\*.*Check OPENAI_API_KEY"),
        ({"model": "ft:no"}, "404"),
    ],
)
def test_a_refusal_of_all_is_raised(api: StubChat, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ask(api, ["a", "b"], **options)


def test_an_exhausted_quota_is_no_set_of_wrong_answers(api: StubChat) -> None:
    api.script = {"a": error(429, code="insufficient_quota")}
    with pytest.raises(ConfigError, match="quota"):
        ask(api, ["a", "b"], retries=0)


def test_nothing_asked_is_nothing_sent(api: StubChat) -> None:
    assert ask(api, []) == []
    assert not api.calls


def answers_to(api: StubChat, *words: str) -> list[Any]:
    examples = [make_example(word, f"right {word}") for word in words]
    with make_client(None, {"OPENAI_API_KEY": "sk-chat", "OPENAI_BASE_URL": api.url}, 0) as client:
        answers, speed = answer_hosted(examples, MODEL, ask_chat(MODEL, client, max_tokens=5))
    assert speed > 0
    assert [a.id for a in answers] == [e.id for e in examples]
    return answers


def test_answers_stand_beside_what_was_right(api: StubChat) -> None:
    api.script = {"cut": completion("half an", "length"), "no": completion(None, refusal="I won't")}
    whole, cut, refused = answers_to(api, "whole", "cut", "no")
    assert (whole.answer, whole.reference, whole.truncated) == ("whole!", "right whole", False)
    assert (cut.answer, cut.truncated) == ("half an", True)
    assert (refused.answer, refused.num_tokens) == ("", 0)
    assert all("right" not in str(request["messages"]) for request in api.requests)


def test_some_are_asked_twice_to_see_how_stable_they_are(api: StubChat) -> None:
    examples = [make_example(word, "right") for word in "abcd"]
    with make_client(None, {"OPENAI_API_KEY": "sk-chat", "OPENAI_BASE_URL": api.url}, 0) as client:
        answers, _ = answer_hosted(examples, MODEL, ask_chat(MODEL, client, 5), repeats=2)
    assert len(api.requests) == 6
    assert [a.again is not None for a in answers] == [True, False, True, False]
    scores = behaviour([replace(answers[0]), replace(answers[1], again="b?"), *answers[2:]])
    assert (scores["unstable"].ids, scores["unstable"].value) == (
        tuple(answers[i].id for i in (0, 1, 2)),
        pytest.approx(1 / 3),
    )
    assert "unstable" not in behaviour([replace(a, again=None) for a in answers])


def test_an_answer_that_was_lost_is_no_wrong_answer(api: StubChat) -> None:
    api.script = {"two": error(503)}
    with pytest.raises(ConnectionError, match=r"1 of 3 prompts got no answer of ft:base-1") as told:
        answers_to(api, "one", "two", "three")
    assert is_transient(told.value)
