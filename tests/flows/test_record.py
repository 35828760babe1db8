"""What a run is called: what it is for, when it was to start, and why."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prefect.runtime import deployment
from prefect.runtime import flow_run as current

from flows.record import run_name


@pytest.mark.parametrize(
    ("tags", "by", "dry_run", "name"),
    [
        (["auto-scheduled", "retune"], "id", False, "tickets 2026-01-05 03:00 scheduled"),
        (
            ["on-data", "label-studio"],
            "id",
            False,
            "tickets 2026-01-05 03:00 new rows of label-studio",
        ),
        (["retune"], "id", False, "tickets 2026-01-05 03:00 by hand"),
        (["retune"], "id", True, "tickets 2026-01-05 03:00 dry run"),
        ([], None, False, "tickets 2026-01-05 03:00"),
    ],
)
def test_a_run_says_what_it_is_for_and_why(
    monkeypatch: pytest.MonkeyPatch, tags: list[str], by: str | None, dry_run: bool, name: str
) -> None:
    parameters = {"config": {"name": "tickets"}, "dry_run": dry_run}
    monkeypatch.setattr(current, "get_parameters", lambda: parameters)
    monkeypatch.setattr(current, "get_tags", lambda: tags)
    monkeypatch.setattr(
        current, "get_scheduled_start_time", lambda: datetime(2026, 1, 5, 3, tzinfo=UTC)
    )
    monkeypatch.setattr(deployment, "get_id", lambda: by)
    assert run_name() == name
