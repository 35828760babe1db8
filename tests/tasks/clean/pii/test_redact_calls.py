"""Personal data in calls of tools and in what tools answer."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clean.config import PiiConfig
from tasks.clean.pii.redact import redact
from tasks.clean.rows import Rows
from tasks.errors import DataError
from tasks.example import Example, Message, from_table, to_table
from tests.tasks.clean.test_calls import Q, calls, result, row
from tests.tasks.ingest.test_tools import ARGUMENTS

MAIL = "anna.berg@example.com"


def redacted(*messages: Message, tools: str | None = None, **config: object) -> Example:
    rows = Rows(to_table([row(*messages, tools=tools)]))
    (back,) = from_table(redact(rows, PiiConfig.model_validate(config), processes=1).rows.table)
    return back


def arguments(message: Message) -> dict[str, Any]:
    (call,) = message.as_chat()["tool_calls"]
    found: dict[str, Any] = call["function"]["arguments"]
    return found


def test_arguments_and_results_are_redacted_with_one_placeholder_for_one_person() -> None:
    back = redacted(
        Message("user", f"Write to {MAIL}, please."),
        calls("call_1", to=MAIL, file=MAIL, n=7, deep=[{"body": f'Dear "Anna", {MAIL}'}]),
        result("call_1", json.dumps({"file": MAIL, "status": "sent"})),
        Message("assistant", f"Sent to {MAIL}."),
    )
    mail = "<EMAIL_ADDRESS_1>"
    assert back.messages[0].content == f"Write to {mail}, please."
    found = arguments(back.messages[1])
    assert (found["to"], found["file"], found["n"]) == (mail, mail, 7)
    assert MAIL not in (back.messages[1].tool_calls or "")
    assert mail in found["deep"][0]["body"]
    assert json.loads(back.messages[2].content) == {"file": mail, "status": "sent"}
    assert back.messages[2].tool_call_id == "call_1"


def test_a_call_alone_makes_a_hit() -> None:
    """No turn's text holds anything: the calls are looked at themselves."""
    back = redacted(Q, calls("call_1", customer="Anna Berg", card="4111111111111111"))
    assert arguments(back.messages[1]) == {"customer": "<PERSON_1>", "card": "<CREDIT_CARD_1>"}


def test_ids_names_of_functions_keys_and_definitions_stay() -> None:
    """Even where they hold what elsewhere goes: who answers whom would be lost."""
    tools = json.dumps([{"type": "function", "function": {"name": "Anna", "description": MAIL}}])
    turns = (Message("user", f"Anna Berg, {MAIL}"), calls(MAIL, name="Anna", x="Anna Berg"))
    back = redacted(*turns, result(MAIL, "Done for Anna Berg."), Message("assistant", "Done."),
                    tools=tools)  # fmt: skip
    (call,) = back.messages[1].as_chat()["tool_calls"]
    assert (call["id"], call["function"]["name"]) == (MAIL, "Anna")
    assert call["function"]["arguments"] == {"x": "<PERSON_1>"}
    assert (back.messages[2].tool_call_id, back.tools) == (MAIL, tools)


def test_a_row_of_calls_can_be_dropped_or_fail() -> None:
    rows = Rows(to_table([row(Q, calls("a", to=MAIL)), row(Q, calls("a", to="x"))]))
    dropped = redact(rows, PiiConfig(action="drop"), processes=1).dropped
    assert [(f.index, f.detail) for f in dropped] == [(0, "EMAIL_ADDRESS: 1")]
    with pytest.raises(DataError, match=r"EMAIL_ADDRESS: 1"):
        redact(rows, PiiConfig(action="fail"), processes=1)


def shape(value: object) -> object:
    """What of a value redaction leaves: all but the texts."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "text" if isinstance(value, str) else value


@settings(deadline=None, max_examples=40)
@given(ARGUMENTS, st.sampled_from(['"', "\\", "é", " ", "}", "\n"]))
def test_arguments_stay_json_of_the_same_form(given_: dict[str, Any], beside: str) -> None:
    given_ = {**given_, "mail": [f"{beside}{beside} {MAIL} {beside}"]}
    back = redacted(Q, calls("a", given=given_))
    found = arguments(back.messages[1])["given"]
    assert shape(found) == shape(given_)
    assert MAIL not in (back.messages[1].tool_calls or "")
    assert found["mail"] == [f"{beside}{beside} <EMAIL_ADDRESS_1> {beside}"]
