"""Personal data goes from every turn; answers, ids and product names stay as they are."""

import hashlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pytest

from tasks.clean.config import PiiConfig
from tasks.clean.pii.redact import Redaction, redact, redact_texts
from tasks.clean.rows import Finding, Rows
from tasks.errors import ConfigError, DataError
from tasks.example import Example, Message, from_table, to_table

LABELLED = Path(__file__).parents[3] / "data" / "pii_labelled.jsonl"
ALLOW = ("Quill", "Keyboard", "Volt", "Orbit Speaker")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: neither a model nor a list of the endings of mail addresses."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("redaction opened a connection")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def labelled() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LABELLED.read_text(encoding="utf-8").splitlines()]


def redacted(text: str, **config: object) -> str:
    config = {"numbered": False, **config}
    [result] = redact_texts([text], PiiConfig.model_validate(config), Counter())
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You can call me on +1 202-555-0134.", "You can call me on <PHONE_NUMBER>."),
        ("Ring me at (415) 555-0122 today", "Ring me at <PHONE_NUMBER> today"),
        ("Phone: +44 20 7946 0967", "Phone: <PHONE_NUMBER>"),
        ("My mobile is +49 30 23125048, thanks", "My mobile is <PHONE_NUMBER>, thanks"),
        ("Mail j.doe+shop@example.org please", "Mail <EMAIL_ADDRESS> please"),
        ("Mail new.one@some-shop.co.uk", "Mail <EMAIL_ADDRESS>"),
        ("I paid with card 4242-4242-4242-4242.", "I paid with card <CREDIT_CARD>."),
        ("It is 4111111111111111 here", "It is <CREDIT_CARD> here"),
        ("IBAN ES91 2100 0418 4502 0005 1332 belongs to me", "IBAN <IBAN_CODE> belongs to me"),
        ("my iban is de89370400440532013000", "my iban is <IBAN_CODE>"),
        ("It broke. Kind regards, Nadia Petrov", "It broke. Kind regards, <PERSON>"),
        ("It broke. - Emily Gallagher", "It broke. - <PERSON>"),
        ("My name is Ingrid Bergström. It broke.", "My name is <PERSON>. It broke."),
        ("Please ask for Isabelle Ramirez.", "Please ask for <PERSON>."),
    ],
)
def test_what_is_personal_goes(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "My order K-23052 is late, it is about order #B-52707.",
        "Order E-97164 never came. The reference is e75808.",
        "It is under #C-59766, or was it C-16881?",
        "Invoice INV-2025550134 of 2025-01-06 over 1,299.90 EUR",
        "Card 4242-4242-4242-4243 has a wrong last digit.",
        "The Quill Keyboard and my Orbit Speaker arrived.",
        "The Volt does not charge anything.",
        "THIS IS NOT IMPORTANT, JUST SOMETHING I NOTICED.",
        "",
        "   ",
    ],
)
def test_ids_and_products_stay(text: str) -> None:
    assert redacted(text, allow_list=ALLOW) == text


def test_an_allowed_word_does_not_cover_a_name_beside_it() -> None:
    allowed = redacted("Best regards, Marcus Quill", allow_list=ALLOW)
    assert allowed == "Best regards, <PERSON>"


def ticket(**fields: object) -> str:
    return json.dumps({"category": "billing", "order_id": "C-16881", **fields})


@pytest.mark.parametrize(
    "answer",
    [
        ticket(),
        ticket(order_id=None, product="Drift Vacuum", summary="Asks about the gift card"),
        ticket(number=4111111111111111, nested={"Daniel Moreau": ["C-16881", "#2025550134"]}),
        json.dumps(["order_id", "K-23052"]),
    ],
)
def test_a_json_answer_keeps_its_keys_ids_and_numbers(answer: str) -> None:
    assert redacted(answer) == answer


def test_a_json_answer_loses_what_is_personal() -> None:
    answer = ticket(phone="+1 202-555-0134", mail=["a.b@example.com"], escaped='say "hi"')
    assert json.loads(redacted(answer)) == {
        "category": "billing",
        "order_id": "C-16881",
        "phone": "<PHONE_NUMBER>",
        "mail": ["<EMAIL_ADDRESS>"],
        "escaped": 'say "hi"',
    }


def chat(*turns: str, system: str = "", **fields: Any) -> Example:
    roles = ["user", "assistant"] * len(turns)
    messages = [Message(role, text) for role, text in zip(roles, turns, strict=False)]
    first = [Message("system", system)] if system else []
    return Example("1", (*first, *messages), "human", fields.pop("group", "g"), **fields)


def run(*examples: Example, **config: object) -> tuple[Redaction, list[Example]]:
    result = redact(Rows(to_table(examples)), PiiConfig.model_validate(config))
    return result, from_table(result.rows.table)


def test_a_name_said_in_one_turn_goes_from_all_of_its_conversation_alone() -> None:
    answer = ticket(summary="Daniel Moreau complains")
    named = chat("My name is Daniel Moreau. It broke.", answer, system="Daniel Moreau")
    other = chat("It broke on the first day.", answer)
    _, (first, second) = run(named, other)
    assert first.messages[0].content == "Daniel Moreau"  # the system turn is the task's own
    assert first.prompt == "My name is <PERSON_1>. It broke."
    assert json.loads(first.answer)["summary"] == "<PERSON_1> complains"
    assert second == other


