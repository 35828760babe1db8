"""Writes the raw files, the golden set and the key of the sample deployment.

Input: scenarios.txt and phrases.txt beside this file, and a fixed seed. Output: human.csv,
production.jsonl, synthetic.jsonl and golden.jsonl in --out, and the key to the planted dirt in
--key; the same bytes each time. Run: python -m deployments.sample.generate
"""

import argparse
import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from random import Random

from deployments.sample import dirt
from deployments.sample.drawing import Gate, Row, Voice, draw_admitted
from deployments.sample.phrases import CATEGORIES, HERE, Pools, Scenario, load_pools, load_scenarios

SEED = "sample-1"
GOLDEN_ROWS = 200
RAW_FILES = {"human.csv": 500, "production.jsonl": 600, "synthetic.jsonl": 400}
CSV_COLUMNS = ["message", "ticket", "customer", "created_at"]
URGENCY_BAG = ("normal",) * 4 + ("high",) * 3 + ("low",) * 3
FIRST_MOMENT = datetime(2025, 1, 6, 7, 30, tzinfo=UTC)
KEY_PATH = HERE.parents[1] / "tests" / "data" / "sample_key.jsonl"


def _turns(scenarios: list[Scenario], rng: Random) -> Iterator[Scenario]:
    """Scenarios without end, the categories in turn, each scenario of a category as often."""
    wheels = []
    for category in CATEGORIES:
        own = [s for s in scenarios if s.category == category]
        rng.shuffle(own)
        wheels.append(cycle(own))
    while True:
        for wheel in wheels:
            yield next(wheel)


def _core_wheels(scenarios: list[Scenario], name: str, rng: Random) -> dict[str, Iterator[str]]:
    wheels: dict[str, Iterator[str]] = {}
    for scenario in scenarios:
        cores = list(scenario.cores if name == "train" else scenario.golden)
        rng.shuffle(cores)
        wheels[scenario.key] = cycle(cores)
    return wheels


def draw_rows(
    scenarios: list[Scenario], pools: Pools, name: str, count: int, golden: list[Row]
) -> list[Row]:
    """`count` rows from the pools of `name`, none near another nor near a golden row."""
    voice = Voice(pools, name, Random(f"{SEED}-{name}"))
    gate = Gate(golden)
    turns = _turns(scenarios, voice.rng)
    cores = _core_wheels(scenarios, name, voice.rng)
    rows: list[Row] = []
    for urgency in _urgencies(count, voice.rng):
        scenario = next(turns)
        rows.append(draw_admitted(scenario, next(cores[scenario.key]), urgency, voice, gate))
    return rows


def _urgencies(count: int, rng: Random) -> list[str]:
    """Urgencies in fixed shares, in random order."""
    bag = [URGENCY_BAG[i % len(URGENCY_BAG)] for i in range(count)]
    rng.shuffle(bag)
    return bag


def _plant(rows: list[Row], golden: list[Row], pools: Pools) -> list[Row]:
    rng = Random(f"{SEED}-dirt")
    dirt.alter_rows(rows, pools, rng)
    clean = [row for row in rows if not row.kind]
    rng.shuffle(clean)
    cut = dirt.COPIED["exact_duplicate"]
    copies = dirt.exact_copies(clean[:cut], rng)
    copies += dirt.near_copies(clean[cut:], dirt.COPIED["near_duplicate"], rng)
    copies += dirt.leak_copies(rng.sample(golden, dirt.COPIED["golden_leak"]), rng)
    return rows + copies


def _spread(rows: list[Row]) -> dict[str, list[Row]]:
    """Shuffles the rows into the raw files and notes where each one lands."""
    rows = list(rows)
    Random(f"{SEED}-spread").shuffle(rows)
    files: dict[str, list[Row]] = {}
    start = 0
    for name, count in RAW_FILES.items():
        files[name] = rows[start : start + count]
        start += count
        _number(files[name], name)
    return files


def _number(rows: list[Row], name: str) -> None:
    first = 2 if name.endswith(".csv") else 1
    for line, row in enumerate(rows, start=first):
        row.file, row.line = name, line


def _groups(rows: list[Row], prefix: str, rng: Random) -> dict[int, str]:
    """Group id by line: 1 to 4 rows each; neighbours in `rows` share one."""
    ids: dict[int, str] = {}
    rest, number = list(rows), 0
    while rest:
        number += 1
        size = rng.choice((1, 1, 1, 2, 2, 3, 4))
        ids.update({row.line: f"{prefix}-{number:04d}" for row in rest[:size]})
        rest = rest[size:]
    return ids


