"""Train, forget a customer, train again: she is gone, and the model that knew her says so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from flows.config import RetrainConfig
from flows.forget import forget
from flows.retrain import retrain
from tasks.errors import ConfigError
from tasks.evidence import RunSummary
from tasks.forget.config import ForgetConfig
from tasks.forget.trace import MARK
from tasks.objects import Store, open_store
from tasks.storage import local_folder
from tests.flows.conftest import Tiny

pytestmark = pytest.mark.integration

WHO = "Dolores.Quux@example.org"
_HER_ROWS = (3, 17, 18, 31, 44)
_STAGES = ("ingest", "clean", "format")


@pytest.fixture
def config(tiny: Tiny, tmp_path: Path) -> RetrainConfig:
    """The tiny config, with five of the sixty rows hers: in the text, or as the group alone."""
    made = tiny(
        ingest={
            "sources": [
                {
                    "path": str(tmp_path / "rows.jsonl"),
                    "columns": {"user": "prompt", "assistant": "completion", "group": "customer"},
                }
            ]
        }
    )
    path = tmp_path / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for index, row in enumerate(rows):
        row["customer"] = f"customer-{index}"
        if index in _HER_ROWS[:3]:
            row["prompt"] += f" ask {WHO.upper()}."
        elif index in _HER_ROWS:
            row["customer"] = WHO
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


@pytest.fixture
def who(tmp_path: Path) -> str:
    path = tmp_path / "who.txt"
    path.write_text(f"{WHO}\n")
    return str(path)


def first_run(config: RetrainConfig) -> RunSummary:
    summary = retrain(config)
    assert summary.decision == "promoted", summary.reasons
    return summary


def rows_of(summary: RunSummary, stage: str) -> tuple[set[str], str]:
    """The ids in a stage's artifact, and everything that it says, in lower case."""
    store = open_store()
    uri = next(str(s["uri"]) for s in summary.stages if s["name"] == stage)
    prefix = uri.removeprefix(f"{store.root}/")
    ids: set[str] = set()
    said = ""
    for key in store.keys_under(f"{prefix}/"):
        if not key.endswith(".parquet"):
            continue
        target = local_folder() / "read.parquet"
        store.get(key, target)
        table = pq.read_table(target)
        said += str(table.to_pylist()).lower()
        ids |= set(table["id"].to_pylist()) if "id" in table.column_names else set()
    return ids, said


def artifacts(store: Store) -> set[str]:
    """What the runs left, but for the flows' own records."""
    return {k for k in store.keys_under("") if not k.startswith(("results/", "runs/", "mlflow/"))}


def test_a_look_changes_nothing_and_tells_where_she_is(config: RetrainConfig, who: str) -> None:
    summary = first_run(config)
    before = artifacts(open_store())
    found = forget(ForgetConfig(reason="ticket 7", identifiers_file=who, name=config.name))
    assert artifacts(open_store()) == before
    assert {"ingest", "ingest-part", "clean", "format"} <= {p.stage for p in found.traces.places}
    (hit,) = found.traces.models
    assert (hit.version, hit.aliases) == ("1", ["champion"])
    assert hit.num_by_split["train"] >= 1
    assert summary.lineage["adapter_uri"] in {a.adapter_uri for a in found.traces.adapters}
    assert "1 (champion) was trained on it" in found.left[0]
    assert MARK not in MlflowClient().get_model_version(config.name, "1").tags


def test_forgotten_she_does_not_come_back(
    config: RetrainConfig, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = first_run(config)
    ingested_ids, _ = rows_of(first, "ingest")
    done = forget(
        ForgetConfig(
            reason="ticket 8", identifiers_file=who, name=config.name, apply=True, erase=True
        )
    )
    links = done.traces.links & ingested_ids
    assert len(links) == len(_HER_ROWS)
    assert done.marked == (f"{config.name} version 1",)

    # A model that must not serve any longer leaves its place, so that the next can take it.
    MlflowClient().delete_registered_model_alias(config.name, "champion")
    second = first_run(config)
    for stage in _STAGES:
        ids, said = rows_of(second, stage)
        assert not ids & links, stage
        assert "dolores" not in said, stage
    ingested = next(s for s in second.stages if s["name"] == "ingest")
    assert ingested["num_out"] == 60 - len(_HER_ROWS)

    tags = {v: MlflowClient().get_model_version(config.name, v).tags for v in ("1", "2")}
    assert done.traces.request[:12] in tags["1"][MARK]
    assert MARK not in tags["2"]
    again = forget(ForgetConfig(reason="ticket 8", identifiers_file=who, name=config.name))
    assert not {p.stage for p in again.traces.places} & {"ingest", "ingest-part", "clean", "format"}
    assert [hit.version for hit in again.traces.models] == ["1"]
    assert WHO.lower() not in caplog.text.lower()
    records = list((local_folder() / "runs").glob("*/forget.json"))
    assert records
    assert not any(WHO.lower() in path.read_text().lower() for path in records)


def test_a_reason_that_names_her_is_refused(config: RetrainConfig, who: str) -> None:
    with pytest.raises(ConfigError, match="`reason` names"):
        forget(ForgetConfig(reason=f"mail of {WHO}", identifiers_file=who, name=config.name))
