"""The stages ``generate`` and ``evaluate`` as Prefect sees them, once a contestant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from prefect.runtime import flow_run

from tasks.artifacts import (
    Answers,
    CleanDataset,
    Contestant,
    EvalReport,
    GoldenSet,
    ShotSet,
    TaskConfig,
)
from tasks.evaluate.answers import Answer
from tasks.evaluate.config import DecodingConfig, EvaluateConfig, FewShotConfig
from tasks.evaluate.shots import Shots, choose, usable
from tasks.example import Example, from_table, to_table
from tasks.looks import log_look
from tasks.objects import Store, open_store
from tasks.openai_client import load_hosted, make_client
from tasks.scores import to_columns
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch

_SHOTS = pa.schema([("id", pa.string()), ("examples", pa.list_(pa.string()))])


def _role(arguments: Mapping[str, Any]) -> str:
    contestant: Contestant = arguments["contestant"]
    return contestant.role


def _judge_state(arguments: Mapping[str, Any]) -> str:
    config: EvaluateConfig = arguments["config"]
    return config.judge.state(os.environ)


@stage("choose_shots", timeout_seconds=4 * 3600, libraries=("torch", "transformers"))
def choose_shots(dataset: CleanDataset, golden: GoldenSet, config: FewShotConfig) -> ShotSet:
    """Choose the training rows that the base model is shown before each golden row."""
    from tasks.embeddings import embed  # torch

    store = open_store()
    questions = _examples(fetch(store, golden.uri, golden.digest))
    pool: list[Example] = []
    if config.num_examples:
        table = pq.read_table(fetch(store, dataset.uri, dataset.digest) / "examples.parquet")
        pool = usable(from_table(table.filter(pc.field("split") == "train")), config.max_pool)
    chosen = choose(
        questions, pool, config.num_examples, lambda texts: embed(texts, config.embedding)
    )
    with scratch() as folder:
        _write_shots(chosen, folder)
        uri, digest = commit(store, "shots", folder)
    return ShotSet(
        uri=uri,
        digest=digest,
        num_in=len(pool),
        num_out=len({example.id for shots in chosen for example in shots.examples}),
        num_examples=max((len(shots.examples) for shots in chosen), default=0),
    )


@stage(
    "generate",
    timeout_seconds=12 * 3600,
    libraries=("torch", "transformers", "peft"),
    subject=_role,
)
def generate_answers(contestant: Contestant, golden: GoldenSet, config: DecodingConfig) -> Answers:
    """Let a contestant answer the golden rows; the look at them is logged."""
    store = open_store()
    rows = _examples(fetch(store, golden.uri, golden.digest))
    adapter = _adapter_folder(store, contestant)
    shots = _read_shots(store, contestant.shots)
    log_look(store, golden, contestant, flow_run.get_id())
    answers, tokens_per_second = _answers(rows, contestant, adapter, config, shots)
    with scratch() as folder:
        pq.write_table(
            pa.Table.from_pylist([asdict(a) for a in answers]), folder / "answers.parquet"
        )
        uri, digest = commit(store, "answers", folder)
    return Answers(
        uri=uri,
        digest=digest,
        num_in=len(rows),
        num_out=len(answers),
        adapter_digest=contestant.adapter_digest,
        tokens_per_second=tokens_per_second,
    )


@stage(
    "evaluate",
    timeout_seconds=4 * 3600,
    libraries=("evaluate", "rouge-score", "sacrebleu", "scikit-learn", "scipy", "anthropic"),
    subject=_role,
    depends=_judge_state,
)
def evaluate(
    contestant: Contestant, answers: Answers, config: EvaluateConfig, task: TaskConfig
) -> EvalReport:
    """Score a contestant's answers: each metric with its interval, the judge where configured."""
    from tasks.evaluate.scoring import score, summarise

    store = open_store()
    table = pq.read_table(fetch(store, answers.uri, answers.digest) / "answers.parquet")
    given = [Answer(**row) for row in table.to_pylist()]
    scores, judge = score(given, config, task)
    with scratch() as folder:
        pq.write_table(to_columns([a.id for a in given], scores), folder / "scores.parquet")
        uri, digest = commit(store, "evaluate", folder)
    return EvalReport(
        uri=uri,
        digest=digest,
        num_in=len(given),
        num_out=len(given),
        answers=answers,
        adapter_digest=contestant.adapter_digest,
        metrics=summarise(scores, config),
        judge=judge,
    )


def _examples(folder: Path) -> list[Example]:
    return from_table(pq.read_table(folder / "examples.parquet"))


def _write_shots(chosen: list[Shots], folder: Path) -> None:
    distinct = {example.id: example for shots in chosen for example in shots.examples}
    pq.write_table(to_table(distinct.values()), folder / "examples.parquet")
    named = [{"id": shots.id, "examples": [e.id for e in shots.examples]} for shots in chosen]
    pq.write_table(pa.Table.from_pylist(named, schema=_SHOTS), folder / "shots.parquet")


def _read_shots(store: Store, shots: ShotSet | None) -> dict[str, list[Example]] | None:
    if shots is None:
        return None
    folder = fetch(store, shots.uri, shots.digest)
    known = {example.id: example for example in _examples(folder)}
    named = pq.read_table(folder / "shots.parquet").to_pylist()
    return {row["id"]: [known[identity] for identity in row["examples"]] for row in named}


def _answers(
    rows: list[Example],
    contestant: Contestant,
    folder: Path | None,
    config: DecodingConfig,
    shots: Mapping[str, Sequence[Example]] | None,
) -> tuple[list[Answer], float]:
    """By the model's weights, or by the API that keeps them; and the tokens a second."""
    hosted = load_hosted(folder) if folder is not None else None
    if hosted is not None:
        from tasks.evaluate.hosted import answer_hosted

        with make_client(hosted.base_url, os.environ) as client:
            return answer_hosted(rows, hosted.model_id, client, config.max_new_tokens)
    from tasks.evaluate.generate import generate  # torch, only where weights are run

    return generate(rows, contestant.base_model, folder, config, shots)


def _adapter_folder(store: Store, contestant: Contestant) -> Path | None:
    if contestant.adapter_uri is None or contestant.adapter_artifact_digest is None:
        return None
    return fetch(store, contestant.adapter_uri, contestant.adapter_artifact_digest)
