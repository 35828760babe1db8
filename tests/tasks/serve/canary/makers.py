"""Trials, and traffic in a store as gateways leave it there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.objects import Store
from tasks.serve.canary.config import CanaryConfig
from tasks.serve.exchange import Exchange
from tasks.serve.traffic import Book, Feedback, keep_feedback
from tasks.trial import Trial

BEGUN = datetime(2026, 11, 28, 5, 59, 30, tzinfo=UTC)


def trial(**settings: Any) -> Trial:
    config = CanaryConfig.model_validate({"min_answers": 1, **settings})
    return Trial(
        model="tickets",
        champion="1",
        challenger="2",
        begun_at=BEGUN,
        settings=config.model_dump(mode="json"),
    )


def exchange(number: int, side: str = "champion", **more: Any) -> Exchange:
    """One answered request, half a second after the one before."""
    fields: dict[str, Any] = {
        "request_id": f"req-{number}",
        "created_at": BEGUN + timedelta(seconds=number / 2),
        "endpoint": "/v1/chat/completions",
        "model": "tickets",
        "model_version": "1" if side == "champion" else "2",
        "side": side,
        "unit": f"user-{number}",
        "status": 200,
        "seconds": 0.5,
        "streamed": False,
        "request": "{}",
        "response": answer("all is well, and on its way"),
    }
    return Exchange(**{**fields, **more})


def answer(text: str) -> str:
    said = text.replace('"', '\\"')
    return (
        '{"choices": [{"index": 0, "finish_reason": "stop", "message": '
        f'{{"role": "assistant", "content": "{said}"}}}}]}}'
    )


def written(store: Store, exchanges: Iterable[Exchange]) -> None:
    book = Book(store, _as_it_is, 1_000_000)
    for one in exchanges:
        book.take(one)
    assert book.write()


def said(store: Store, of: Exchange, **what: Any) -> None:
    """Feedback on a request, a second after it."""
    at = of.created_at + timedelta(seconds=1)
    given = Feedback(request_id=of.request_id, asked_at=of.created_at, created_at=at, **what)
    assert keep_feedback(store, given, _as_it_is)


def _as_it_is(texts: Sequence[list[str]]) -> list[list[str] | None]:
    return list(texts)
