"""Where raw examples come from, and which columns of a row make an example."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.artifacts import Record
from tasks.errors import MissingFileError
from tasks.example import Source
from tasks.storage import file_digest


class ColumnMapping(Record):
    """Which column holds what. A value with ``{{`` is a Jinja2 template over the row's columns."""

    messages: str | None = Field(None, description="Column with OpenAI chat messages")
    user: str | None = Field(None, description="Column or template of the user's turn")
    assistant: str | None = Field(None, description="Column or template of the right answer")
    group: str | None = Field(
        None, description="Column that names the conversation or customer a split must not cut"
    )
    created_at: str | None = Field(None, description="Column with an ISO 8601 time")
    label: str | None = Field(None, description="Column or template of the class label")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        pair = (self.user is not None, self.assistant is not None)
        if (self.messages is not None) == any(pair) or any(pair) != all(pair):
            raise ValueError(
                "map either `messages` (a column of chat messages) or both `user` and `assistant`"
            )
        return self


class SourceConfig(Record):
    """One source of rows: files, a data set of the hub, or the hub with files as its stand-in."""

    path: str | None = Field(
        None, description="File or glob; relative ones are looked up in RETUNE_DATA, then here"
    )
    hub: str | None = Field(None, description="Data set on the Hugging Face hub, used when online")
    hub_split: str = Field("train", description="Split of the hub's data set")
    hub_revision: str | None = Field(None, description="Commit of the hub's data set; pin it")
    format: Literal["auto", "jsonl", "csv", "parquet"] = Field(
        "auto", description="Form of the files; auto goes by their ending"
    )
    source: Source = Field("human", description="Who made these rows")
    columns: ColumnMapping = Field(
        ColumnMapping(messages="messages"), description="Which column holds what"
    )
    where: dict[str, list[str | int | float | bool]] = Field(
        {}, description="Keep only rows whose column has one of these values"
    )
    limit: int | None = Field(
        None, ge=1, description="Keep this many rows, chosen by the hash of their content"
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.path is None and self.hub is None:
            raise ValueError("a source needs `path`, `hub` or both")
        return self

    def fingerprint(self) -> object:
        """The config and what the files hold; a file renamed in place is another source."""
        files = [] if self.uses_hub() else [[n, file_digest(p)] for n, p in self.files()]
        return {"config": self.model_dump(), "files": files, "hub": self.uses_hub()}

    def uses_hub(self) -> bool:
        """The hub when named and online, else the files."""
        return self.hub is not None and (
            self.path is None or os.environ.get("HF_HUB_OFFLINE", "0") != "1"
        )

    def files(self) -> list[tuple[str, Path]]:
        """The files of ``path``, sorted: (name as configured, place on this machine)."""
        if self.path is None:
            return []
        absolute = Path(self.path)
        if absolute.is_absolute():
            found = _matching(absolute.parent, absolute.name)
            if found:
                return [(p.name, p) for p in found]
            raise MissingFileError(f"Source {self.path!r}: no such file.")
        for place in data_places():
            found = _matching(place, self.path)
            if found:
                return [(p.relative_to(place).as_posix(), p) for p in found]
        looked = ", ".join(str(place) for place in data_places())
        raise MissingFileError(
            f"Source {self.path!r}: no such file in {looked}. Set RETUNE_DATA to the folder that "
            "holds it, or give an absolute path."
        )


class IngestConfig(Record):
    """All sources of a run."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Read in this order")
    max_quarantined_share: float = Field(
        0.1, ge=0, le=1, description="Share of unreadable rows above which the stage fails"
    )


class GoldenConfig(Record):
    """The rows that decide a promotion. Locked at first use; never trained on."""

    name: str = Field("golden", pattern=r"^[\w.-]+$", description="Name of the golden set")
    version: int = Field(1, ge=1, description="A changed set needs a new version")
    sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="SHA-256 that the file must have"
    )
    source: SourceConfig = Field(description="Where the rows are")


def _matching(place: Path, pattern: str) -> list[Path]:
    """The file of that very name, which may hold brackets, else those that the glob matches."""
    if (place / pattern).is_file():
        return [place / pattern]
    return sorted(p for p in place.glob(pattern) if p.is_file())


def data_places() -> list[Path]:
    """Where relative data paths are looked up: RETUNE_DATA, RETUNE_HOME, the working folder."""
    named = [os.environ.get("RETUNE_DATA"), os.environ.get("RETUNE_HOME")]
    return [Path(name) for name in named if name] + [Path.cwd()]
