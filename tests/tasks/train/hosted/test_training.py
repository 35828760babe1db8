"""Hosted training with the real client against a local server: a job is paid once, or refused."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tasks.errors import ConfigError, DataError, RetuneError, TrainingError, is_transient
from tasks.example import Example
from tasks.objects import LocalStore, Store
from tasks.openai_client import HostedError, load_hosted, make_client
from tasks.train.config import TrainConfig
from tasks.train.hosted.training import HostedTraining, check_hosted, save_hosted, train_hosted
from tests.examples import make_example
from tests.messages_api import LOST, LOST_AFTER, Reply
from tests.openai_api import StubHosted, error, running

pytestmark = pytest.mark.timeout(60)

KEY = "0123456789abcdef" * 4
SECRET = "sk-secret-of-the-account"


def rows(count: int, word: str = "train") -> list[Example]:
    return [make_example(f"{word} question {i}", f"answer {i}") for i in range(count)]


TRAIN, VALIDATION = rows(20), rows(4, "validation")


def config(**options: Any) -> TrainConfig:
    hosted = {"model": "base-1", "poll_seconds": 0.01, **options.pop("hosted", {})}
    return TrainConfig(engine="openai", epochs=2, hosted=hosted, **options)


def words(text: str) -> int:
    return len(text.split())


def run(
    api: StubHosted,
    store: Store,
    train: list[Example] = TRAIN,
    validation: list[Example] = VALIDATION,
    *,
    key: str = KEY,
    retries: int = 2,
    reported: list[tuple[dict[str, float], int, float]] | None = None,
    settle_seconds: float = 0.0,
    **options: Any,
) -> HostedTraining:
    seen = reported if reported is not None else []
    environ = {"OPENAI_BASE_URL": api.url, "OPENAI_API_KEY": SECRET}
    settings = config(**options)
    with make_client(settings.hosted.base_url, environ, max_retries=retries) as client:
        return train_hosted(
            train,
            validation,
            settings,
            key,
            store,
            client,
            words,
            lambda metrics, step, share: seen.append((metrics, step, share)),
            settle_seconds,
        )


@pytest.fixture
def api() -> Iterator[StubHosted]:
    with running(StubHosted(SECRET)) as stub:
        yield stub


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


# ----------------------------------------------------------------------------------- the whole way


def test_the_whole_way(api: StubHosted, store: LocalStore) -> None:
    reported: list[tuple[dict[str, float], int, float]] = []
    training = run(api, store, hosted={"usd_per_million_tokens": 5.0}, seed=7, reported=reported)
    job = api.jobs[0]
    assert job.request == {
        "model": "base-1",
        "training_file": "file-0000",
        "validation_file": "file-0001",
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 8}},
        },
        "seed": 7,
        "suffix": "retune-01234567",
        "metadata": {"retune_key": KEY},
    }
    assert len(job.rows) == 20
    assert training.model_id == job.model
    assert (training.job_id, training.base_model) == ("ftjob-0000", "base-1")
    assert (training.num_steps, training.best_step) == (6, 6)
    assert training.train_loss == pytest.approx(2 / 6)
    assert training.validation_loss == pytest.approx(3 / 6)
    assert training.seconds == 60
    assert training.trained_tokens == 600
    assert training.cost_usd == pytest.approx(600 * 5 / 1e6)
    assert training.estimated_tokens == sum(3 + 2 + 4 * 3 for _ in TRAIN)
    assert training.estimated_usd == pytest.approx(2 * training.estimated_tokens * 5 / 1e6)
    assert training.hyperparameters == {"n_epochs": 2, "batch_size": 8}
    assert training.files == ["file-0000", "file-0001"]
    assert [line["step"] for line in training.history] == [1, 2, 3, 4, 5, 6]
    assert [line.get("eval_loss") for line in training.history] == [
        *(None, None, 1.0),
        *(None, None, 0.5),
    ]
    assert training.notes == []
    assert [(step, share) for _, step, share in reported] == [(s, s / 6) for s in range(1, 7)]
    assert reported[2][0] == {"loss": pytest.approx(2 / 3), "eval_loss": 1.0}


def test_again_nothing_is_sent_but_looks(api: StubHosted, store: LocalStore) -> None:
    first = run(api, store)
    calls = api.calls.copy()
    again = run(api, store)
    assert (again.model_id, again.history) == (first.model_id, first.history)
    assert api.calls - calls == {"retrieve": 1, "events": 6, "checkpoints": 1}  # in pages of 3
    assert (len(api.jobs), len(api.files)) == (1, 2)
    assert again.estimated_usd is None


def test_another_key_is_another_job_on_the_same_files(api: StubHosted, store: LocalStore) -> None:
    run(api, store)
    run(api, store, key="f" * 64, seed=1)
    assert (len(api.jobs), len(api.files)) == (2, 2)


def test_the_checkpoint_of_least_validation_loss_is_kept(
    api: StubHosted, store: LocalStore
) -> None:
    api.full_valid_loss = lambda step: 1.0 + step
    training = run(api, store)
    assert training.model_id == f"{api.jobs[0].model}:ckpt-step-3"
    assert (training.best_step, training.num_steps, training.validation_loss) == (3, 6, 4.0)


def test_without_losses_of_the_whole_validation_the_last_model_is_kept(
    api: StubHosted, store: LocalStore
) -> None:
    api.full_valid_loss = None
    training = run(api, store)
    assert training.model_id == api.jobs[0].model
    assert [line["eval_loss"] for line in training.history] == [4 / s for s in range(1, 7)]
    assert training.validation_loss == pytest.approx(4 / 6)


def test_without_validation_rows_none_are_sent(api: StubHosted, store: LocalStore) -> None:
    run(api, store, validation=[])
    assert "validation_file" not in api.jobs[0].request
    assert len(api.files) == 1


def test_an_api_that_tells_nothing_of_the_way_still_gives_its_model(
    api: StubHosted, store: LocalStore
) -> None:
    api.faults = {"events": [error(404)] * 9, "checkpoints": [Reply(200, {"data": 3})]}
    training = run(api, store)
    assert training.model_id == api.jobs[0].model
    assert (training.history, training.num_steps) == ([], 0)
    assert math.isnan(training.train_loss)
    assert math.isnan(training.validation_loss)
    assert [note.split(":")[0] for note in training.notes] == [
        "The fine-tuning API tells no history",
        "The fine-tuning API tells no checkpoints",
    ]


def test_a_loss_that_is_not_a_number_is_said(api: StubHosted, store: LocalStore) -> None:
    api.train_loss = lambda step: math.nan if step == 4 else 1.0
    training = run(api, store)
    assert [line["step"] for line in training.history if "loss" in line] == [1, 2, 3, 5, 6]
    assert training.notes == ["The API told a loss that is not a number, first at step 4."]


def test_the_uploaded_bytes_depend_on_the_rows_alone(
    api: StubHosted, store: LocalStore, tmp_path: Path
) -> None:
    run(api, store)
    with running(StubHosted()) as other:
        run(other, LocalStore(tmp_path / "other"), key="e" * 64)
        assert other.files == api.files
    assert api.files["file-0000"][1].decode().splitlines()[0] == (
        '{"messages":[{"role":"user","content":"train question 0"},'
        '{"role":"assistant","content":"answer 0"}]}'
    )


def test_what_serves_is_written_with_its_digest(
    api: StubHosted, store: LocalStore, tmp_path: Path
) -> None:
    training = run(api, store)
    digest = save_hosted(training, tmp_path)
    assert load_hosted(tmp_path) == training.model()
    assert save_hosted(run(api, store), tmp_path) == digest
    assert len(digest) == 64


# ------------------------------------------------------------------------------- refused unsent


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"budget": {"max_usd": 1}}, "usd_per_million_tokens"),
        ({"budget": {"max_usd": 1e-6}, "hosted": {"usd_per_million_tokens": 1}}, "would cost"),
        ({"budget": {"max_hours": 1}}, "max_hours"),
        ({"batch_size": 257}, "up to 256"),
    ],
)
def test_refused_before_anything_is_sent(
    api: StubHosted, store: LocalStore, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        run(api, store, **options)
    assert set(api.calls) <= {"jobs"}
    assert list(store.keys_under("hosted/")) == []


def test_the_budget_is_of_all_epochs(api: StubHosted, store: LocalStore) -> None:
    """20 rows of 17 tokens twice at a dollar a million."""
    price = {"usd_per_million_tokens": 1}
    with pytest.raises(ConfigError, match="680 tokens"):
        run(api, store, budget={"max_usd": 679e-6}, hosted=price)
    assert run(api, store, budget={"max_usd": 680e-6}, hosted=price).estimated_tokens == 340


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 2.5}, r"train.epochs is 2\.5"),
        ({"epochs": 51}, "1 to 50 whole"),
        ({"validation": {"metric": "accuracy", "num_generated": 4}}, "Set it to eval_loss"),
    ],
)
def test_what_the_api_does_not_know_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_hosted(TrainConfig(**{"engine": "openai", **options}))


def test_too_few_rows_are_refused(api: StubHosted, store: LocalStore) -> None:
    with pytest.raises(DataError, match="at least 10"):
        run(api, store, train=rows(9))
    assert set(api.calls) <= {"jobs"}


@pytest.mark.parametrize(
    ("environ", "url", "told"),
    [
        ({}, None, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": ""}, None, "OPENAI_API_KEY"),
        ({"OPENAI_API_KEY": "k"}, "localhost:80", "not an HTTP URL"),
    ],
)
def test_no_client_without_a_key_or_an_address(
    environ: dict[str, str], url: str | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        make_client(url, environ)


def test_where_the_client_goes() -> None:
    environ = {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://one/v1"}
    for own, env, url in [
        ("http://two/v1", environ, "http://two/v1/"),
        (None, environ, "http://one/v1/"),
        (None, {"OPENAI_API_KEY": "k"}, "https://api.openai.com/v1/"),
    ]:
        with make_client(own, env) as client:
            assert str(client.base_url) == url


# ------------------------------------------------------------------------------ what the API does

CALLS = ["jobs", "files", "upload", "create", "retrieve", "events", "checkpoints"]
GARBAGE = Reply(200, "{not json")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", [error(429), error(500), error(529), LOST, LOST_AFTER])
def test_what_passes_is_bridged(
    api: StubHosted, store: LocalStore, call: str, fault: Reply
) -> None:
    api.faults = {call: [fault] * (1 if fault.status < 0 else 2)}
    training = run(api, store)
    assert training.notes == []
    assert len(api.paid) == 1
    assert not api.faults[call]


def test_the_api_says_how_long_to_wait(api: StubHosted, store: LocalStore) -> None:
    slow = Reply(429, error(429).body, {"retry-after": "1"})
    api.faults = {"create": [slow]}
    assert run(api, store).job_id == "ftjob-0000"
    assert api.calls["create"] == 2


@pytest.mark.parametrize("call", CALLS)
def test_what_lasts_is_transient_and_the_next_run_goes_on(
    api: StubHosted, store: LocalStore, call: str
) -> None:
    api.faults = {call: [error(529)] * 99}
    with pytest.raises(openai.APIStatusError) as caught:
        run(api, store, retries=1, hosted={"poll_seconds": 0.001})
    assert is_transient(caught.value)
    api.faults = {}
    run(api, store)
    assert len(api.jobs) == 1


@pytest.mark.parametrize("call", ["jobs", "files", "upload", "create", "retrieve"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (error(400, "no good", param="seed"), TrainingError),
        (error(401), ConfigError),
        (error(403), ConfigError),
        (error(404), RetuneError),
        (error(429, code="insufficient_quota"), ConfigError),
    ],
)
def test_what_stays_fails_at_once(
    api: StubHosted, store: LocalStore, call: str, fault: Reply, kind: type[Exception]
) -> None:
    api.faults = {call: [fault] * 3}
    with pytest.raises(kind) as caught:
        run(api, store, retries=0)
    assert api.calls[call] == 1
    assert not is_transient(caught.value)
    if fault.status == 400:
        assert "400" in str(caught.value)
        assert "no good (param seed)" in str(caught.value)
    api.faults = {}
    run(api, store)
    assert len(api.paid) == 1, "the next run goes on"


@pytest.mark.parametrize("call", ["jobs", "files", "upload", "retrieve"])
@pytest.mark.parametrize(
    "body", ["{not json", "<html>", "", "[]", "{}", '{"data": 1}', '{"id": 5}', "null"]
)
def test_nonsense_is_named(api: StubHosted, store: LocalStore, call: str, body: str) -> None:
    api.faults = {call: [Reply(200, body)] * 99}
    with pytest.raises(HostedError, match="cannot be read"):
        run(api, store, hosted={"poll_seconds": 0.001})
    assert len(api.jobs) == (call == "retrieve")
    api.faults = {}
    run(api, store)
    assert len(api.jobs) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": "melting"}, "status: Input should be"),
        ({"trained_tokens": -1}, "trained_tokens"),
        ({"id": "ftjob-9999"}, "another job, ftjob-9999"),
        ({"status": "succeeded", "fine_tuned_model": None}, "names no model"),
    ],
)
def test_a_job_that_makes_no_sense_is_named(
    api: StubHosted, store: LocalStore, change: dict[str, Any], told: str
) -> None:
    class Bending(StubHosted):
        def call(self, method: str, path: str, *rest: Any) -> Reply:
            answer = super().call(method, path, *rest)
            if path.endswith("ftjob-0000"):
                return Reply(200, {**answer.body, **change})
            return answer

    with running(Bending()) as bending, pytest.raises(HostedError, match=told):
        run(bending, store, hosted={"poll_seconds": 0.001})


def test_a_short_spell_of_nonsense_is_bridged(api: StubHosted, store: LocalStore) -> None:
    api.faults = {"retrieve": [GARBAGE] * 5, "events": [GARBAGE]}
    assert run(api, store).notes == []


def test_an_endless_list_ends(api: StubHosted, store: LocalStore) -> None:
    page = {"data": [{"id": "a", "filename": "x"}], "has_more": True}
    api.faults = {"files": [Reply(200, page)] * 9}
    with pytest.raises(HostedError, match="the same page"):
        run(api, store)


@pytest.mark.parametrize("garbage", [GARBAGE, Reply(200, {}), LOST_AFTER, LOST])
def test_a_creation_whose_answer_is_lost_is_found_and_not_repeated(
    api: StubHosted, store: LocalStore, garbage: Reply
) -> None:
    class Garbling(StubHosted):
        def call(self, method: str, path: str, *rest: Any) -> Reply:
            answer = super().call(method, path, *rest)
            return garbage if (method, path) == ("POST", "/v1/fine_tuning/jobs") else answer

    if garbage is LOST:  # the creation takes effect, late
        garbage = LOST_AFTER
    with running(Garbling()) as garbling:
        assert run(garbling, store).job_id == "ftjob-0000"
        assert len(garbling.jobs) == 1


def test_a_creation_that_takes_effect_late_is_waited_for(
    api: StubHosted, store: LocalStore
) -> None:
    """The connection breaks, and the job appears some looks later."""

    class Late(StubHosted):
        looks = 0

        def call(self, method: str, path: str, *rest: Any) -> Reply:
            if path.startswith("/v1/fine_tuning/jobs?") and self.jobs:
                self.looks += 1
                if self.looks < 5:
                    return Reply(200, {"data": [], "has_more": False})
            return super().call(method, path, *rest)

    with running(Late()) as late:
        late.faults = {"create": [LOST_AFTER]}
        assert run(late, store, settle_seconds=30.0).job_id == "ftjob-0000"
        assert (len(late.jobs), late.looks) == (1, 5)


def test_a_failed_job_is_told_with_its_reason_and_made_anew_by_the_next_run(
    api: StubHosted, store: LocalStore
) -> None:
    api.statuses = ("validating_files", "failed")
    api.job_error = {"code": "bad_file", "message": "line 3 is odd", "param": "training_file"}
    told = r"ftjob-0000 failed: bad_file: line 3 is odd \(param training_file\)"
    with pytest.raises(TrainingError, match=told) as caught:
        run(api, store)
    assert not is_transient(caught.value)
    api.statuses, api.job_error = ("queued", "succeeded"), None
    assert run(api, store).job_id == "ftjob-0001"
    assert run(api, store).job_id == "ftjob-0001"
    assert len(api.paid) == 1


def test_a_cancelled_job_is_told(api: StubHosted, store: LocalStore) -> None:
    api.statuses = ("running", "cancelled")
    with pytest.raises(TrainingError, match="ftjob-0000 was cancelled"):
        run(api, store)


def test_a_job_that_vanishes_is_never_paid_anew_by_itself(
    api: StubHosted, store: LocalStore
) -> None:
    run(api, store)
    api.jobs.clear()
    for _ in range(2):
        with pytest.raises(TrainingError, match=f"ftjob-0000 .* delete hosted/{KEY}/"):
            run(api, store)
    assert api.calls["create"] == 1
    for key in list(store.keys_under(f"hosted/{KEY}/")):
        store.delete(key)
    run(api, store)
    assert api.calls["create"] == 2


def test_a_file_that_the_api_no_longer_has_is_sent_again(
    api: StubHosted, store: LocalStore
) -> None:
    run(api, store)
    del api.files["file-0000"]
    run(api, store, key="f" * 64)
    assert api.calls["upload"] == 3


def test_an_api_without_metadata_is_said(store: LocalStore) -> None:
    with running(StubHosted()) as api:
        api.keeps_metadata = False
        assert "keeps no metadata" in run(api, store).notes[0]


def test_jobs_of_others_are_left_alone(api: StubHosted, store: LocalStore) -> None:
    """Also where the API knows no filter and lists everything."""
    foreign = {"id": "x", "status": "melting", "metadata": {"retune_key": "other"}}
    api.faults = {"jobs": [Reply(200, {"data": [foreign, {"id": "y"}], "has_more": False})]}
    assert run(api, store).job_id == "ftjob-0000"


def test_a_job_of_another_store_is_found(
    api: StubHosted, store: LocalStore, tmp_path: Path
) -> None:
    run(api, store)
    run(api, LocalStore(tmp_path / "second"))
    assert len(api.jobs) == 1


def test_a_damaged_record_is_named(api: StubHosted, store: LocalStore) -> None:
    store.put_bytes(f"hosted/{KEY}/000.intent.json", b"{")
    with pytest.raises(RetuneError, match=r"000\.intent\.json is not JSON"):
        run(api, store)
    assert not api.jobs


def test_two_processes_at_once_pay_once(api: StubHosted, store: LocalStore) -> None:
    done: list[str] = []
    start = threading.Barrier(4)

    def both() -> None:
        start.wait()
        done.append(run(api, store, settle_seconds=30.0).job_id)

    threads = [threading.Thread(target=both) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["ftjob-0000"] * 4
    assert len(api.jobs) == 1


# ------------------------------------------------------------------------------------------ the key


def test_the_key_is_sent_and_neither_logged_nor_stored(
    api: StubHosted, store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    training = run(api, store)
    assert {h["authorization"] for h in api.headers} == {f"Bearer {SECRET}"}
    assert "hosted: job ftjob-0000 is succeeded" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(training)
    stored = [store.get_bytes(key) for key in store.keys_under("")]
    assert stored
    assert not any(SECRET.encode() in body for body in stored)


def test_a_refusal_that_repeats_the_key_does_not(
    store: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with running(StubHosted("another")) as api, pytest.raises(ConfigError) as caught:
        run(api, store)
    shown = "".join(traceback.format_exception(caught.value))
    assert r"Incorrect API key provided: Bearer ***" in shown
    assert SECRET not in shown + caplog.text


# ------------------------------------------------------------------------------------ being killed


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


class Fuse:
    """Kills at the n-th step of whatever is wired to it."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def step(self, *_: Any) -> None:
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


