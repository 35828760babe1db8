"""Every copy of a person is found: raw, redacted, tokenised, cached, and in a model's data."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tasks.forget.records import Traces
from tasks.forget.trace import trace
from tasks.storage import fetch, local_folder
from tasks.tombstones import Tombstones
from tests.forgetting import ANNA, World

pytestmark = pytest.mark.usefixtures("versions")
SALT = bytes(32)


def look(client: MlflowClient, world: World, *texts: str, ids: tuple[str, ...] = ()) -> Traces:
    return trace(world.store, client, Tombstones.of(SALT, texts, ids), name=world.name)


def rows(traces: Traces, *, local: bool = False) -> dict[str, list[int]]:
    return {
        f"{place.stage}/{place.key.rpartition('/')[2]}": [row.row for row in place.rows]
        for place in traces.places
        if place.local == local
    }


def test_a_person_is_found_in_every_stage(client: MlflowClient, world: World) -> None:
    traces = look(client, world, ANNA)
    assert rows(traces) == {
        "ingest/examples.parquet": [0, 3, 4],
        "ingest/quarantine.parquet": [0],
        "ingest-part/examples.parquet": [0, 3, 4],
        "ingest-part/quarantine.parquet": [0],
        "golden/examples.parquet": [1],
        "clean/examples.parquet": [0, 3, 4],
        "format/train.parquet": [0],
        "train/log.json": [0],
        "runs/report.html": [0],
    }
    splits = {row.row: row.split for p in traces.places if p.stage == "clean" for row in p.rows}
    assert splits == {0: "train", 3: "validation", 4: "test"}
    assert traces.source_files == {"rows.jsonl": 3}
    assert ANNA not in traces.model_dump_json().lower()


def test_her_models_are_named_those_in_production_first(
    client: MlflowClient, world: World, versions: dict[str, Any]
) -> None:
    traces = look(client, world, ANNA)
    assert [(hit.version, hit.aliases) for hit in traces.models] == [("1", ["champion"])]
    assert traces.models[0].num_by_split == {"train": 1, "validation": 1, "test": 1}
    assert [a.adapter_uri for a in traces.adapters] == ["s3://adapters/old"]
    assert traces.untraceable == [f"{world.name} version {versions['lost'].version}"]


def test_a_version_that_never_saw_the_row_in_training_is_not_trained_on_it(
    client: MlflowClient, world: World
) -> None:
    (hit,) = look(client, world, ids=(world.rows[4].id,)).models
    assert hit.num_by_split == {"test": 1}
    assert not hit.is_trained


def test_an_id_leads_to_its_row_alone(client: MlflowClient, world: World) -> None:
    traces = look(client, world, ids=(world.rows[0].id,))
    assert rows(traces)["clean/examples.parquet"] == [0]
    assert "clean/rejected.parquet" not in rows(traces), "a near-duplicate is another row"
    assert rows(traces)["format/train.parquet"] == [0]


def test_a_text_is_found_by_any_part_of_it(client: MlflowClient, world: World) -> None:
    traces = look(client, world, f"{world.rows[5].messages[0].content.upper()}!")
    assert rows(traces)["ingest/examples.parquet"] == [5]


def test_an_unknown_person_is_nowhere(client: MlflowClient, world: World) -> None:
    traces = look(client, world, "bob@example.org")
    assert (traces.places, traces.models, traces.adapters) == ([], [], [])
    assert traces.num_objects > 10


def test_copies_on_this_machine_are_found_with_the_store_and_without(
    client: MlflowClient, world: World
) -> None:
    for name in ("ingest", "clean without", "format"):
        fetch(world.store, world.uris[name], world.digests[name])
    traces = look(client, world, ANNA)
    held = {place.digest for place in traces.places if place.local}
    assert held == {world.digests["ingest"], world.digests["format"]}
    shutil.rmtree(world.uris["ingest"])
    shutil.rmtree(world.uris["part"])
    again = {place.digest for place in look(client, world, ANNA).places if place.local}
    assert world.digests["ingest"] in again


def test_what_is_no_parquet_and_what_is_no_text_is_counted(
    client: MlflowClient, world: World
) -> None:
    world.store.put_bytes("ingest/broken.parquet", b"PAR1")
    world.store.put_bytes("train/x/model.safetensors", b"anna")
    traces = look(client, world, ANNA)
    assert traces.num_unread == {".parquet (cannot be read)": 1, ".safetensors": 1}


def test_a_look_changes_nothing(client: MlflowClient, world: World) -> None:
    before = world.listing()
    look(client, world, ANNA)
    assert world.listing() == before
    assert not list((local_folder() / "tmp").iterdir())


def test_lines_and_blocks_of_large_files_are_all_read(client: MlflowClient, world: World) -> None:
    filler = b"lorem ipsum dolor sit amet " * 50_000
    lines = b"".join(filler + b"\n" for _ in range(15))
    world.store.put_bytes("batches/requests.jsonl", lines + ANNA.encode())
    border = (8 << 20) - 5
    body = (filler * 20)[:border] + b" " + ANNA.encode() + b" " + filler
    world.store.put_bytes("batches/answers.json", body)
    found = rows(look(client, world, ANNA))
    assert found["batches/requests.jsonl"] == [15]
    assert "batches/answers.json" in found
