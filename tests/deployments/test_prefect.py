"""What bootstrap leaves on a real Prefect server."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.bootstrap import bootstrap

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("stack")]


def api(method: str, path: str, **body: Any) -> httpx.Response:
    url = f"{os.environ['PREFECT_API_URL']}{path}"
    return httpx.request(method, url, json=body or None, trust_env=False, timeout=30)


def deployment(name: str) -> dict[str, Any]:
    found: dict[str, Any] = (
        api("GET", f"/deployments/name/retrain/{name}").raise_for_status().json()
    )
    return found


def counts() -> dict[str, int]:
    paths = ("deployments", "block_documents", "work_pools")
    counted = {path: api("POST", f"/{path}/filter").raise_for_status().json() for path in paths}
    return {path: len(rows) for path, rows in counted.items()}


def test_bootstrapping_again_changes_nothing() -> None:
    before, weekly = counts(), deployment("retrain-weekly")
    bootstrap()
    assert counts() == before
    assert deployment("retrain-weekly")["id"] == weekly["id"]


def test_what_a_person_switched_off_stays_off() -> None:
    """Else a `make run` in between would start the weekly run again that somebody had paused."""
    weekly = deployment("retrain-weekly")
    schedule = f"/deployments/{weekly['id']}/schedules/{weekly['schedules'][0]['id']}"
    api("PATCH", schedule, active=False).raise_for_status()
    api("POST", f"/deployments/{weekly['id']}/pause_deployment").raise_for_status()
    try:
        bootstrap()
        found = deployment("retrain-weekly")
        assert (found["paused"], [s["active"] for s in found["schedules"]]) == (True, [False])
    finally:
        found = deployment("retrain-weekly")
        schedule = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
        api("PATCH", schedule, active=True).raise_for_status()
        api("POST", f"/deployments/{found['id']}/resume_deployment").raise_for_status()
    bootstrap()
    found = deployment("retrain-weekly")
    assert (found["paused"], [s["active"] for s in found["schedules"]]) == (False, [True])


def test_the_weekly_run_is_scheduled_and_the_manual_one_is_not() -> None:
    weekly, manual = deployment("retrain-weekly"), deployment("retrain-manual")
    assert [s["schedule"]["cron"] for s in weekly["schedules"]] == ["0 3 * * 1"]
    assert [s["schedule"]["timezone"] for s in weekly["schedules"]] == ["Europe/Berlin"]
    assert manual["schedules"] == []
    assert weekly["parameters"] == manual["parameters"]
    assert weekly["parameters"]["config"]


def test_presets_are_deployments_that_come_and_go_with_their_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manual, quick = deployment("retrain-manual"), deployment("retrain-quick")
    assert quick["tags"] == [*manual["tags"], "preset"]
    assert quick["schedules"] == []
    assert quick["global_concurrency_limit"]["limit"] == 1
    assert quick["description"].startswith("A look within minutes")
    changed = {
        key
        for key, value in quick["parameters"]["config"].items()
        if value != manual["parameters"]["config"][key]
    }
    assert changed == {"train", "gate"}
    monkeypatch.setenv("RETUNE_PRESETS", str(tmp_path))
    (tmp_path / "ours.yaml").write_text("# Ours.\ntrain: {epochs: 0.25}\n")
    try:
        bootstrap()
        assert deployment("retrain-ours")["parameters"]["config"]["train"]["epochs"] == 0.25
        assert api("GET", "/deployments/name/retrain/retrain-quick").status_code == 404
    finally:
        monkeypatch.delenv("RETUNE_PRESETS")
        bootstrap()
    assert api("GET", "/deployments/name/retrain/retrain-ours").status_code == 404
    assert deployment("retrain-quick")["parameters"] == quick["parameters"]


@pytest.mark.parametrize("name", ["retrain-weekly", "retrain-manual"])
def test_a_second_trigger_waits_instead_of_being_lost(name: str) -> None:
    found = deployment(name)
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert (found["work_pool_name"], found["work_queue_name"]) == ("cpu", "retrain")
    for pool in ("cpu", "gpu"):
        queue = api("GET", f"/work_pools/{pool}/queues/retrain").raise_for_status().json()
        assert queue["concurrency_limit"] == 1


def test_another_pool_takes_the_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    before = deployment("retrain-weekly")
    monkeypatch.setenv("RETUNE_POOL", "gpu")
    try:
        bootstrap()
        moved = deployment("retrain-weekly")
        assert (moved["id"], moved["work_pool_name"]) == (before["id"], "gpu")
    finally:
        monkeypatch.setenv("RETUNE_POOL", "cpu")
        bootstrap()
    assert deployment("retrain-weekly")["work_pool_name"] == "cpu"


def test_the_scheduler_makes_runs() -> None:
    # With SQLAlchemy 2.1 it silently makes none.
    wanted = {"deployments": {"id": {"any_": [deployment("retrain-weekly")["id"]]}}}
    deadline = time.monotonic() + 90
    while not (runs := api("POST", "/flow_runs/filter", **wanted).raise_for_status().json()):
        assert time.monotonic() < deadline, "no scheduled run within 90 s"
        time.sleep(1)
    assert {run["state_name"] for run in runs} == {"Scheduled"}
    assert all(run["parameters"]["config"] for run in runs)


def test_the_form_has_descriptions_and_bounds() -> None:
    schema = deployment("retrain-manual")["parameter_openapi_schema"]
    models = {name: model.get("properties", {}) for name, model in schema["definitions"].items()}
    assert "RetrainConfig" in models
    fields = [field for properties in models.values() for field in properties.values()]
    assert any("maximum" in field for field in fields)
    undescribed = [
        f"{model}.{name}"
        for model, properties in models.items()
        for name, field in properties.items()
        if model.endswith("Config") and "$ref" not in field and not field.get("description")
    ]
    assert not undescribed


def test_a_value_out_of_bounds_is_refused_by_the_server() -> None:
    found = deployment("retrain-manual")
    stage, name, maximum = bounded_field(found["parameter_openapi_schema"])
    config = dict(found["parameters"]["config"])
    config[stage] = {**config[stage], name: maximum + 1}
    answer = api(
        "POST", f"/deployments/{found['id']}/create_flow_run", parameters={"config": config}
    )
    assert answer.status_code == 409
    assert "maximum" in answer.text


def bounded_field(schema: dict[str, Any]) -> tuple[str, str, float]:
    """A stage, a field of its config, and the field's upper bound."""
    definitions = schema["definitions"]
    for stage, reference in definitions["RetrainConfig"]["properties"].items():
        model = definitions.get(reference.get("$ref", "").rpartition("/")[2], {})
        for name, field in model.get("properties", {}).items():
            if "maximum" in field:
                return stage, name, field["maximum"]
    raise AssertionError("no field has an upper bound")


def test_results_go_to_the_bucket_and_the_keys_are_not_stored(stack: Path) -> None:
    path = "/block_types/slug/{}/block_documents/name/retune"
    bucket = api("GET", path.format("s3-bucket")).raise_for_status().json()["data"]
    assert bucket["bucket_name"] == "retune"
    assert bucket["bucket_folder"] == "results"
    keys = api("GET", path.format("aws-credentials")).raise_for_status().json()["data"]
    assert not keys["aws_access_key_id"]
    assert not keys["aws_secret_access_key"]
    assert keys["aws_client_parameters"]["config"]["retries"]["total_max_attempts"] == 10