def killed_at(api: StubHosted, folder: Path, step: int) -> bool:
    """Run with a fuse before and after every HTTP call and every write; whether it blew."""
    fuse = Fuse(step)
    hooks: dict[str, list[Callable[..., Any]]] = {"request": [fuse.step], "response": [fuse.step]}
    http = openai.DefaultHttpxClient(event_hooks=hooks)
    store = FusedStore(folder, fuse)
    with openai.OpenAI(api_key="-", base_url=api.url, http_client=http) as client:
        try:
            train_hosted(
                *(TRAIN, VALIDATION, config(), KEY, store, client, words, lambda *_: None),
                settle_seconds=0.0,
            )
        except Killed:
            return True
    return False


@pytest.mark.parametrize("fault", [None, error(500), LOST_AFTER])
def test_killed_at_any_step_one_job_is_paid(tmp_path: Path, fault: Reply | None) -> None:
    """Before and after each HTTP call and each write, in turn, on good days and bad."""
    step, blew = 0, True
    while blew:
        with running(StubHosted()) as api:
            api.faults = {"create": [fault]} if fault else {}
            folder = tmp_path / str(step)
            blew = killed_at(api, folder, step)
            training = run(api, LocalStore(folder))
            assert training.job_id == "ftjob-0000", f"killed at step {step}"
            assert len(api.jobs) == 1, f"paid twice, killed at step {step}"
        step += 1
    assert step > 40


