"""Personal data goes from every turn; answers, ids and product names stay as they are."""

import json
import socket
from collections import Counter
from typing import NoReturn

import pytest

from tasks.clean.config import PiiConfig
from tasks.clean.pii import redact, redact_texts
from tasks.errors import ConfigError
from tasks.example import Example, Message

ALLOW = ("Quill", "Keyboard", "Volt", "Orbit Speaker")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: neither a model nor a list of the endings of mail addresses."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("redaction opened a connection")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def redacted(text: str, **config: object) -> str:
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


def test_a_name_said_in_one_turn_goes_from_all_of_its_conversation_alone() -> None:
    def chat(ask: str, answer: str) -> Example:
        turns = (
            Message("system", "Daniel Moreau"),
            Message("user", ask),
            Message("assistant", answer),
        )
        return Example("1", turns, "human", "g")

    named = chat("My name is Daniel Moreau. It broke.", ticket(summary="Daniel Moreau complains"))
    other = chat("It broke on the first day.", ticket(summary="Daniel Moreau complains"))
    first, second = redact([named, other], PiiConfig()).examples
    assert first.messages[0].content == "Daniel Moreau"  # the system turn is the task's own
    assert first.prompt == "My name is <PERSON>. It broke."
    assert json.loads(first.answer)["summary"] == "<PERSON> complains"
    assert second == other


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
    row = Example("1", (Message("user", "a@example.com"),), "human", "g")
    result = redact([row], PiiConfig(enabled=False))
    assert (result.examples, result.counts) == ([row], {})


def test_a_redacted_text_stays_as_it_is() -> None:
    once = redacted("I am Daniel Moreau, mail a@example.com")
    assert "<PERSON>" in once
    assert redacted(once) == once
