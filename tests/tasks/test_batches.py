"""Batches with the real client against a local server: nothing is paid twice, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pytest

from tasks.anthropic_client import make_client
from tasks.batch_api import BatchError, Failure, Reply, Usage
from tasks.batches import BatchConfig, BatchOutcome, BatchRequest, run_batches
from tasks.errors import ConfigError, StorageError, is_transient
from tasks.objects import LocalStore, Store
from tests import messages_api as stub
from tests.messages_api import StubApi, error, message, running

pytestmark = pytest.mark.timeout(60)

PRICES = {"input_usd_per_million": 1.0, "output_usd_per_million": 2.0}


def config(**options: Any) -> BatchConfig:
    return BatchConfig(
        **{
            **PRICES,
            "budget_usd": 100.0,
            "poll_seconds": 0.01,
            "settle_seconds": 0.0,
            "max_requests": 3,
            **options,
        }
    )


def request(word: str) -> BatchRequest:
    body = {"model": "stub", "max_tokens": 100, "messages": [{"role": "user", "content": word}]}
    return BatchRequest(body)


def words(count: int) -> list[str]:
    return [f"word-{i:02}." for i in range(count)]


def run(
    api: StubApi, store: Store, asked: list[str], *, retries: int = 2, **options: Any
) -> BatchOutcome:
    with make_client({"ANTHROPIC_BASE_URL": api.url}, max_retries=retries) as client:
        return run_batches(map(request, asked), client, store, config(**options))


def replies(outcome: BatchOutcome) -> int:
    return sum(isinstance(result, Reply) for result in outcome.results.values())


def reasons(outcome: BatchOutcome) -> list[str]:
    return [result.reason for result in outcome.results.values() if isinstance(result, Failure)]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture(autouse=True)
def echo(api: StubApi) -> None:
    """Each reply says what was asked, so that a mix-up would show."""
    api.answer = echoing


def echoing(params: dict[str, Any]) -> stub.Reply:
    text = {"type": "text", "text": params["messages"][0]["content"]}
    return message([text], stop_reason="end_turn", usage=(10, 20))


def test_every_request_gets_its_own_reply_in_order(api: StubApi, store: LocalStore) -> None:
    asked = words(10)
    outcome = run(api, store, asked)
    told = [r.content[0]["text"] for r in outcome.results.values() if isinstance(r, Reply)]
    assert told == asked
    assert list(outcome.results) == [request(word).custom_id for word in asked]
    assert [len(batch.custom_ids) for batch in api.batches] == [3, 3, 3, 1]
    assert outcome.spent_usd == pytest.approx(10 * (10 * 1.0 + 20 * 2.0) / 1e6)
    assert (outcome.status, outcome.num_sent, outcome.num_cached) == ("completed", 10, 0)


def test_ids_are_digests_that_the_api_accepts() -> None:
    one, same, other = request("a"), request("a"), request("b")
    assert one.custom_id == same.custom_id != other.custom_id
    assert len(one.custom_id) == 64
    assert one.custom_id.isalnum()


def test_equal_requests_are_sent_once(api: StubApi, store: LocalStore) -> None:
    outcome = run(api, store, ["a", "b", "a", "a"])
    assert len(outcome.results) == 2
    assert sum(api.paid.values()) == 2


def test_a_second_run_pays_only_what_is_new(api: StubApi, store: LocalStore) -> None:
    first = run(api, store, words(5))
    again = run(api, store, words(7))
    assert (again.num_cached, again.num_sent) == (5, 2)
    assert again.spent_earlier_usd == pytest.approx(first.spent_usd)
    assert set(api.paid.values()) == {1}
    calls = api.calls.copy()
    assert run(api, store, words(7)).num_sent == 0
    assert api.calls == calls


def test_nothing_asked_is_nothing_sent(api: StubApi, store: LocalStore) -> None:
    outcome = run(api, store, [])
    assert (outcome.results, outcome.status, api.calls) == ({}, "completed", {})


# ------------------------------------------------------------------------------------------- money


def test_the_budget_is_never_passed_whatever_the_replies_cost(
    api: StubApi, store: LocalStore
) -> None:
    """Every reply costs its upper bound in output tokens."""
    api.answer = lambda _: message([], stop_reason="end_turn", usage=(1000, 100))
    most = request(words(1)[0]).most_usd(config())
    budget = 6.5 * most
    outcome = run(api, store, words(12), budget_usd=budget, max_requests=2)
    assert outcome.status == "budget_reached"
    assert outcome.num_unsent == 12 - sum(api.paid.values()) > 0
    assert outcome.num_unsent + replies(outcome) == 12
    assert budget - most < outcome.spent_usd + most * 0.2 <= budget + most * 0.2
    assert outcome.spent_usd <= budget


def test_what_waves_left_over_is_used(api: StubApi, store: LocalStore) -> None:
    """The bound is far above what is paid: a budget for two at once is enough for all."""
    most = request(words(1)[0]).most_usd(config())
    outcome = run(api, store, words(9), budget_usd=2.1 * most)
    assert outcome.status == "completed"
    assert max(len(batch.custom_ids) for batch in api.batches) == 2


def test_the_bound_holds_for_text_of_many_tokens() -> None:
    text = "\U0001f600" * 50  # some tokenizers make four tokens of one such character
    usd = request(text).most_usd(config())
    assert usd >= config().usd(Usage(input_tokens=200, output_tokens=100))


def test_a_request_dearer_than_the_budget_is_not_sent(api: StubApi, store: LocalStore) -> None:
    outcome = run(api, store, words(1), budget_usd=1e-9)
    assert (outcome.status, outcome.num_unsent) == ("budget_reached", 1)
    assert not api.batches


def test_a_resumed_run_has_one_budget_and_a_later_one_its_own(
    api: StubApi, store: LocalStore
) -> None:
    api.answer = lambda _: message([], stop_reason="end_turn", usage=(1000, 100))
    most = request(words(1)[0]).most_usd(config())
    first = run(api, store, words(8), budget_usd=3.1 * most, max_requests=1)
    resumed = run(api, store, words(8), budget_usd=3.1 * most, max_requests=1)
    assert (resumed.num_sent, resumed.status) == (0, "budget_reached")
    assert resumed.spent_earlier_usd == pytest.approx(first.spent_usd)
    later = run(api, store, words(8), budget_usd=3.1 * most, max_requests=1, budget_hours=0)
    assert later.num_sent > 0
    assert set(api.paid.values()) == {1}


def test_prices_have_no_default() -> None:
    with pytest.raises(ValueError, match="output_usd_per_million"):
        BatchConfig.model_validate({"budget_usd": 1, "input_usd_per_million": 1})


# -------------------------------------------------------------------------- what the API answers


@pytest.mark.parametrize("call", ["create", "retrieve", "results"])
@pytest.mark.parametrize("fault", [error(429), error(529), error(500), stub.LOST])
def test_what_passes_is_bridged(
    api: StubApi, store: LocalStore, call: str, fault: stub.Reply
) -> None:
    api.faults = {call: [fault] * (1 if fault is stub.LOST else 2)}
    outcome = run(api, store, words(4))
    assert replies(outcome) == 4
    assert set(api.paid.values()) == {1}


def test_a_creation_whose_answer_was_lost_is_found_and_not_repeated(
    api: StubApi, store: LocalStore
) -> None:
    api.faults = {"create": [stub.LOST_AFTER, stub.LOST_AFTER]}
    outcome = run(api, store, words(6))
    assert replies(outcome) == 6
    assert len(api.batches) == 2
    assert set(api.paid.values()) == {1}


def test_a_lost_creation_is_not_given_up_because_its_results_cannot_be_read_at_once(
    api: StubApi, store: LocalStore
) -> None:
    garbage = [stub.Reply(200, "x\n"), stub.Reply(200, ""), error(500)]
    api.faults = {"create": [stub.LOST_AFTER], "results": garbage}
    assert replies(run(api, store, words(3))) == 3
    assert len(api.batches) == 1


def test_a_creation_answered_with_garbage_is_found_and_not_repeated(
    api: StubApi, store: LocalStore
) -> None:
    class Garbling(StubApi):
        def batch_call(self, method: str, *rest: Any) -> stub.Reply:
            answer = super().batch_call(method, *rest)
            return stub.Reply(200, "{not json") if method == "POST" else answer

    with running(Garbling()) as garbling:
        garbling.answer = echoing
        assert replies(run(garbling, store, words(6))) == 6
        assert len(garbling.batches) == 2


@pytest.mark.parametrize("call", ["create", "retrieve", "results"])
def test_what_lasts_surfaces_as_transient_and_the_next_run_goes_on(
    api: StubApi, store: LocalStore, call: str
) -> None:
    api.faults = {call: [error(529)] * 3}
    with pytest.raises(anthropic.APIStatusError) as caught:
        run(api, store, words(4), retries=2)
    assert is_transient(caught.value)
    assert replies(run(api, store, words(4))) == 4
    assert set(api.paid.values()) == {1}


def test_a_refused_creation_fails_at_once(api: StubApi, store: LocalStore) -> None:
    api.faults = {"create": [error(401)]}
    with pytest.raises(anthropic.AuthenticationError):
        run(api, store, words(1))
    assert api.calls == {"create": 1}
    assert replies(run(api, store, words(1))) == 1


def test_an_unreadable_state_is_looked_at_again_and_not_for_ever(
    api: StubApi, store: LocalStore
) -> None:
    api.faults = {"retrieve": [stub.Reply(200, "{not json"), stub.Reply(200, {"id": 5})]}
    assert replies(run(api, store, words(1))) == 1
    api.faults = {"retrieve": [stub.Reply(200, "{}")] * 9}
    with pytest.raises(BatchError, match="unreadable answer"):
        run(api, store, ["another"])
    api.faults = {}
    assert replies(run(api, store, ["another"])) == 1
    assert set(api.paid.values()) == {1}


@pytest.mark.parametrize(
    "fate", [stub.EXPIRED, stub.CANCELED, error(529), error(500), stub.NOT_RUN]
)
def test_what_was_not_run_is_sent_again_so_often(
    api: StubApi, store: LocalStore, fate: stub.Reply
) -> None:
    api.scripts = {"word-01.": [fate, fate], "word-02.": [fate] * 3}
    outcome = run(api, store, words(4), max_sends=3)
    assert replies(outcome) == 3
    assert len(reasons(outcome)) == 1
    sent = [r["messages"][0]["content"] for r in api.requests]
    assert (sent.count("word-00."), sent.count("word-01."), sent.count("word-02.")) == (1, 3, 3)
    assert max(api.paid.values()) == 1


def test_an_invalid_request_is_final(api: StubApi, store: LocalStore) -> None:
    api.scripts = {"word-01.": [error(400)]}
    outcome = run(api, store, words(3))
    assert reasons(outcome) == ["invalid_request"]
    assert len(api.requests) == 3


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (stub.OMITTED, "unread"),
        (stub.GARBLED, "unread"),
        (stub.Reply(200, {"type": "message"}), "malformed"),
        (stub.Reply(200, "no message"), "malformed"),
        (stub.Reply(200, {"content": [], "usage": {"input_tokens": -1}}), "malformed"),
    ],
)
def test_a_paid_reply_that_cannot_be_read_is_charged_and_never_paid_again(
    api: StubApi, store: LocalStore, fate: stub.Reply, reason: str
) -> None:
    api.scripts = {"word-01.": [fate]}
    outcome = run(api, store, words(3))
    assert reasons(outcome) == [reason]
    assert outcome.spent_usd > request("word-01.").most_usd(config())
    api.batches[0].lines = [
        json.dumps({"custom_id": i, "result": {"type": "succeeded", "message": echoing(p).body}})
        for i, p in zip(api.batches[0].custom_ids, api.requests, strict=True)
    ]
    again = run(api, store, words(3))
    assert replies(again) == 3, "the next run reads the results again"
    assert len(api.batches) == 1


def test_results_that_come_incomplete_once_are_read_again(api: StubApi, store: LocalStore) -> None:
    api.faults = {"results": [stub.Reply(200, "\n\x00garbage\n"), stub.Reply(200, "")]}
    outcome = run(api, store, words(3))
    assert replies(outcome) == 3
    assert len(api.batches) == 1


def test_lines_for_unknown_requests_are_ignored(api: StubApi, store: LocalStore) -> None:
    foreign = {"custom_id": "foreign", "result": {"type": "expired"}}
    run(api, store, words(1))
    api.batches[0].lines.append(json.dumps(foreign))
    api.answer = lambda _: stub.EXPIRED
    outcome = run(api, store, ["another"], max_sends=1)
    assert set(outcome.results) == {request("another").custom_id}


def test_a_batch_that_was_deleted_is_paid_again_only_by_the_next_run(
    api: StubApi, store: LocalStore
) -> None:
    api.faults = {"retrieve": [error(500)] * 3}
    with pytest.raises(anthropic.InternalServerError):
        run(api, store, words(2))
    api.batches.clear()
    assert reasons(run(api, store, words(2))) == ["gone", "gone"]
    assert replies(run(api, store, words(2))) == 2


def test_many_faults_at_once_lose_nothing(api: StubApi, store: LocalStore) -> None:
    asked = words(60)
    fates = [stub.EXPIRED, stub.CANCELED, error(529), stub.NOT_RUN]
    for i, word in enumerate(asked):
        api.scripts[word] = [fates[i % 4]] * (i % 3)
    api.faults = {
        "create": [stub.LOST, error(429), stub.LOST_AFTER, error(500), error(529), stub.LOST_AFTER],
        "retrieve": [error(500), stub.Reply(200, "?"), error(529)] * 5,
        "results": [error(529), stub.Reply(200, "x\n")] * 5,
    }
    outcome = run(api, store, asked, max_requests=7, retries=8)
    assert replies(outcome) == 60
    assert set(api.paid.values()) == {1}


# ------------------------------------------------------------------------------------ being killed


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


class Fuse:
    """Kills at the n-th step of whatever is wired to it."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self._lock = threading.Lock()

    def step(self, *_: Any) -> None:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise Killed


