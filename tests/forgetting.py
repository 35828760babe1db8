"""A small store as the stages leave it, with one customer in it: what forgetting is tested on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.example import Example, Message, content_id, to_table
from tasks.objects import LocalStore
from tasks.storage import commit

ANNA = "anna.smith@example.org"
_SPLITS = ("train", "train", "train", "validation", "test")


@dataclass
class World:
    """What was stored, by name; rows 0, 3 and 4 hold Anna: in train, validation and test."""

    store: LocalStore
    name: str
    uris: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    rows: list[Example] = field(default_factory=list)

    def put(self, name: str, stage: str, files: dict[str, pa.Table | str], folder: Path) -> None:
        folder.mkdir(parents=True)
        for file, content in files.items():
            if isinstance(content, str):
                (folder / file).write_text(content)
            else:
                pq.write_table(content, folder / file, row_group_size=2)
        self.uris[name], self.digests[name] = commit(self.store, stage, folder)

    def listing(self) -> dict[str, bytes]:
        return {key: self.store.get_bytes(key) for key in self.store.keys_under("")}


Build = Callable[[Path], World]


def build_world(folder: Path, name: str) -> World:
    world = World(LocalStore(folder / "store"), name.replace("[", "-").rstrip("]"))
    world.rows = [_row(i, name) for i in range(10)]
    redacted = [_redacted(row) for row in world.rows]
    clean = to_table(redacted).append_column("split", pa.array(_SPLITS * 2))
    others = [row for i, row in enumerate(redacted) if i not in {0, 3, 4}]
    rejected = to_table([redacted[7]]).append_column(
        "detail", pa.array([f"similarity 0.90 to {world.rows[0].id}"])
    )
    quarantine = pa.table(
        {
            "file": ["rows.jsonl", "rows.jsonl"],
            "line": [11, 12],
            "raw": pa.array([b'{"mail":"Anna.Smith@example.org"', b"not json"], pa.binary()),
        }
    )
    raw = {"examples.parquet": to_table(world.rows), "quarantine.parquet": quarantine}
    tokens = pa.table(
        {"id": [row.id for row in world.rows[:3]], "input_ids": [[1], [2], [3]]},
    )
    answers = pa.table({"id": ["g" * 64], "prompt": ["hi"], "answer": ["no"]})
    for title, stage, files in (
        ("ingest", "ingest", raw),
        ("part", "ingest-part", raw),
        ("clean", "clean", {"examples.parquet": clean, "rejected.parquet": rejected}),
        ("clean without", "clean", {"examples.parquet": to_table(others).append_column(
            "split", pa.array(["train"] * len(others)))}),
        ("format", "format", {"train.parquet": tokens}),
        ("answers", "answers", {"answers.parquet": answers}),
        ("golden", "golden", {"examples.parquet": to_table([_row(20, name), _row(0, name)])}),
        ("train", "train", {"log.json": f'{{"note": "{ANNA}"}}'}),
    ):  # fmt: skip
        world.put(title, stage, files, folder / title)  # type: ignore[arg-type]
    world.store.put_bytes("runs/r1/report.html", f"<p>{ANNA.replace('@', '&#64;')}</p>".encode())
    world.store.put_bytes("runs/r1/summary.json", b"{}")
    world.store.put_bytes("runs/r0/forget.json", ANNA.encode())
    return world


def _row(index: int, name: str) -> Example:
    """Row 0 has her in its text, row 3 in its meta, row 4 as its group."""
    text = f"{name} {index}" + (f" from <{ANNA.upper()}>" if index == 0 else "")
    messages = (Message("user", text), Message("assistant", "yes"))
    meta = {"file": "rows.jsonl", "line": str(index)} | ({"who": ANNA} if index == 3 else {})
    group = ANNA if index == 4 else f"group-{index}"
    return Example(content_id(messages), messages, "human", group, meta=meta)


def _redacted(row: Example) -> Example:
    text = json.dumps([m.content for m in row.messages]).replace(ANNA.upper(), "[EMAIL]")
    messages = tuple(
        Message(m.role, c) for m, c in zip(row.messages, json.loads(text), strict=True)
    )
    meta = {key: value for key, value in row.meta.items() if key != "who"}
    group = "redacted" if row.group == ANNA else row.group
    return Example(row.id, messages, row.source, group, meta=meta)
