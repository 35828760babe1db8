"""The stages of an evaluation as Prefect sees them; most run once a contestant."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
from prefect.runtime import flow_run

from tasks.artifacts import (
    Answers,
    CleanDataset,
    Contestant,
    GeneralScores,
    GeneralSuite,
    GoldenSet,
    Role,
    ShotSet,
    TaskConfig,
    serving_role,
)
from tasks.evaluate import general, stored
from tasks.evaluate.answering import answer, score_general
from tasks.evaluate.config import (
    DecodingConfig,
    EngineConfig,
    EvaluateConfig,
    FewShotConfig,
    GeneralConfig,
)
from tasks.evaluate.engines import precision
from tasks.evaluate.known import KnownAnswers
from tasks.evaluate.shots import choose, usable
from tasks.evidence import Comparison, EvalReport
from tasks.example import Example
from tasks.golden_rows import golden_rows
from tasks.looks import log_look
from tasks.objects import Store, open_store
from tasks.scores import from_columns, to_columns
from tasks.stage import stage
from tasks.storage import commit, fetch, scratch


def _role(arguments: Mapping[str, Any]) -> str:
    contestant: Contestant = arguments["contestant"]
    golden: GoldenSet | None = arguments.get("golden")
    return f"{contestant.role}, sealed" if golden and golden.part == "sealed" else contestant.role


def _server(arguments: Mapping[str, Any]) -> str | None:
    """The version of the vLLM server that answers, where one does."""
    engine: EngineConfig = arguments["config"].engine
    if engine.name != "vllm":
        return None
    from tasks.evaluate.vllm import version

    return version(engine.base_url)


def _judge_state(arguments: Mapping[str, Any]) -> str:
    config: EvaluateConfig = arguments["config"]
    return config.judge.state(os.environ)


def _surroundings(arguments: Mapping[str, Any]) -> object:
    """What decides the scores besides: the judge, its last calibration, a team's own metrics."""
    from tasks.evaluate.calibration import last_calibration
    from tasks.evaluate.chosen import own_metrics_digest

    config: EvaluateConfig = arguments["config"]
    last = last_calibration(open_store(), config.judge)
    calibration = last and last.model_dump(mode="json")
    return [_judge_state(arguments), calibration, own_metrics_digest(config)]


@stage("choose_shots", timeout_seconds=4 * 3600, libraries=("torch", "transformers"))
def choose_shots(dataset: CleanDataset, golden: GoldenSet, config: FewShotConfig) -> ShotSet:
    """Choose the training rows that the base model is shown before each golden row."""
    from tasks.embeddings import embed  # torch

    store = open_store()
    pool: list[Example] = []
    if config.num_examples:
        pool = usable(stored.rows_by_split(store, dataset, "train"), config.max_pool)
    chosen = choose(
        golden_rows(store, golden),
        pool,
        config.num_examples,
        lambda texts: embed(texts, config.embedding),
    )
    with scratch() as folder:
        stored.write_shots(chosen, folder)
        uri, digest = commit(store, "shots", folder)
    return ShotSet(
        uri=uri,
        digest=digest,
        num_in=len(pool),
        num_out=len({example.id for shots in chosen for example in shots.examples}),
        num_examples=max((len(shots.examples) for shots in chosen), default=0),
    )


@stage("collect_general", timeout_seconds=1800, depends=lambda _: general.shipped_digest())
def collect_general(dataset: CleanDataset, config: GeneralConfig) -> GeneralSuite:
    """Collect what is asked beside the task: nothing of it stands in the training data."""
    store = open_store()
    suite: list[general.Item] = []
    num_left_out = 0
    if config.enabled:
        held_out = stored.rows_by_split(store, dataset, "test")
        trained = stored.rows_by_split(store, dataset, "train", "validation")
        suite, num_left_out = general.collect(
            general.shipped(), held_out, trained, config.max_held_out
        )
    with scratch() as folder:
        pq.write_table(general.to_table(suite), folder / "suite.parquet")
        uri, digest = commit(store, "general", folder)
    return GeneralSuite(
        uri=uri,
        digest=digest,
        num_in=len(suite) + num_left_out,
        num_out=len(suite),
        num_left_out=num_left_out,
    )


@stage(
    "generate",
    timeout_seconds=12 * 3600,
    libraries=("torch", "transformers", "peft"),
    device="gpu",
    subject=_role,
    depends=_server,
)
def generate_answers(contestant: Contestant, golden: GoldenSet, config: DecodingConfig) -> Answers:
    """Let a contestant answer the golden rows; the look at them is logged."""
    store = open_store()
    rows = golden_rows(store, golden)
    adapter = stored.adapter_folder(store, contestant)
    shots = stored.read_shots(store, contestant.shots)
    log_look(store, golden, contestant, flow_run.get_id())
    known = known_answers(store, contestant, config)
    answers, tokens_per_second = answer(rows, contestant, adapter, config, shots, known)
    with scratch() as folder:
        stored.write_answers(answers, folder)
        uri, digest = commit(store, "answers", folder)
    return Answers(
        uri=uri,
        digest=digest,
        num_in=len(rows),
        num_out=len(answers),
        adapter_digest=contestant.adapter_digest,
        tokens_per_second=tokens_per_second,
    )


