"""A decision made again from what is stored: does it come out the same, byte for byte?

    python -m tasks.gate.replay SUMMARY        or: make replay [SUMMARY=file]

SUMMARY is the ``summary.json`` of a run. Exits 0 where the replayed decision equals the stored one,
1 where it differs or something of it is missing.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DataError, MissingFileError, RetuneError
from tasks.evidence import RunSummary
from tasks.gate.record import DECISION, as_text, decide_reports, read_inputs
from tasks.objects import Store, open_store
from tasks.storage import fetch


def replay(store: Store, uri: str, digest: str) -> tuple[str, str]:
    """The stored decision and the one that its inputs give now.

    Raises MissingFileError where the decision, its inputs or the scores are not in storage.
    """
    folder = fetch(store, uri, digest)
    reports, comparison, config = read_inputs(folder)
    replayed = as_text(*decide_reports(store, reports, comparison, config))
    return (folder / DECISION).read_text(), replayed


def locate(summary: Path) -> list[tuple[str, str]]:
    """Where a run's decisions are stored, by URI and digest: on the open rows, and on sealed ones.

    Raises MissingFileError where there is no such file, DataError where it is no summary or the run
    ended before its gate.
    """
    if not summary.is_file():
        raise MissingFileError(f"{summary}: expected a run's summary.json, found no file.")
    try:
        run = RunSummary.model_validate_json(summary.read_text())
    except ValidationError as error:
        raise DataError(f"{summary}: expected a run's summary.json: {error}") from error
    uris = {stage.get("name"): str(stage.get("uri") or "") for stage in run.stages}
    if not uris.get("gate"):
        raise DataError(f"{summary}: the run was {run.status} and holds no decision of its gate.")
    found = [uris[name] for name in ("gate", "confirm") if uris.get(name)]
    return [(uri, uri.rstrip("/").rsplit("/", 1)[-1]) for uri in found]


def main(arguments: Sequence[str]) -> int:
    """Print the decision and whether it came out the same; answers the exit status."""
    if len(arguments) != 1:
        print("usage: python -m tasks.gate.replay SUMMARY", file=sys.stderr)
        return 2
    try:
        store = open_store()
        decisions = [replay(store, *place) for place in locate(Path(arguments[0]))]
    except RetuneError as error:
        print(error, file=sys.stderr)
        return 1
    return max(_compare(rows, *d) for rows, d in zip(("open", "sealed"), decisions, strict=False))


def _compare(rows: str, stored: str, replayed: str) -> int:
    decision = json.loads(replayed)
    print(f"On the {rows} rows: {decision['outcome']}: {decision['sentence']}")
    for reason in decision["reasons"]:
        print(f"  {reason}")
    if stored == replayed:
        print("The same decision as stored, byte for byte.")
        return 0
    print("NOT the decision that is stored:", file=sys.stderr)
    lines = difflib.unified_diff(
        stored.splitlines(), replayed.splitlines(), "stored", "replayed", lineterm=""
    )
    print("\n".join(lines), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