def test_killed_again_and_again_it_still_ends(tmp_path: Path) -> None:
    with running(StubHosted()) as api:
        kills = 0
        while killed_at(api, tmp_path, 9 + kills):  # each lives a step longer
            kills += 1
            assert kills < 60
        assert kills > 2
        assert len(api.jobs) == 1


SCRIPT = """
import sys
from pathlib import Path
from tasks.objects import LocalStore
from tasks.train.config import TrainConfig
from tasks.train.hosted.training import train_hosted
from tasks.openai_client import make_client
from tests.examples import make_example

rows = [make_example(f"question {i}", f"answer {i}") for i in range(12)]
config = TrainConfig(engine="openai", epochs=1, hosted={"base_url": sys.argv[1],
                     "poll_seconds": 0.01})
client = make_client(config.hosted.base_url, {})
store = LocalStore(Path(sys.argv[2]))
training = train_hosted(rows, [], config, "k" * 64, store, client, len, lambda *_: None, 0.0)
print(training.job_id)
"""


def test_a_process_that_is_killed_between_creation_and_answer(tmp_path: Path) -> None:
    class Killing(StubHosted):
        process: subprocess.Popen[str] | None = None

        def call(self, method: str, path: str, *rest: Any) -> Reply:
            answer = super().call(method, path, *rest)
            if self.jobs and method == "POST" and self.process is not None:
                os.kill(self.process.pid, signal.SIGKILL)
            return answer

    with running(Killing()) as api:
        command = [sys.executable, "-c", SCRIPT, api.url, str(tmp_path)]
        api.process = subprocess.Popen(command, text=True)
        assert api.process.wait(60) == -signal.SIGKILL
        api.process = None
        again = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert again.stdout.strip() == "ftjob-0000"
        assert len(api.jobs) == 1


def test_a_store_that_refuses_the_intent_stops_before_paying(
    api: StubHosted, tmp_path: Path
) -> None:
    class Full(LocalStore):
        def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run(api, Full(tmp_path))
    assert not api.jobs


def test_what_is_logged_in_the_store(api: StubHosted, store: LocalStore) -> None:
    run(api, store)
    bodies = {k: json.loads(store.get_bytes(k)) for k in store.keys_under("hosted/")}
    assert list(bodies) == [f"hosted/{KEY}/000.intent.json", f"hosted/{KEY}/000.job.json"]
    assert bodies[f"hosted/{KEY}/000.job.json"] == {"id": "ftjob-0000"}
