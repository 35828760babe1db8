"""The weekly run: raw examples in, a promoted model out, or the reasons why not.

Started by its schedule, by hand from the Prefect UI, or by ``make run``.
"""

from __future__ import annotations

from prefect import flow

from flows.approval import approved
from flows.canary import watch_soon
from flows.config import RetrainConfig
from flows.preview import preview
from flows.record import lineage_of, record_crash, record_failure, run_info, run_name
from flows.sealed import confirmed
from tasks.artifacts import Contestant
from tasks.base_model import pin
from tasks.clean.task import clean, measure_drift
from tasks.evaluate.task import (
    choose_shots,
    collect_general,
    compare_answers,
    evaluate,
    generate_answers,
    measure_general,
)
from tasks.evidence import RunSummary
from tasks.format.task import format_dataset
from tasks.gate.task import gate
from tasks.ingest.task import find_sources, ingest, lock_golden
from tasks.registry.task import find_champion, heed_withdrawals, promote
from tasks.report.summary import RunRecords
from tasks.report.task import report
from tasks.serve.task import record_parity
from tasks.stage import one_at_a_time
from tasks.train.task import train


@flow(
    name="retrain",
    flow_run_name=run_name,
    result_storage="s3-bucket/retune",
    result_serializer="json",
    persist_result=True,
    task_runner=one_at_a_time(),  # trainings of a sweep share one machine
    on_failure=[record_failure],
    on_crashed=[record_crash],
    on_cancellation=[record_crash],
)
def retrain(config: RetrainConfig, dry_run: bool = False) -> RunSummary:
    """Clean the data, fine-tune on it, and promote the result only on evidence.

    Args:
        config: Everything that decides the run.
        dry_run: Prepare the data, say what a run would take and cost, and train nothing.
    """
    base_model = pin(config.base_model)

    sources = find_sources(config.ingest, config.golden)
    raw = ingest(sources.rows, config.ingest, config.task)
    golden = lock_golden(sources.golden, config.golden, config.task, config.name)
    dataset = clean(raw, golden, base_model, config.clean, config.task)
    drift = measure_drift(dataset, config.name)
    formatted = format_dataset(dataset, base_model, config.format)
    if dry_run:
        return preview(dataset, golden, formatted, config)
    adapter = train(formatted, config.train, config.task, config.name)

    champion = find_champion(config.name)
    shots = choose_shots(dataset, golden, config.evaluate.few_shot)
    suite = collect_general(dataset, config.evaluate.general)
    reports = {}
    for contestant in Contestant.of(
        base_model, shots, champion, adapter, config.evaluate.reference
    ):
        answers = generate_answers(contestant, golden, config.evaluate.decoding)
        beside = measure_general(contestant.weights, suite, config.evaluate.decoding)
        reports[contestant.role] = evaluate(
            contestant, answers, beside, config.evaluate, config.task
        )

    comparison = compare_answers(reports, config.evaluate)
    decision = heed_withdrawals(gate(reports, comparison, config.gate), config.name)

    records = RunRecords(
        raw=raw,
        dataset=dataset,
        drift=drift,
        golden=golden,
        formatted=formatted,
        adapter=adapter,
        reports=reports,
        comparison=comparison,
        decision=decision,
        model=champion,
        lineage=lineage_of(sources, dataset, config),
    )
    records = approved(confirmed(records, config), config)
    if records.decision.promotes:
        parity = record_parity(formatted, adapter, config.serve)
        canary = config.canary.terms()
        records = records.promoted(
            promote(adapter, records.decision, records.lineage, parity, canary, config.name)
        )
        watch_soon(records.decision)
    return report(run_info(config), records, config.gate.primary, config.report, config.to_yaml())
