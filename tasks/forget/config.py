"""What is to be forgotten, and how far to go.

Prefect stores a flow run's parameters: prefer the file or the variable to the fields.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ConfigDict, Field

from tasks.artifacts import Record
from tasks.errors import ConfigError, MissingFileError


class ForgetConfig(Record):
    """A request: what to forget, why, and whether to do more than look."""

    # A wrong field's message would repeat the fields beside it, and end in a log.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    identifiers_file: str | None = Field(
        None,
        description="File on the worker with one identifier or text a line; the way that leaves no "
        "trace of them in Prefect",
    )
    identifiers_variable: str | None = Field(
        None,
        pattern=r"^[A-Z_][A-Z0-9_]*$",
        description="The same in an environment variable of the worker",
    )
    identifiers: tuple[str, ...] = Field(
        (),
        description="E-mail addresses, names, customer numbers. Prefect stores what stands here",
    )
    texts: tuple[str, ...] = Field(
        (), description="Texts or parts of texts. Prefect stores what stands here"
    )
    example_ids: tuple[str, ...] = Field(
        (), description="Ids of examples, as in examples.parquet or in a forget.json"
    )
    reason: str = Field(
        min_length=1,
        description="Why, kept in the record; a ticket's number, not the person's name",
    )
    name: str | None = Field(
        None, description="Only look at the versions of this model; by default at all models"
    )
    apply: bool = Field(False, description="Bury it: without this, the run only looks")
    erase: bool = Field(
        False, description="With apply: also delete the artifacts and local copies that hold it"
    )
    max_share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="Refuse to apply what is in more than this share of a snapshot's rows",
    )

    def wanted(self) -> list[str]:
        """The identifiers and texts, wherever they are given.

        Raises ConfigError where nothing is, or where `erase` is asked for without `apply`.
        """
        found = [*self.identifiers, *self.texts]
        if self.identifiers_file is not None:
            found += _lines_of_file(Path(self.identifiers_file))
        if self.identifiers_variable is not None:
            found += _lines_of_variable(self.identifiers_variable)
        if not found and not self.example_ids:
            raise ConfigError(
                "Nothing to forget: expected an identifier, a text or an example id. Fill "
                "identifiers_file, identifiers, texts or example_ids."
            )
        if self.erase and not self.apply:
            raise ConfigError("`erase` without `apply`: set both, or neither for a look.")
        return found


def _lines_of_file(path: Path) -> list[str]:
    try:
        return _lines(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFileError(
            f"identifiers_file {path}: there is no such file on this worker."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"identifiers_file {path}: expected UTF-8. Save it as that.") from error


def _lines_of_variable(name: str) -> list[str]:
    if name not in os.environ:
        raise ConfigError(f"identifiers_variable {name}: not set on this worker.")
    return _lines(os.environ[name])


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
