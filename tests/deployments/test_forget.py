"""`make forget`: through its deployment and the worker, without the identifier in Prefect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.forget import main
from tasks.objects import open_store

WHO = "zoe.unmistakable@example.org"


def api(method: str, path: str, **body: Any) -> Any:
    url = f"{os.environ['PREFECT_API_URL']}{path}"
    answer = httpx.request(method, url, json=body or None, trust_env=False, timeout=30)
    return answer.raise_for_status().json()


@pytest.mark.parametrize("arguments", [["", "ticket"], ["who.txt", ""]])
def test_a_file_and_a_reason_are_needed(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert "WHO=who.txt" in capsys.readouterr().err


def test_a_missing_or_empty_file_is_said_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "no.txt"), "ticket"]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "empty.txt").touch()
    assert main([str(tmp_path / "empty.txt"), "ticket"]) == 2
    assert "Nothing to forget" in capsys.readouterr().err


@pytest.mark.integration
def test_the_worker_looks_and_then_applies(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store()
    store.put_bytes("batches/letter.txt", f"from {WHO}".encode())
    (tmp_path / "who.txt").write_text(WHO.upper())

    assert main([str(tmp_path / "who.txt"), "ticket 9"]) == 0
    told = capsys.readouterr().out
    assert "Dry run: nothing was changed" in told
    assert "batches/letter.txt" in told
    assert "APPLY=1" in told

    assert main([str(tmp_path / "who.txt"), "ticket 9", "--apply", "--erase"]) == 0
    told += capsys.readouterr().out
    assert store.size("batches/letter.txt") is None
    assert list(store.keys_under("tombstones/"))
    assert WHO not in told.lower()
    only = {"id": {"any_": [api("GET", "/deployments/name/forget/forget")["id"]]}}
    runs = api("POST", "/flow_runs/filter", deployments=only)
    assert len(runs) == 2
    assert WHO not in str(runs).lower()
    for run in runs:
        wanted = {"flow_run_id": {"any_": [run["id"]]}}
        logs = api("POST", "/logs/filter", logs=wanted, limit=200)
        assert logs
        assert WHO not in str(logs).lower()
    assert WHO not in (stack / "logs" / "worker.log").read_text().lower()


@pytest.mark.integration
def test_it_waits_for_a_retrain_run_and_has_no_parameters_of_its_own(stack: Path) -> None:
    found = api("GET", "/deployments/name/forget/forget")
    assert found["work_queue_name"] == "retrain"
    assert found["parameters"] == {}
    assert found["schedules"] == []
    fields = found["parameter_openapi_schema"]["definitions"]["ForgetConfig"]["properties"]
    assert all(field.get("description") for field in fields.values())
