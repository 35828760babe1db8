"""What the stage leaves behind: the rows, the rejected ones, the review queue and the figures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.clean.account import Account
from tasks.clean.config import CleanConfig
from tasks.clean.drift import profile
from tasks.clean.mix import shares
from tasks.clean.pii.redact import redact_texts
from tasks.clean.review import redacted, write_review
from tasks.clean.rows import Rows

PROFILE = "profile.json"
_SAMPLES_PER_REASON = 3
_SAMPLE_CHARACTERS = 160
_REVIEW_SAMPLES = 10


def write(account: Account, config: CleanConfig, folder: Path) -> None:
    """``examples.parquet`` with its split, ``rejected.parquet`` with check, reason and detail,
    ``review.json`` for Label Studio, ``stats.json`` for the report, ``profile.json`` for drift.
    """
    pq.write_table(account.rows.table, folder / "examples.parquet")
    rejected = pa.concat_tables(account.rejected) if account.rejected else _none(account.rows)
    pq.write_table(rejected, folder / "rejected.parquet")
    review = redacted(account.review, config.pii)
    write_review(review, folder)
    stats = {
        "steps": [asdict(step) for step in account.steps],
        "cautions": account.cautions,
        "shares": [
            asdict(s) for s in shares(account.rows, account.rows.column("split"), config.mix)
        ],
        "samples": _samples(account.rejected, config),
        "review": [asdict(item) for item in review[:_REVIEW_SAMPLES]],
        "num_review": dict(Counter(item.kind for item in review)),
    }
    text = json.dumps(stats, ensure_ascii=False, indent=1)
    (folder / "stats.json").write_text(text, encoding="utf-8")
    (folder / PROFILE).write_text(profile(account.rows).model_dump_json(), encoding="utf-8")


def _none(rows: Rows) -> pa.Table:
    table = rows.table.slice(0, 0)
    for name in ("check", "reason", "detail"):
        table = table.append_column(name, pa.array([], pa.string()))
    return table


def _samples(rejected: Sequence[pa.Table], config: CleanConfig) -> list[dict[str, str]]:
    """A few rejected rows by reason for the report, redacted: rejected rows hold raw text."""
    chosen: list[dict[str, str]] = []
    taken: Counter[str] = Counter()
    for table in rejected:
        rows = Rows(table)
        for index, reason in enumerate(table.column("reason").to_pylist()):
            if taken[reason] >= _SAMPLES_PER_REASON:
                continue
            taken[reason] += 1
            detail = rows.column("detail")[index].as_py()
            text = rows.prompts[index].as_py()
            chosen.append(
                {"reason": reason, "where": rows.place(index), "detail": detail, "text": text}
            )
    if config.pii.enabled:
        texts = [sample[name] for sample in chosen for name in ("detail", "text")]
        safe = iter(redact_texts(texts, config.pii, Counter()))
        chosen = [sample | {"detail": next(safe), "text": next(safe)} for sample in chosen]
    # Cut after redaction: half a mail address is not recognised as one.
    return [
        sample | {name: sample[name][:_SAMPLE_CHARACTERS] for name in ("detail", "text")}
        for sample in chosen
    ]
