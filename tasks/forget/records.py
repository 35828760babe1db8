"""What a search found and what was done about it; neither ever holds the identifier itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import Field

from tasks.artifacts import Record

_ARTIFACT = re.compile(r"^((?:[^/]+/)?[0-9a-f]{64})/")


class RowHit(Record):
    """A row: its number in the file, from 0, and the example's id and split where it has them."""

    row: int
    id: str | None = None
    split: str | None = None


class Place(Record):
    """A file that holds it: in the store at ``root``, or in a folder of this machine."""

    root: str
    key: str
    stage: str
    local: bool
    num_rows: int
    rows: list[RowHit]

    @property
    def uri(self) -> str:
        return f"{self.root}/{self.key}"

    @property
    def artifact(self) -> str | None:
        """The content-addressed folder it lies in, relative to the root; None for a lone object."""
        return artifact_of(self.key)

    @property
    def digest(self) -> str | None:
        """The artifact's digest."""
        return self.artifact.rpartition("/")[2] if self.artifact else None


def artifact_of(key: str) -> str | None:
    """The content-addressed folder of a key: ``stage/digest``, in the local cache ``digest``."""
    match = _ARTIFACT.match(key)
    return match.group(1) if match else None


def links_of(places: Iterable[Place]) -> set[str]:
    """The ids of rows that hold it themselves; why a row was rejected may only quote another."""
    rejected = "/rejected.parquet"
    own = (place for place in places if not place.key.endswith(rejected))
    return {row.id for place in own for row in place.rows if row.id}


class ModelHit(Record):
    """A model version and how many of the rows were in each split of its data.

    It was trained on those of ``train``; those of ``validation`` chose its checkpoint.
    """

    name: str
    version: str
    aliases: list[str]
    data_digest: str | None
    num_by_split: dict[str, int]
    is_marked: bool = Field(description="Known from an earlier run of the same request")

    @property
    def is_trained(self) -> bool:
        return self.is_marked or self.num_by_split.get("train", 0) > 0


class AdapterHit(Record):
    """An adapter trained on the rows, registered or not, by the MLflow run of its training."""

    training_run_id: str
    adapter_uri: str | None
    data_digest: str


class Traces(Record):
    """Everything found for a request; ``request`` is the digest of what was sought."""

    request: str = Field(description="Empty in a dry run on a store that never forgot anything")
    places: list[Place]
    models: list[ModelHit]
    adapters: list[AdapterHit]
    untraceable: list[str] = Field(description="Model versions whose data set is gone")
    source_files: dict[str, int] = Field(description="Files outside the store, by number of rows")
    num_objects: int
    num_unread: dict[str, int] = Field(description="Objects of kinds that hold no rows, by ending")

    @property
    def links(self) -> set[str]:
        """The ids of all rows that hold it."""
        return links_of(self.places)


class Forgotten(Record):
    """What was found, buried, marked and erased, and what is left to a person."""

    reason: str
    date: str
    applied: bool
    traces: Traces
    tombstone: str | None = None
    marked: tuple[str, ...] = ()
    erased: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