class FusedStore(LocalStore):
    """Kills before or after a write."""

    def __init__(self, root: Path, fuse: Fuse) -> None:
        super().__init__(root)
        self._fuse = fuse

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        self._fuse.step()
        done = super().put_bytes(key, body, if_absent=if_absent)
        self._fuse.step()
        return done


def killed_at(api: StubApi, folder: Path, step: int, ask: Callable[..., Any]) -> bool:
    """Run with a fuse before and after every HTTP call and every write; whether it blew."""
    fuse = Fuse(step)
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [fuse.step], "response": [fuse.step]}
    http = anthropic.DefaultHttpxClient(event_hooks=hooks)
    with anthropic.Anthropic(api_key="-", base_url=api.url, http_client=http) as client:
        try:
            ask(client, FusedStore(folder, fuse))
        except Killed:
            return True
    return False


def test_killed_at_any_step_nothing_is_paid_twice(tmp_path: Path) -> None:
    """Before and after each HTTP call and each write, in turn; some requests expire at first."""
    step, blew = 0, True
    while blew:
        with running(StubApi()) as api:
            api.answer, api.scripts = echoing, {"word-01.": [stub.EXPIRED]}
            folder = tmp_path / str(step)
            blew = killed_at(
                api,
                folder,
                step,
                lambda client, store: run_batches(
                    map(request, words(4)), client, store, config(max_requests=2)
                ),
            )
            outcome = run(api, LocalStore(folder), words(4), max_requests=2)
            assert replies(outcome) == 4, f"lost, killed at step {step}"
            assert set(api.paid.values()) == {1}, f"paid twice, killed at step {step}"
        step += 1
    assert step > 40


