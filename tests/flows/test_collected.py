"""From an event to a model version, and back: one lineage."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows.retrain import retrain
from tasks import collected
from tasks.collect import inbox
from tasks.collect.drain import drain
from tasks.collect.inbox import Event
from tasks.objects import open_store
from tests.flows.conftest import Tiny
from tests.flows.test_retrain import champion

pytestmark = pytest.mark.integration


def response(number: int) -> dict[str, Any]:
    """An annotator's answer, as Argilla tells of it."""
    record = {"id": f"r{number}", "fields": {"text": f"question number {number} of them all"}}
    data = {
        "id": f"a{number}",
        "status": "submitted",
        "values": {"answer": {"value": "yes"}},
        "updated_at": "2026-11-20T10:00:00",
        "record": {**record, "status": "completed"},
        "user": {"id": "ada"},
    }
    return {"type": "response.created", "data": data}


def test_a_model_names_the_events_that_it_was_made_from(tiny: Tiny, stack: Path) -> None:
    store = open_store()
    events = [Event.of(response(number), datetime.now(UTC)) for number in range(3)]
    key = inbox.write(store, "argilla", events)
    made = drain(store, "argilla").generation
    config = tiny()
    columns = {"user": "text", "assistant": "answer"}
    source = {"collected": "argilla", "columns": columns}
    rows = config.ingest.model_dump() | {
        "sources": [config.ingest.sources[0].model_dump(exclude_unset=True), source]
    }
    summary = retrain(tiny(ingest=rows))
    (ingest,) = (stage for stage in summary.stages if stage["name"] == "ingest")
    assert ingest["num_out"] == 60 + 3
    told = f"argilla {made.number}"
    assert summary.lineage["collected"] == told
    assert champion(config.name).tags["collected"] == told
    page = (stack / "runs" / summary.flow_run_id / "report.html").read_text()
    assert told in page
    # And from there to the events.
    assert collected.load(store, "argilla", made.number).consumed == {key}
