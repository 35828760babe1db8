"""The live curve in a real MLflow that goes away for a while."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from deployments import environment
from tasks.train.tracking import Tracker, flatten
from tests.proxy import Proxy

pytestmark = pytest.mark.integration


def test_metrics_of_an_outage_are_sent_later(
    stack: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with Proxy(environment.mlflow_port()) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
        tracker = Tracker("tracking", "train-x", {"data_digest": "d"})
        tracker.params(flatten({"lora": {"r": 16}, "epochs": 3}))
        tracker.metrics({"loss": 2.0}, 1)
        proxy.cut()
        with caplog.at_level(logging.WARNING):
            tracker.metrics({"loss": 1.5}, 2)
        assert "MLflow did not take 1 metrics" in caplog.text
        proxy.mend()
        tracker.metrics({"loss": 1.0}, 3)
        tracker.end("FINISHED", {"adapter_digest": "a"})
    client = MlflowClient(environment.environment()["MLFLOW_TRACKING_URI"])
    history = client.get_metric_history(tracker.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.5), (3, 1.0)]
    run = client.get_run(tracker.run_id)
    assert run.data.params == {"lora.r": "16", "epochs": "3"}
    assert (run.info.status, run.data.tags["adapter_digest"]) == ("FINISHED", "a")