def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    with running(StubApi()) as api:
        api.answer, api.looks = echoing, 0
        asked = list(map(request, words(8)))
        kills = 0
        while killed_at(
            api,
            tmp_path,
            9 + kills % 5,
            lambda client, store: run_batches(asked, client, store, config()),
        ):
            kills += 1
            assert kills < 60
        assert kills > 3
        assert set(api.paid.values()) == {1}
        assert replies(run(api, LocalStore(tmp_path), words(8))) == 8


SCRIPT = """
import sys
from pathlib import Path
from tasks.anthropic_client import make_client
from tasks.batches import BatchConfig, BatchRequest, run_batches
from tasks.objects import LocalStore

def request(word):
    body = {"model": "stub", "max_tokens": 100, "messages": [{"role": "user", "content": word}]}
    return BatchRequest(body)

config = BatchConfig(budget_usd=1, input_usd_per_million=1, output_usd_per_million=1,
                     poll_seconds=0.01, settle_seconds=0, max_requests=2)
client = make_client({"ANTHROPIC_BASE_URL": sys.argv[1]})
asked = [request(f"word-{i:02}.") for i in range(4)]
outcome = run_batches(asked, client, LocalStore(Path(sys.argv[2])), config)
print(len(outcome.results))
"""


def test_a_process_that_is_killed_between_creation_and_answer(tmp_path: Path) -> None:
    class Killing(StubApi):
        process: subprocess.Popen[str] | None = None

        def batch_call(self, method: str, *rest: Any) -> stub.Reply:
            answer = super().batch_call(method, *rest)
            if len(self.batches) == 2 and method == "POST" and self.process is not None:
                os.kill(self.process.pid, signal.SIGKILL)
            return answer

    with running(Killing()) as api:
        api.answer = echoing
        command = [sys.executable, "-c", SCRIPT, api.url, str(tmp_path / "store")]
        api.process = subprocess.Popen(command, text=True)
        assert api.process.wait(60) == -signal.SIGKILL
        api.process = None
        again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert again.stdout.strip() == "4"
        assert len(api.batches) == 2
        assert set(api.paid.values()) == {1}


