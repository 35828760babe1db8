"""The gateway over HTTP: who answers, what goes through unchanged, what is made good, and kept."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from deployments.services.gateway import Gateway, make_app
from tasks.objects import LocalStore
from tasks.serve import keys
from tasks.serve.config import GatewayConfig, LimitsConfig, TrafficConfig
from tasks.serve.request_ids import RequestIds
from tasks.serve.routing import Route, Version
from tests.asgi import serving
from tests.replica import PIECES, StubReplica, running

CHAMPION = Version(version="1", served="tickets@aaa")
CHALLENGER = Version(version="2", served="tickets@bbb")
ALONE = {"tickets": Route(champion=CHAMPION)}
HELLO = {"model": "tickets", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = "".join(PIECES)


def against(share: float = 1.0, *, shadow: bool = False) -> dict[str, Route]:
    return {"tickets": Route(champion=CHAMPION, challenger=CHALLENGER, share=share, shadow=shadow)}


class Registry:
    """Says what it is told to, or that it is away."""

    def __init__(self, routes: dict[str, Route]) -> None:
        self.now: dict[str, Route] | Exception = routes

    def routes(self) -> dict[str, Route]:
        if isinstance(self.now, Exception):
            raise self.now
        return self.now


class Place:
    """Makes gateways in front of replicas, with a store of their own."""

    def __init__(self, folder: Path, exits: ExitStack) -> None:
        self.folder, self.exits = folder, exits
        self.store = LocalStore(folder / "store")
        self.registry = Registry(ALONE)

    def replica(self, *loaded: str, **more: Any) -> StubReplica:
        loaded = loaded or ("tickets@aaa", "tickets@bbb")
        return self.exits.enter_context(running(StubReplica(set(loaded), **more)))

    def gateway(
        self, *replicas: StubReplica, routes: dict[str, Route] = ALONE, **config: Any
    ) -> httpx.Client:
        self.registry.now = routes
        settings = {
            "replicas": tuple(replica.url for replica in replicas),
            "refresh_seconds": 0.1,
            "traffic": TrafficConfig(flush_seconds=0.2, sampled=0.0),
            **config,
        }
        (self.folder / "gateway").mkdir(exist_ok=True)
        made = Gateway(
            GatewayConfig(**settings),
            self.registry,  # type: ignore[arg-type]
            self.folder / "gateway",
            RequestIds("secret"),
        )
        return self.exits.enter_context(serving(make_app(made)))

    def figures(self, wanted: int) -> list[dict[str, Any]]:
        return self.lines("traffic/figures/", wanted)

    def lines(self, folder: str, wanted: int) -> list[dict[str, Any]]:
        """What is kept, when there is as much as is wanted."""
        deadline = time.monotonic() + 60
        while True:
            bodies = [self.store.get_bytes(key) for key in self.store.keys_under(folder)]
            found = [json.loads(line) for body in bodies for line in body.splitlines()]
            if len(found) >= wanted or time.monotonic() > deadline:
                assert len(found) == wanted
                return found
            time.sleep(0.1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("RETUNE_STORE", str(tmp_path / "store"))
    with ExitStack() as exits:
        yield Place(tmp_path, exits)


def ask(client: httpx.Client, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    return client.post("/v1/chat/completions", json={**HELLO, **more}, headers=headers)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_model_is_asked_for_by_its_name_and_its_champion_answers(place: Place) -> None:
    replica = place.replica()
    client = place.gateway(replica)
    answer = ask(client, temperature=0.0)
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    assert answer.headers["x-model-version"] == "1"
    assert answer.headers["x-request-id"].startswith("req-")
    assert replica.asked == [{**HELLO, "temperature": 0.0, "model": "tickets@aaa"}]
    listed = client.get("/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["tickets"]


def test_what_comes_goes_on_unchanged_but_for_the_models_name(place: Place) -> None:
    replica = place.replica()
    client = place.gateway(replica)
    raw = b'{ "seed":1e2,\n"model" : "tickets", "messages":[{"role":"user","content":"\\u00e4"}]  }'
    answer = client.post(
        "/v1/chat/completions", content=raw, headers={"content-type": "application/json"}
    )
    assert replica.bodies == [raw.replace(b'"tickets"', b'"tickets@aaa"')]
    direct = httpx.post(f"{replica.url}/v1/chat/completions", content=replica.bodies[0])
    assert answer.content == direct.content
    assert answer.headers["content-type"] == direct.headers["content-type"]


def test_a_stream_comes_piece_by_piece_as_the_replica_sends_it(place: Place) -> None:
    replica = place.replica(pause=0.3)
    client = place.gateway(replica)
    with client.stream("POST", "/v1/chat/completions", json={**HELLO, "stream": True}) as answer:
        times, raw = [], b""
        for piece in answer.iter_raw():
            times.append(time.monotonic())
            raw += piece
    assert times[-1] - times[0] > 0.5  # not kept back until the end
    asked = {**HELLO, "stream": True, "model": "tickets@aaa"}
    direct = httpx.post(f"{replica.url}/v1/chat/completions", json=asked)
    assert raw == direct.content  # the number of tokens, which it did not ask for, is taken out
    assert replica.asked[0]["stream_options"] == {"include_usage": True}
    (kept,) = place.figures(1)
    assert (kept["prompt_tokens"], kept["completion_tokens"]) == (7, 3)
    assert kept["first_byte_seconds"] < 0.3 < kept["seconds"]


def test_the_official_client_streams_and_reads_errors(place: Place) -> None:
    client = place.gateway(place.replica())
    api = openai.OpenAI(api_key="none", base_url=f"{client.base_url}/v1", max_retries=0)
    with api.chat.completions.create(
        model="tickets",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == ANSWER
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    with pytest.raises(openai.NotFoundError, match="no model 'other'") as raised:
        api.chat.completions.create(model="other", messages=[{"role": "user", "content": "x"}])
    assert raised.value.code == "model_not_found"
    assert [model.id for model in api.models.list()] == ["tickets"]


def test_a_share_of_the_users_gets_the_challenger_and_each_keeps_its_side(place: Place) -> None:
    client = place.gateway(place.replica(), routes=against(0.3))
    seen: dict[str, set[str]] = {}
    for turn in range(3):
        for number in range(60):
            user = f"user-{number}"
            sent = {"headers": {"x-user-id": user}} if turn else {"user": user}
            seen.setdefault(user, set()).add(ask(client, **sent).headers["x-model-version"])
    assert all(len(versions) == 1 for versions in seen.values())
    sides = Counter(next(iter(versions)) for versions in seen.values())
    assert 8 <= sides["2"] <= 28  # 18 expected; outside once in 4,000
    figures = place.figures(180)
    assert {(f["side"], f["model_version"]) for f in figures} == {
        ("champion", "1"),
        ("challenger", "2"),
    }
    assert len({f["user"] for f in figures}) == 60
    assert "user-1" not in json.dumps(figures)


@pytest.mark.parametrize("fault", ["status", "gone", "slow", "breaks"])
def test_where_the_challenger_fails_the_champion_answers_and_it_is_counted(
    place: Place, fault: str
) -> None:
    bad = place.replica("tickets@bbb", delay=2.0 if fault == "slow" else 0.0)
    good = place.replica("tickets@aaa")
    bad.status = 500 if fault == "status" else 200
    bad.breaks_after = 0 if fault == "breaks" else None
    limits = LimitsConfig(connect_seconds=0.2, first_byte_seconds=0.3)
    client = place.gateway(bad, good, routes=against(), limits=limits, refresh_seconds=10)
    if fault == "gone":  # since it was looked at
        bad.loaded.clear()
    answer = ask(client, stream=fault == "breaks")
    assert answer.status_code == 200
    assert answer.headers["x-model-version"] == "1"
    (kept,) = place.figures(1)
    assert (kept["side"], kept["model_version"], kept["fell_back"]) == ("challenger", "1", True)
    metrics = client.get("/metrics").text
    assert 'retune_gateway_failures_total{failure="' in metrics
    assert 'side="challenger",version="2"} 1.0' in metrics


def test_another_replica_answers_where_one_is_down(place: Place) -> None:
    with running(StubReplica({"tickets@aaa"})) as down:
        good = place.replica("tickets@aaa")
        client = place.gateway(down, good, refresh_seconds=10)
    answers = [ask(client) for _ in range(4)]
    assert [a.status_code for a in answers] == [200] * 4
    assert len(good.asked) == 4


@pytest.mark.parametrize(
    ("delay", "status", "code"), [(0, 503, "upstream_error"), (2, 504, "timed_out")]
)
def test_where_nobody_answers_the_client_is_told_in_time(
    place: Place, delay: float, status: int, code: str
) -> None:
    replica = place.replica(status=500, delay=delay)
    limits = LimitsConfig(connect_seconds=0.1, first_byte_seconds=0.3)
    answer = ask(place.gateway(replica, limits=limits))
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) == (status == 503)
    (kept,) = place.figures(1)
    assert (kept["status"], kept["failure"]) == (status, code)


def test_a_stream_that_breaks_off_says_so_in_the_stream(place: Place) -> None:
    client = place.gateway(place.replica(breaks_after=2))
    api = openai.OpenAI(api_key="none", base_url=f"{client.base_url}/v1", max_retries=0)
    said = []
    with (
        pytest.raises(openai.APIError, match="broke off"),
        api.chat.completions.create(
            model="tickets", messages=[{"role": "user", "content": "x"}], stream=True
        ) as stream,
    ):
        said.extend(chunk.choices[0].delta.content for chunk in stream)
    assert said == ["all", " is"]
    (kept,) = place.figures(1)
    assert (kept["failure"], kept["num_characters"]) == ("broken_off", 6)


@pytest.mark.parametrize("streamed", [True, False])
def test_a_client_that_leaves_stops_the_replica(place: Place, streamed: bool) -> None:
    replica = place.replica(**({"pause": 5.0} if streamed else {"delay": 5.0}))
    client = place.gateway(replica)
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/chat/completions", json={**HELLO, "stream": streamed}, timeout=0.5)
    eventually(lambda: replica.cut == 1)
    (kept,) = place.figures(1)
    assert (kept["failure"], kept["status"]) == ("client_left", 499)


def test_in_shadow_mode_the_challenger_answers_a_copy_that_nobody_sees(place: Place) -> None:
    replica = place.replica()
    client = place.gateway(replica, routes=against(shadow=True))
    assert ask(client).headers["x-model-version"] == "1"
    kept = {f["side"]: f for f in place.figures(2)}
    assert kept["shadow"]["model_version"] == "2"
    assert kept["shadow"]["request_id"] == kept["champion"]["request_id"]
    assert sorted(asked["model"] for asked in replica.asked) == ["tickets@aaa", "tickets@bbb"]


def test_a_change_in_the_registry_and_its_absence(place: Place) -> None:
    client = place.gateway(place.replica(), routes=ALONE)
    assert ask(client).headers["x-model-version"] == "1"
    place.registry.now = {"tickets": Route(champion=CHALLENGER, previous=CHAMPION)}
    eventually(lambda: ask(client).headers["x-model-version"] == "2")
    place.registry.now = ConnectionError("away")
    time.sleep(0.5)
    assert ask(client).headers["x-model-version"] == "2"
    again = place.gateway(place.replica())  # begins while the registry is away
    place.registry.now = ConnectionError("away")
    assert ask(again).status_code == 200


def test_a_gateway_that_starts_without_the_registry_goes_on_with_what_was_known(
    place: Place,
) -> None:
    replica = place.replica()
    place.gateway(replica, routes={"tickets": Route(champion=CHALLENGER)})
    place.registry.now = ConnectionError("away")
    gateway = Gateway(
        GatewayConfig(replicas=(replica.url,)),
        place.registry,  # type: ignore[arg-type]
        place.folder / "gateway",
        RequestIds("secret"),
    )
    client = place.exits.enter_context(serving(make_app(gateway)))
    assert client.get("/readyz").status_code == 200
    assert ask(client).headers["x-model-version"] == "2"


def test_until_the_new_champion_is_loaded_the_one_before_answers(place: Place) -> None:
    replica = place.replica("tickets@aaa")
    client = place.gateway(
        replica, routes={"tickets": Route(champion=CHALLENGER, previous=CHAMPION)}
    )
    assert ask(client).headers["x-model-version"] == "1"
    replica.loaded.add("tickets@bbb")
    eventually(lambda: ask(client).headers["x-model-version"] == "2")
    # What is neither champion nor challenger any more is not reached, though it is loaded.
    assert ask(client, model="tickets@aaa").status_code == 404
    assert ask(client, model="tickets@bbb").headers["x-model-version"] == "2"


def test_nothing_loaded_is_said_with_when_to_try_again(place: Place) -> None:
    client = place.gateway(place.replica("other"))
    answer = ask(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "not_loaded"
    assert client.get("/v1/models").json()["data"] == []


HOSTILE = [
    (b"", 400),
    (b"[]", 400),
    (b"nonsense", 400),
    (b"\xff\xfe{}", 400),
    (b'{"model": "tickets"', 400),
    (b'{"model": "tickets"} {}', 400),
    (b'{"model": "tickets", "model": "other"}', 400),
    (b'{"model": 7}', 400),
    (b'{"model": ""}', 400),
    (b'{"messages": []}', 400),
    (b'{"model": "tickets", "n": NaN}', 400),
    (b'{"model": "tickets", "n": ' + b"9" * 5000 + b"}", 400),
    (b'{"model": "tickets", "stream": "yes"}', 400),
    (b'{"model": "tickets", "prompt_logprobs": 0}', 400),
    (b'{"model": "tickets", "echo": true, "logprobs": 1}', 400),
    (b'{"model": "tickets", "stream": true, "stream_options": 1}', 400),
    (b'{"model": "tickets", "a": ' + b"[" * 100_000, 400),
    (b'{"model": "../../etc/passwd"}', 404),
    (b'{"model": "\\ud800"}', 404),
    (b'{"model": "tickets", "a": "' + b"x" * 2_000_000 + b'"}', 413),
]


@pytest.mark.parametrize(("raw", "status"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies_reach_no_replica(place: Place, raw: bytes, status: int) -> None:
    replica = place.replica()
    client = place.gateway(replica, limits=LimitsConfig(max_body_bytes=2**20))
    sent = {"content": raw, "headers": {"content-type": "application/json"}}
    answer = client.post("/v1/chat/completions", **sent)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert replica.asked == []
    assert ask(client).status_code == 200


def test_other_kinds_and_methods_are_refused_and_no_origin_is_let_in(place: Place) -> None:
    client = place.gateway(place.replica())
    assert client.post("/v1/chat/completions", content=b"{}").status_code == 415
    assert client.get("/v1/chat/completions").status_code == 405
    options = client.options(
        "/v1/chat/completions",
        headers={"origin": "http://elsewhere", "access-control-request-method": "POST"},
    )
    assert options.status_code == 405
    assert "access-control-allow-origin" not in options.headers


def test_keys_rotate_and_expire_without_a_restart(place: Place) -> None:
    file = place.folder / "keys"
    old = keys.add(file, "shop")
    client = place.gateway(place.replica(), keys_file=file)

    def status(key: str | None) -> int:
        return ask(client, headers={"authorization": f"Bearer {key}"} if key else {}).status_code

    assert (status(None), status("rt-wrong"), status(old)) == (401, 401, 200)
    new = keys.add(file, "shop")
    eventually(lambda: status(new) == 200)
    assert status(old) == 200
    lines = file.read_text().splitlines()
    file.write_text(f"{lines[0]} 2020-01-01T00:00:00+00:00\n{lines[1]}\n")
    eventually(lambda: status(old) == 401)
    assert status(new) == 200
    assert client.get("/v1/models").status_code == 401
    assert client.post("/v1/feedback", json={}).status_code == 401
    assert old not in file.read_text()


def test_a_line_of_the_keys_that_cannot_be_read_stops_no_alias(place: Place) -> None:
    file = place.folder / "keys"
    key = keys.add(file, "shop")
    client = place.gateway(place.replica(), keys_file=file)
    headers = {"authorization": f"Bearer {key}"}
    file.write_text(file.read_text() + "shop no-digest\n")
    place.registry.now = {"tickets": Route(champion=CHALLENGER)}
    eventually(lambda: ask(client, headers=headers).headers.get("x-model-version") == "2")
    assert ask(client).status_code == 401


def test_what_is_too_much_is_told_to_wait(place: Place) -> None:
    replica = place.replica(held=True)
    file = place.folder / "keys"
    tokens = {name: keys.add(file, name) for name in ("a", "b", "c")}
    limits = LimitsConfig(max_in_flight=3, max_in_flight_of_a_key=2)
    client = place.gateway(replica, limits=limits, keys_file=file)
    statuses: dict[str, int] = {}

    def send(name: str, key: str) -> None:
        headers = {"authorization": f"Bearer {tokens[key]}"}
        answer = httpx.post(
            f"{client.base_url}/v1/chat/completions", json=HELLO, headers=headers, timeout=20
        )
        statuses[name] = answer.status_code
        assert ("retry-after" in answer.headers) == (answer.status_code != 200)

    threads = []
    for name, key, asked in [("a1", "a", 1), ("a2", "a", 2), ("b1", "b", 3)]:
        threads.append(threading.Thread(target=send, args=(name, key)))
        threads[-1].start()
        eventually(lambda wanted=asked: len(replica.asked) == wanted)
        if name == "a2":
            send("a3", "a")
    send("c1", "c")
    replica.held = False
    for thread in threads:
        thread.join()
    assert statuses == {"a1": 200, "a2": 200, "a3": 429, "b1": 200, "c1": 503}


def test_messages_are_kept_without_personal_data(place: Place) -> None:
    replica = place.replica(pieces=("write to ", "jane.roe@example.com"))
    client = place.gateway(replica, traffic=TrafficConfig(flush_seconds=0.2, sampled=1.0))
    answer = ask(
        client,
        messages=[{"role": "user", "content": "I am at john.doe@example.com, +1 212 555 0142"}],
        user="john.doe",
    )
    assert "jane.roe@example.com" in answer.text  # who asked is answered in full
    (kept,) = place.lines("traffic/messages/", 1)
    text = json.dumps(kept)
    assert "example.com" not in text
    assert "555" not in text
    assert "john.doe" not in text
    assert kept["request"]["messages"][0]["content"].startswith("I am at <EMAIL_ADDRESS")
    assert kept["response"]["choices"][0]["message"]["content"].startswith(
        "write to <EMAIL_ADDRESS"
    )
    assert kept["request_id"] == answer.headers["x-request-id"]


def test_a_share_of_the_messages_is_kept_and_the_figures_of_all(place: Place) -> None:
    client = place.gateway(place.replica())
    json_wanted = {"response_format": {"type": "json_object"}}
    ask(client)
    ask(client, **json_wanted)
    figures = place.figures(2)
    assert [f["json_valid"] for f in sorted(figures, key=lambda f: f["created_at"])] == [
        None,
        False,
    ]
    assert list(place.store.keys_under("traffic/messages/")) == []


def test_what_was_sent_is_kept_when_the_gateway_ends(place: Place) -> None:
    replica = place.replica()
    with ExitStack() as exits:
        inner = Place(place.folder, exits)
        client = inner.gateway(replica, traffic=TrafficConfig(flush_seconds=60, sampled=1.0))
        for _ in range(50):
            ask(client)
        assert list(place.store.keys_under("traffic/")) == []
    assert len(place.figures(50)) == 50
    assert len(place.lines("traffic/messages/", 50)) == 50


class TestFeedback:
    def test_it_is_kept_once_for_an_answer_and_scrubbed(self, place: Place) -> None:
        client = place.gateway(place.replica())
        request_id = ask(client).headers["x-request-id"]
        said = {"request_id": request_id, "correction": "Ask jane.roe@example.com", "score": 0.5}
        answer = client.post("/v1/feedback", json=said)
        assert (answer.status_code, answer.json()["status"]) == (201, "stored")
        (key,) = place.store.keys_under("traffic/feedback/")
        assert key.endswith(f"/{request_id}.json")
        kept = json.loads(place.store.get_bytes(key))
        assert (kept["score"], kept["accepted"]) == (0.5, None)
        assert "jane.roe" not in kept["correction"]
        repeated = client.post("/v1/feedback", json={"request_id": request_id, "accepted": False})
        assert (repeated.status_code, repeated.json()["error"]["code"]) == (409, "repeated")

    def test_what_no_gateway_answered_is_refused(self, place: Place) -> None:
        client = place.gateway(place.replica())
        forged = RequestIds("another secret").new()
        old = RequestIds("secret").new(time.time() - 31 * 86_400)
        for request_id, status in [("req-1", 404), (forged, 404), (old, 410)]:
            said = {"request_id": request_id, "accepted": True}
            assert client.post("/v1/feedback", json=said).status_code == status
        assert list(place.store.keys_under("traffic/feedback/")) == []

    @pytest.mark.parametrize(
        "said",
        [
            {},
            {"accepted": "yes"},
            {"score": "NaN"},
            {"correction": ""},
            {"correction": 7},
            {"accepted": True, "other": 1},
        ],
    )
    def test_what_says_nothing_is_refused(self, place: Place, said: dict[str, Any]) -> None:
        client = place.gateway(place.replica())
        body = {"request_id": RequestIds("secret").new(), **said}
        answer = client.post("/v1/feedback", json=body)
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "invalid_feedback"

    def test_two_at_once_are_one(self, place: Place) -> None:
        client = place.gateway(place.replica())
        request_id = ask(client).headers["x-request-id"]
        statuses = []

        def send() -> None:
            said = {"request_id": request_id, "accepted": True}
            statuses.append(httpx.post(f"{client.base_url}/v1/feedback", json=said).status_code)

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(statuses) == {201: 1, 409: 7}
