"""The stages ``clean`` and ``drift`` as Prefect sees them."""

from __future__ import annotations

from collections import Counter

import pyarrow.parquet as pq
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.artifacts import (
    BaseModelRef,
    CleanDataset,
    DriftReport,
    GoldenSet,
    RawSnapshot,
    TaskConfig,
)
from tasks.clean.config import CleanConfig
from tasks.clean.drift import Profile, compare, read_previous, write_latest
from tasks.clean.models import models_for
from tasks.clean.output import PROFILE, write
from tasks.clean.pipeline import clean_rows
from tasks.clean.rows import Rows
from tasks.objects import open_store
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


@stage(
    "clean",
    timeout_seconds=12 * 3600,
    libraries=(
        "cleanlab",
        "ftfy",
        "jsonschema",
        "numba",
        "presidio-analyzer",
        "py3langid",
        "scikit-learn",
        "spacy",
    ),
)
def clean(
    raw: RawSnapshot,
    golden: GoldenSet,
    base_model: BaseModelRef,
    config: CleanConfig,
    task: TaskConfig,
) -> CleanDataset:
    """Reject what cannot be trusted, redact what is private, split what is left by group."""
    store = open_store()
    rows = Rows(pq.read_table(fetch(store, raw.uri, raw.digest) / "examples.parquet"))
    held_out = fetch(store, golden.uri, golden.digest) / "examples.parquet"
    key = f"clean-{raw.digest[:12]}"
    progress = create_progress_artifact(0.0, key=key, description="Cleaning")
    account = clean_rows(
        rows,
        Rows(pq.read_table(held_out)),
        config,
        task,
        models_for(config, task, base_model, store),
        lambda share: update_progress_artifact(progress, 100 * share),  # type: ignore[arg-type]
    )
    with scratch() as folder:
        write(account, config, folder)
        uri, digest = commit(store, "clean", folder)
    sizes = Counter(account.rows.column("split").to_pylist())
    return CleanDataset(
        uri=uri,
        digest=digest,
        num_in=len(rows),
        num_out=len(account.rows),
        num_train=sizes["train"],
        num_validation=sizes["validation"],
        num_test=sizes["test"],
        num_holdout=sizes["holdout"],
        num_rejected=account.num_rejected,
        num_redacted=dict(next(s.bars for s in account.steps if s.name == "personal_data")),
        num_review=dict(Counter(item.kind for item in account.review)),
        cautions=account.cautions,
    )


@stage("drift", timeout_seconds=1800, libraries=("numpy",))
def measure_drift(dataset: CleanDataset, name: str) -> DriftReport:
    """Hold the aggregates of this week's rows against those of the week before."""
    store = open_store()
    text = (fetch(store, dataset.uri, dataset.digest) / PROFILE).read_text(encoding="utf-8")
    now = Profile.model_validate_json(text)
    drift = compare(read_previous(store, name, dataset.digest), now)
    write_latest(store, name, now, dataset.digest)
    with scratch() as folder:
        (folder / "drift.json").write_text(drift.model_dump_json(indent=1), encoding="utf-8")
        uri, digest = commit(store, "drift", folder)
    strong = [shift for shift in drift.shifts if shift.verdict == "strong"]
    return DriftReport(
        uri=uri,
        digest=digest,
        num_in=dataset.num_out,
        num_out=dataset.num_out,
        cautions={f"drift_{s.name}": f"Since the last snapshot: {s.detail}" for s in strong},
    )