def test_an_unfinished_batch_of_the_same_size_is_waited_for(
    api: StubApi, store: LocalStore, tmp_path: Path
) -> None:
    """After a kill, a foreign batch that looks like ours is seen through by its results."""
    api.looks = 0
    killed_at(
        api,
        tmp_path,
        3,  # right before the answer to the creation is read
        lambda client, fused: run_batches(map(request, words(2)), client, fused, config()),
    )
    assert len(api.batches) == 1
    run(api, LocalStore(tmp_path / "foreign"), ["x", "y"])
    api.batches[1].looks = 3
    waiting = threading.Thread(
        target=lambda: (time.sleep(0.2), setattr(api.batches[1], "looks", 0))
    )
    waiting.start()
    assert replies(run(api, store, words(2))) == 2
    waiting.join()
    assert set(api.paid.values()) == {1}


def test_two_runs_after_each_other_share_batches_under_way(api: StubApi, store: LocalStore) -> None:
    """What another run has under way is awaited, and what it did not ask for is stored too."""
    api.faults = {"retrieve": [error(500)] * 3}
    with pytest.raises(anthropic.InternalServerError):
        run(api, store, words(3))
    assert replies(run(api, store, words(1))) == 1
    calls = api.calls["create"]
    assert run(api, store, words(3)).num_cached == 3
    assert api.calls["create"] == calls


def test_a_damaged_reply_in_the_store_is_named(api: StubApi, store: LocalStore) -> None:
    run(api, store, words(1))
    key = f"batches/replies/{request(words(1)[0]).custom_id}.json"
    store.put_bytes(key, b"{}")
    with pytest.raises(StorageError, match=f"{key} is not a reply"):
        run(api, store, words(1))


def test_a_client_needs_an_address_or_a_key() -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        make_client({})