def known_answers(store: Store, contestant: Contestant, config: DecodingConfig) -> KnownAnswers:
    """What the contestant's weights answered in earlier runs, killed ones too."""
    decides = DecodingConfig(
        max_new_tokens=config.max_new_tokens, dtype=precision(config), engine=config.engine
    )
    made_by = generate_answers.cache_key({"contestant": contestant.weights, "config": decides})
    return KnownAnswers(store, made_by)


@stage(
    "measure_general",
    timeout_seconds=4 * 3600,
    libraries=("torch", "transformers", "peft"),
    device="gpu",
    subject=_role,
)
def measure_general(
    contestant: Contestant, suite: GeneralSuite, config: DecodingConfig
) -> GeneralScores:
    """Measure what a model can do beside its task, by how likely it finds what stands there."""
    store = open_store()
    table = pq.read_table(fetch(store, suite.uri, suite.digest) / "suite.parquet")
    items = general.from_table(table)
    scores, unmeasured = score_general(
        items, contestant, stored.adapter_folder(store, contestant), config
    )
    with scratch() as folder:
        pq.write_table(to_columns([i.id for i in items], scores), folder / "scores.parquet")
        uri, digest = commit(store, "general-scores", folder)
    return GeneralScores(
        uri=uri,
        digest=digest,
        num_in=len(items),
        num_out=0 if unmeasured else len(items),
        adapter_digest=contestant.adapter_digest,
        unmeasured=unmeasured,
    )


@stage(
    "evaluate",
    timeout_seconds=4 * 3600,
    libraries=("evaluate", "rouge-score", "sacrebleu", "scikit-learn", "scipy", "anthropic"),
    subject=_role,
    depends=_surroundings,
)
def evaluate(
    contestant: Contestant,
    answers: Answers,
    beside: GeneralScores | None,
    config: EvaluateConfig,
    task: TaskConfig,
) -> EvalReport:
    """Score a contestant's answers: each metric with its interval, the judge where configured.

    The scores ``beside`` the task join them, where they were taken.
    """
    from tasks.evaluate.calibration import last_calibration
    from tasks.evaluate.scoring import score, summarise

    store = open_store()
    given = stored.read_answers(store, answers)
    golden_ids = tuple(a.id for a in given)
    scores, unmeasured, usd = score(given, config, task, store)
    scores = {name: replace(s, ids=s.ids or golden_ids) for name, s in scores.items()}
    other_ids: tuple[str, ...] = ()
    if beside is not None:
        known = pq.read_table(fetch(store, beside.uri, beside.digest) / "scores.parquet")
        other_ids, other_scores = from_columns(known)
        scores |= other_scores
    if beside is None or beside.unmeasured:
        why = beside.unmeasured if beside and beside.unmeasured else general.NOT_ASKED
        unmeasured |= dict.fromkeys(general.METRICS, why)
    with scratch() as folder:
        pq.write_table(to_columns([*golden_ids, *other_ids], scores), folder / "scores.parquet")
        uri, digest = commit(store, "evaluate", folder)
    return EvalReport(
        uri=uri,
        digest=digest,
        num_in=len(given),
        num_out=len(given),
        answers=answers,
        adapter_digest=contestant.adapter_digest,
        metrics=summarise(scores, config),
        unmeasured=unmeasured,
        calibration=last_calibration(store, config.judge),
        judge_usd=usd,
    )


@stage(
    "compare",
    timeout_seconds=4 * 3600,
    libraries=("scipy", "anthropic"),
    depends=_judge_state,
)
def compare_answers(reports: dict[Role, EvalReport], config: EvaluateConfig) -> Comparison:
    """Let the judge say whose answers are better: the candidate's, or those of what serves now."""
    from tasks.evaluate.preference import metric_scores
    from tasks.evaluate.scoring import compare, summarise

    store = open_store()
    roles: tuple[Role, Role] = ("candidate", serving_role(reports))
    ours, theirs = (stored.read_answers(store, reports[role].answers) for role in roles)
    found = compare(ours, theirs, config.judge, store)
    ids = [a.id for a in ours]
    sides = metric_scores(found, ids) or ()
    scores = {role: {s.metric: s} for role, s in zip(roles, sides, strict=False)}
    with scratch() as folder:
        for role in roles:
            pq.write_table(to_columns(ids, scores.get(role, {})), folder / f"{role}.parquet")
        uri, digest = commit(store, "compare", folder)
    return Comparison(
        uri=uri,
        digest=digest,
        num_in=len(ids),
        num_out=len(found.shares),
        roles=roles,
        metrics={role: summarise(s, config) for role, s in scores.items()},
        num_asked=found.num_asked,
        num_contradicted=found.num_contradicted,
        num_first=found.num_first,
        spent_usd=found.spent_usd,
        unmeasured=None if found.status == "run" else found.status,
    )
