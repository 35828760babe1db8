"""Many Messages requests, each answered at once: cached, in a budget, none lost and none doubled.

What ``tasks.batches`` does by Message Batches at half the price, for fewer requests, or for servers
that know no batches. Both keep their replies in the store under the same names.

Money: a request is sent only if what was spent, plus the most that everything in flight can cost,
stays within the budget. What is not sent for that reason has no result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from tasks.anthropic_client import sampling
from tasks.batch_api import Failure, Reply
from tasks.batches import BatchConfig, BatchOutcome, BatchRequest
from tasks.objects import Store
from tasks.replies import store_replies, stored_replies

if TYPE_CHECKING:
    import anthropic

_EXTRA = frozenset({"temperature"})  # in a body, but no argument of the client's


def run_messages(
    requests: Iterable[BatchRequest],
    client: anthropic.Anthropic,
    store: Store,
    config: BatchConfig,
    *,
    concurrency: int,
    most_failures: float,
    is_failure: Callable[[Reply], bool] = lambda _: False,
) -> BatchOutcome:
    """A reply or a failure for each distinct request, as far as the budget goes.

    ``config`` gives the prices and the budget. Once more than ``most_failures`` failed, the others
    are not sent, and failures themselves, with the reason ``not_sent``; ``is_failure`` says which
    replies count as failed.
    """
    distinct = {r.custom_id: r for r in requests}
    cached = stored_replies(store, distinct)
    run = _Run(client, store, config, most_failures, is_failure)
    wanted = [request for i, request in distinct.items() if i not in cached]
    with ThreadPoolExecutor(concurrency) as pool:
        answered = dict(zip((r.custom_id for r in wanted), pool.map(run.ask, wanted), strict=True))
    results = cached | {i: result for i, result in answered.items() if result is not None}
    return BatchOutcome(
        results={i: results[i] for i in distinct if i in results},
        spent_usd=run.spent,
        spent_earlier_usd=0.0,
        num_sent=run.num_sent,
        num_cached=len(cached),
        num_unsent=len(distinct) - len(results),
        status="completed" if len(results) == len(distinct) else "budget_reached",
    )


class _Run:
    """What the threads of one run share: money and failures."""

    def __init__(
        self,
        client: anthropic.Anthropic,
        store: Store,
        config: BatchConfig,
        most_failures: float,
        is_failure: Callable[[Reply], bool],
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._most_failures = most_failures
        self._is_failure = is_failure
        self._lock = Lock()
        self._reserved = 0.0
        self._num_failed = 0
        self.spent = 0.0
        self.num_sent = 0

    def ask(self, request: BatchRequest) -> Reply | Failure | None:
        """The reply, why there is none, or None where the budget does not reach."""
        most = request.most_usd(self._config)
        with self._lock:
            if self._num_failed > self._most_failures:
                return Failure("not_sent", "too many requests had failed")
            if self.spent + self._reserved + most > self._config.budget_usd:
                return None
            self._reserved += most
            self.num_sent += 1
        paid = most  # whatever stops this thread, the money may be gone
        try:
            result, paid = self._send(request, most)
        finally:
            with self._lock:
                self._reserved -= most
                self.spent += paid
        with self._lock:
            self._num_failed += isinstance(result, Failure) or self._is_failure(result)
        if isinstance(result, Reply):
            store_replies(self._store, {request.custom_id: result})
        return result

    def _send(self, request: BatchRequest, most: float) -> tuple[Reply | Failure, float]:
        """What came of a request, and what was paid for it, at most."""
        import anthropic

        body = {k: v for k, v in request.params.items() if k not in _EXTRA}
        try:
            # The raw response: the client hands on even a body that is not what it expects.
            raw = self._client.messages.with_raw_response.create(
                **body, **sampling(request.params.get("temperature"))
            )
            reply = Reply.model_validate({**_json(raw.text()), "created_at": datetime.now(UTC)})
        except anthropic.APIError as error:
            return Failure("api_error", f"{type(error).__name__}: {error}"), 0.0
        except ValueError as error:
            return Failure("unreadable", _told(error)), most
        return reply, self._config.usd(reply.usage)


def _json(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")  # noqa: TRY004  # bad data, not a bad call
    return found


def _told(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors(include_url=False))
    return str(error)
