"""What the stages keep between them: shots and answers as files in storage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.artifacts import Answers, CleanDataset, Contestant, ShotSet
from tasks.evaluate.answers import Answer
from tasks.evaluate.shots import Shots
from tasks.example import Example, from_table, to_table
from tasks.objects import Store
from tasks.storage import fetch

_SHOTS = pa.schema([("id", pa.string()), ("examples", pa.list_(pa.string()))])


def rows_by_split(store: Store, dataset: CleanDataset, *splits: str) -> list[Example]:
    """The rows of a data set that stand in one of the splits."""
    table = pq.read_table(fetch(store, dataset.uri, dataset.digest) / "examples.parquet")
    return from_table(table.filter(pc.is_in(table["split"], pa.array(splits))))


def adapter_folder(store: Store, contestant: Contestant) -> Path | None:
    """The files of a contestant's adapter; None for the base model."""
    if contestant.adapter_uri is None or contestant.adapter_artifact_digest is None:
        return None
    return fetch(store, contestant.adapter_uri, contestant.adapter_artifact_digest)


def write_answers(answers: Sequence[Answer], folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist([asdict(a) for a in answers]), folder / "answers.parquet")


def read_answers(store: Store, answers: Answers) -> list[Answer]:
    table = pq.read_table(fetch(store, answers.uri, answers.digest) / "answers.parquet")
    return [Answer(**row) for row in table.to_pylist()]


def write_shots(chosen: Sequence[Shots], folder: Path) -> None:
    distinct = {example.id: example for shots in chosen for example in shots.examples}
    pq.write_table(to_table(distinct.values()), folder / "examples.parquet")
    named = [{"id": shots.id, "examples": [e.id for e in shots.examples]} for shots in chosen]
    pq.write_table(pa.Table.from_pylist(named, schema=_SHOTS), folder / "shots.parquet")


def read_shots(store: Store, shots: ShotSet | None) -> dict[str, list[Example]]:
    """The solved examples of each golden row, by its id; nothing for None."""
    if shots is None:
        return {}
    folder = fetch(store, shots.uri, shots.digest)
    known = {example.id: example for example in _examples(folder)}
    named = pq.read_table(folder / "shots.parquet").to_pylist()
    return {row["id"]: [known[identity] for identity in row["examples"]] for row in named}


def _examples(folder: Path) -> list[Example]:
    return from_table(pq.read_table(folder / "examples.parquet"))
