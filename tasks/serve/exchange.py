"""One request and what became of it: the figures that all are kept of, the messages of some.

traffic/figures/DATE/HOUR/*.jsonl     one line a request: who answered, how fast, how it ended
traffic/messages/DATE/HOUR/*.jsonl    a sample, scrubbed, as ``tasks.ingest.gateway_log`` reads
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from tasks.artifacts import Record
from tasks.assistant_speech import HEAD, refuses
from tasks.serve.answer import calls_of, first_choice, text_of, usage, whole
from tasks.serve.routing import Side

# Fields of a request that name a person; the pseudonym stands for them.
_WHO = frozenset({"user", "safety_identifier", "prompt_cache_key"})

# How a request ended that was not answered as it should be.
Failure = Literal[
    "unreachable",  # no replica could be reached
    "timed_out",  # it did not begin to answer in time, or stopped on the way
    "upstream_error",  # it answered 5xx
    "broken_off",  # it lost the connection on the way
    "client_left",  # whoever asked did not wait
]


class Exchange(Record):
    """What the gateway knows of one request; ``user`` and ``conversation`` are pseudonyms.

    ``unit`` is what was assigned to a side: a user, a conversation or this request, as pseudonym.

    ``side`` is who was to answer, ``model_version`` who did: with ``fell_back`` the challenger
    failed, and the champion answered for it. Of a request with ``sampled`` the messages are kept as
    well.
    """

    request_id: str
    created_at: datetime
    endpoint: str
    model: str
    model_version: str
    side: Side
    fell_back: bool = False
    unit: str
    user: str | None = None
    conversation: str | None = None
    status: int
    failure: Failure | None = None
    seconds: float
    first_byte_seconds: float | None = None
    streamed: bool
    sampled: bool = False
    request: str = ""
    response: str = ""


class Figures(Record):
    """What is kept of every request; none of it says what was asked.

    ``num_characters`` is the answer's length; ``json_valid`` is told where JSON was asked for.
    """

    request_id: str
    created_at: datetime
    endpoint: str
    model: str
    model_version: str
    side: Side
    fell_back: bool
    unit: str
    user: str | None
    status: int
    failure: Failure | None
    seconds: float
    first_byte_seconds: float | None
    streamed: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    num_characters: int
    empty: bool
    refused: bool
    json_valid: bool | None


class Counted(NamedTuple):
    """An exchange's figures, but for whether it refused, which is told of many at once.

    ``opening`` is what that is seen by: None where there is nothing to be said to it.
    """

    figures: Figures
    opening: str | None


def counted(exchange: Exchange) -> Counted:
    """The figures of one request, without its texts."""
    answer = whole(exchange.response.encode(), streamed=exchange.streamed)
    choice = first_choice(answer)
    text = text_of(choice)
    prompt_tokens, completion_tokens = usage(answer)
    ended = choice.get("finish_reason")
    answered = exchange.status == 200 and exchange.failure is None
    declined = answered and _declined(choice)
    kept = exchange.model_dump(
        exclude={"conversation", "sampled", "request", "response"}, mode="python"
    )
    figures = Figures(
        **kept,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        finish_reason=ended if isinstance(ended, str) else None,
        num_characters=len(text),
        empty=answered and not text.strip() and not calls_of(choice),
        refused=declined,
        json_valid=_is_json(text) if answered and _wants_json(exchange.request) else None,
    )
    return Counted(figures, text[:HEAD] if answered and not declined else None)


def figures_of(found: Sequence[Counted]) -> list[Figures]:
    """The figures of several requests, whole: patterns take milliseconds, for one or a thousand."""
    openings = pa.array([one.opening for one in found], pa.string())
    refused = refuses(openings).to_pylist()
    return [
        one.figures.model_copy(update={"refused": True}) if says_no else one.figures
        for one, says_no in zip(found, refused, strict=True)
    ]


def record_of(exchange: Exchange) -> dict[str, Any]:
    """The request and the answer as one line of the gateway's log, before it is scrubbed."""
    request = json.loads(exchange.request)
    said = {name: value for name, value in request.items() if name not in _WHO}
    return {
        "request_id": exchange.request_id,
        "created_at": exchange.created_at.isoformat(),
        "model": exchange.model,
        "model_version": exchange.model_version,
        "side": exchange.side,
        "user": exchange.user,
        "conversation": exchange.conversation,
        "status": exchange.status,
        "request": said,
        "response": whole(exchange.response.encode(), streamed=exchange.streamed),
    }


def _declined(choice: dict[str, Any]) -> bool:
    """Whether the replica itself says that it refused."""
    message = choice.get("message")
    refusal = message.get("refusal") if isinstance(message, dict) else None
    return bool(refusal) or choice.get("finish_reason") == "content_filter"


def _wants_json(request: str) -> bool:
    """Whether the client asked for JSON; the text is looked through first, for it is long."""
    if '"response_format"' not in request:
        return False
    wanted = json.loads(request).get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
