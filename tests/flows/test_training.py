"""Trainings that are several, or elsewhere: a sweep and a fine-tuning API, in a whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from tasks.errors import ConfigError
from tasks.objects import open_store
from tests.flows.conftest import Tiny
from tests.flows.test_retrain import champion, states
from tests.openai_api import StubHosted, completion, running

pytestmark = pytest.mark.integration


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHosted]:
    """A fine-tuning API whose models have learned the answer."""
    stub = StubHosted("sk-flow")
    stub.answer = lambda request: completion("yes")
    with running(stub):
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-flow")
        yield stub


def test_of_a_sweep_the_best_is_kept_and_all_are_told(tiny: Tiny, stack: Path) -> None:
    sweep = [{"learning_rate": 1e-9}, {"learning_rate": 0.005}, {"lora": {"r": 4}, "epochs": 1}]
    config = tiny(train={"sweep": sweep})
    summary = retrain(config)
    assert summary.decision == "promoted", summary.reasons
    (stage,) = [s for s in summary.stages if s["name"] == "train"]
    assert [part["state"] for part in stage["parts"]] == ["completed"] * 3
    told = summary.training["sweep"]
    assert [variant["overrides"] for variant in told] == sweep
    assert [variant["chosen"] for variant in told] == [False, True, False]
    values = [variant["value"] for variant in told]
    assert min(values) == values[1] == pytest.approx(summary.training["validation_loss"])
    page = (stack / "runs" / "latest" / "report.html").read_text()
    assert "learning_rate 1e-9" in page
    assert champion(config.name).tags["adapter_digest"] == summary.model["adapter_digest"]

    # One more is one training more.
    again = retrain(tiny(train={"sweep": [*sweep, {"learning_rate": 1e-8}]}))
    (stage,) = [s for s in again.stages if s["name"] == "train"]
    assert [part["state"] for part in stage["parts"]] == [*["cached"] * 3, "completed"]
    assert again.decision == "no_change"


def test_a_hosted_model_is_trained_evaluated_and_promoted(
    tiny: Tiny, api: StubHosted, stack: Path
) -> None:
    hosted = {"model": "base-1", "poll_seconds": 0.01, "usd_per_million_tokens": 2.0}
    config = tiny(train={"engine": "openai", "epochs": 2, "hosted": hosted})
    summary = retrain(config)
    assert summary.decision == "promoted", summary.reasons
    assert summary.metrics["candidate"]["exact_match"].value == 1.0
    (job,) = api.paid
    version = champion(config.name)
    stored: dict[str, Any] = json.loads(_read(version.source, "hosted.json"))
    assert stored["model_id"] in api.models
    assert {request["model"] for request in api.requests} == {stored["model_id"]}
    assert summary.training["engine"] == "openai"
    assert summary.training["job_id"] == job.id
    assert stored["cost_usd"] == pytest.approx(stored["trained_tokens"] * 2e-6)
    assert "sk-flow" not in (stack / "runs" / "latest" / "report.html").read_text()

    again = retrain(config)
    assert again.decision == "no_change"
    assert states(again)["train"] == "cached"
    assert len(api.jobs) == 1


def test_a_hosted_training_without_a_key_fails_before_anything_is_sent(
    tiny: Tiny, api: StubHosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="neither OPENAI_API_KEY nor OPENAI_BASE_URL"):
        retrain(tiny(train={"engine": "openai", "epochs": 2}))
    assert not api.calls


def _read(uri: str, name: str) -> bytes:
    store = open_store()
    return store.get_bytes(f"{uri.removeprefix(f'{store.root}/')}/{name}")