def _moments(count: int, rng: Random) -> list[str]:
    moment, moments = FIRST_MOMENT, []
    for _ in range(count):
        moment += timedelta(seconds=rng.randrange(600, 30000))
        moments.append(moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return moments


def _chat_record(row: Row, group: str, moment: str) -> dict[str, object]:
    messages = [
        {"role": "user", "content": row.message},
        {"role": "assistant", "content": row.answer_text()},
    ]
    return {"messages": messages, "conversation_id": group, "created_at": moment}


def _pair_record(row: Row, group: str, moment: str) -> dict[str, object]:
    return {
        "prompt": row.message,
        "completion": row.answer_text(),
        "seed_id": group,
        "created_at": moment,
    }


def _chat_line(row: Row, group: str, moment: str, rng: Random) -> str:
    return _json_line(row, _chat_record(row, group, moment), "messages", rng)


def _pair_line(row: Row, group: str, moment: str, rng: Random) -> str:
    return _json_line(row, _pair_record(row, group, moment), "completion", rng)


def _json_line(row: Row, record: dict[str, object], key: str, rng: Random) -> str:
    if row.kind != "broken_row":
        return json.dumps(record, ensure_ascii=False)
    form, line = dirt.break_json_line(record, key, rng)
    row.detail = {"form": form}
    return line


def _csv_line(row: Row, group: str, moment: str, rng: Random) -> str:
    cells = [row.message, row.answer_text(), group, moment]
    if row.kind == "broken_row":
        form, cells = dirt.break_cells(cells, rng)
        row.detail = {"form": form}
    return _csv_text(cells)


def _csv_text(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(cells)
    return buffer.getvalue()


LINE_MAKERS = {
    "human.csv": ("c", _csv_line),
    "production.jsonl": ("p", _chat_line),
    "synthetic.jsonl": ("s", _pair_line),
}


def _file_lines(name: str, rows: list[Row]) -> list[str]:
    rng = Random(f"{SEED}-{name}")
    prefix, make = LINE_MAKERS[name]
    # A seed of synthetic data yields rows of one kind, so neighbours are taken by scenario there.
    order = sorted(rows, key=lambda r: r.scenario) if prefix == "s" else _mixed(rows, rng)
    groups = _groups(order, prefix, rng)
    moments = _moments(len(rows), rng)
    lines = [make(r, groups[r.line], m, rng) for r, m in zip(rows, moments, strict=True)]
    return [_csv_text(CSV_COLUMNS), *lines] if prefix == "c" else lines


def _mixed(rows: list[Row], rng: Random) -> list[Row]:
    return rng.sample(rows, len(rows))


def _golden_lines(golden: list[Row]) -> list[str]:
    _number(golden, "golden.jsonl")
    moments = _moments(len(golden), Random(f"{SEED}-golden-moments"))
    return [
        json.dumps(_chat_record(row, _golden_id(row), moment), ensure_ascii=False)
        for row, moment in zip(golden, moments, strict=True)
    ]


def _golden_id(row: Row) -> str:
    return f"g-{row.line:03d}"


def _key_line(row: Row) -> str:
    detail = dict(row.detail)
    if row.kind == "golden_leak" and row.source:
        detail["golden_id"] = _golden_id(row.source)
    elif row.source:
        detail["of"] = f"{row.source.file}:{row.source.line}"
    entry = {"file": row.file, "line": row.line, "kind": row.kind, "detail": detail}
    return json.dumps(entry, ensure_ascii=False)


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode("utf-8"))


def generate(out: Path = HERE, key: Path = KEY_PATH) -> None:
    """Writes all files of the sample."""
    scenarios, pools = load_scenarios(), load_pools()
    golden = draw_rows(scenarios, pools, "golden", GOLDEN_ROWS, [])
    Random(f"{SEED}-golden-order").shuffle(golden)
    _write(out / "golden.jsonl", _golden_lines(golden))
    drawn = sum(RAW_FILES.values()) - sum(dirt.COPIED.values())
    files = _spread(_plant(draw_rows(scenarios, pools, "train", drawn, golden), golden, pools))
    for name, rows in files.items():
        _write(out / name, _file_lines(name, rows))
    _write(key, [_key_line(row) for rows in files.values() for row in rows if row.kind])


def main() -> None:
    """Command line: where to write."""
    parser = argparse.ArgumentParser(description="Write the files of the sample deployment.")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--key", type=Path, default=KEY_PATH)
    arguments = parser.parse_args()
    generate(arguments.out, arguments.key)


if __name__ == "__main__":
    main()
