"""The stages ``generate`` and ``evaluate`` as Prefect sees them, once a contestant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from prefect.runtime import flow_run

from tasks.artifacts import Answers, Contestant, EvalReport, GoldenSet, TaskConfig
from tasks.evaluate.answers import Answer
from tasks.evaluate.config import DecodingConfig, EvaluateConfig
from tasks.example import Example, from_table
from tasks.looks import log_look
from tasks.objects import Store, open_store
from tasks.openai_client import load_hosted, make_client
from tasks.scores import to_columns
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


def _role(arguments: Mapping[str, Any]) -> str:
    contestant: Contestant = arguments["contestant"]
    return contestant.role


def _judge_state(arguments: Mapping[str, Any]) -> str:
    config: EvaluateConfig = arguments["config"]
    return config.judge.state(os.environ)


@stage(
    "generate",
    timeout_seconds=12 * 3600,
    libraries=("torch", "transformers", "peft"),
    subject=_role,
)
def generate_answers(contestant: Contestant, golden: GoldenSet, config: DecodingConfig) -> Answers:
    """Let a contestant answer the golden rows; the look at them is logged."""
    store = open_store()
    rows = from_table(pq.read_table(fetch(store, golden.uri, golden.digest) / "examples.parquet"))
    adapter = _adapter_folder(store, contestant)
    log_look(store, golden, contestant, flow_run.get_id())
    answers, tokens_per_second = _answers(rows, contestant, adapter, config)
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


def _answers(
    rows: list[Example], contestant: Contestant, folder: Path | None, config: DecodingConfig
) -> tuple[list[Answer], float]:
    """By the model's weights, or by the API that keeps them; and the tokens a second."""
    hosted = load_hosted(folder) if folder is not None else None
    if hosted is not None:
        from tasks.evaluate.hosted import answer_hosted

        with make_client(hosted.base_url, os.environ) as client:
            return answer_hosted(rows, hosted.model_id, client, config.max_new_tokens)
    from tasks.evaluate.generate import generate  # torch, only where weights are run

    return generate(rows, contestant.base_model, folder, config)


def _adapter_folder(store: Store, contestant: Contestant) -> Path | None:
    if contestant.adapter_uri is None or contestant.adapter_artifact_digest is None:
        return None
    return fetch(store, contestant.adapter_uri, contestant.adapter_artifact_digest)