def test_one_person_has_one_placeholder_throughout_a_conversation() -> None:
    row = chat(
        "Anna here. Best regards, Anna Bergmann. Ask for Tom Ferris or mail ANNA@example.com",
        "Thank you, Anna. Tom Ferris has written to anna@example.com and bob@example.com.",
        meta={"file": "Anna", "note": "Call Anna Bergmann or Tom Ferris tomorrow"},
    )
    _, [clean] = run(row)
    assert [m.content for m in clean.messages] == [
        "<PERSON_1> here. Best regards, <PERSON_1>. Ask for <PERSON_2> or mail <EMAIL_ADDRESS_1>",
        "Thank you, <PERSON_1>. <PERSON_2> has written to <EMAIL_ADDRESS_1> and <EMAIL_ADDRESS_2>.",
    ]
    assert clean.meta == {"file": "Anna", "note": "Call <PERSON_1> or <PERSON_2> tomorrow"}


def test_numbers_of_placeholders_that_came_with_the_text_are_taken() -> None:
    _, [clean] = run(chat("<PERSON_1> wrote to a@example.com. Best regards, Anna Bergmann"))
    assert clean.prompt == "<PERSON_1> wrote to <EMAIL_ADDRESS_1>. Best regards, <PERSON_2>"


def test_meta_and_label_lose_what_is_personal_and_origin_stays() -> None:
    origin = {"file": "a@example.com.csv", "line": "7"}
    row = chat("Hello", "Hi", label="b@example.com", meta={**origin, "agent": "Anna Bergmann"})
    _, [clean] = run(row)
    assert clean.meta == {**origin, "agent": "<PERSON_1>"}
    assert clean.label == "<EMAIL_ADDRESS_1>"
    assert [m.content for m in clean.messages] == ["Hello", "Hi"]


def test_a_personal_group_becomes_its_digest() -> None:
    groups = ["a@example.com", "c-0018", "Anna Bergmann", "a@example.com"]
    _, clean = run(*(chat("Hello", "Hi", group=group) for group in groups))
    digest = "sha256:" + hashlib.sha256(b"a@example.com").hexdigest()
    assert [e.group for e in clean[:2]] == [digest, "c-0018"]
    assert clean[2].group.startswith("sha256:")
    assert clean[3].group == digest


def test_what_is_dropped_is_told_without_being_said() -> None:
    rows = [chat("Hello", "Hi"), chat("Mail a@example.com", "Hi")]
    result, clean = run(*rows, action="drop")
    assert result.dropped == [Finding(1, "personal_data", "EMAIL_ADDRESS: 1")]
    assert clean == rows


def test_to_fail_names_the_place_and_not_the_person() -> None:
    row = chat("Mail a@example.com", "Hi", meta={"file": "chats.jsonl", "line": "12"})
    with pytest.raises(DataError, match=r"chats\.jsonl:12 .*EMAIL_ADDRESS: 1") as error:
        run(chat("Hello", "Hi"), row, action="fail")
    assert "a@example.com" not in str(error.value)


def test_a_second_redaction_finds_nothing(labelled: list[dict[str, Any]]) -> None:
    first = redact(Rows(to_table(chat(r["text"], "ok") for r in labelled)), PiiConfig())
    again = redact(first.rows, PiiConfig())
    assert first.dropped == []
    assert again.counts == {}
    assert again.rows.table.equals(first.rows.table)


def test_order_and_company_of_the_rows_do_not_matter(labelled: list[dict[str, Any]]) -> None:
    rows = [chat(r["text"], "ok") for r in labelled]
    _, together = run(*rows)
    _, backwards = run(*reversed(rows))
    assert backwards[::-1] == together
    for i in range(0, len(rows), 40):
        assert run(rows[i])[1] == [together[i]]


@pytest.mark.slow
def test_processes_make_no_difference(labelled: list[dict[str, Any]]) -> None:
    filler = (f"Message {i} of many, in which nobody is named." * 3 for i in range(600))
    rows = Rows(to_table(chat(text, "ok") for text in [*filler, *(r["text"] for r in labelled)]))
    alone, shared = (redact(rows, PiiConfig(), processes=n) for n in (1, 2))
    assert alone.rows.table.equals(shared.rows.table)
    assert alone.counts == shared.counts


def test_no_rows() -> None:
    result, clean = run()
    assert (clean, result.counts, result.dropped) == ([], {}, [])


@pytest.mark.parametrize("escaped", [True, False])
def test_an_escaped_name_goes_from_json_and_the_rest_keeps_its_spelling(escaped: bool) -> None:
    value = json.dumps("Jürgen Klopstock", ensure_ascii=escaped)
    answer = '{ "customer":%s,  "n" : 1.50, "x":"\\u00e9" }'
    assert redacted(answer % value) == answer % '"<PERSON>"'


def test_counts_by_entity() -> None:
    counts: Counter[str] = Counter()
    texts = ["Mail a@example.com or b@example.com", "Phone: +1 202-555-0134", "Nothing here"]
    redact_texts(texts, PiiConfig(), counts)
    assert counts == {"EMAIL_ADDRESS": 2, "PHONE_NUMBER": 1}


def test_only_the_entities_asked_for() -> None:
    text = "Mail a@example.com or call +1 202-555-0134"
    expected = "Mail <EMAIL_ADDRESS> or call +1 202-555-0134"
    assert redacted(text, entities=["EMAIL_ADDRESS"]) == expected


def test_an_unknown_entity_is_an_error_of_the_config() -> None:
    with pytest.raises(ConfigError, match="Presidio knows no PERSN"):
        redacted("Daniel Moreau", entities=["PERSN"])


def test_switched_off() -> None:
    row = chat("a@example.com")
    result, clean = run(row, enabled=False)
    assert (clean, result.counts) == ([row], {})


def test_a_redacted_text_stays_as_it_is() -> None:
    once = redacted("I am Daniel Moreau, mail a@example.com")
    assert "<PERSON>" in once
    assert redacted(once) == once
