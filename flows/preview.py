"""A dry run: what a run would do, how long it would take, and what it would cost.

The data is prepared, as a run would, and is found prepared by the next one. Nothing is trained, no
answer is generated, and nobody is paid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from flows.config import RetrainConfig
from flows.record import run_info
from tasks.artifacts import (
    Artifact,
    CleanDataset,
    Contestant,
    FormattedDataset,
    GeneralSuite,
    GoldenSet,
    Role,
)
from tasks.evaluate.task import (
    choose_shots,
    collect_general,
    compare_answers,
    evaluate,
    generate_answers,
    known_answers,
    measure_general,
)
from tasks.evidence import EvalReport, Foreseen, RunSummary
from tasks.objects import open_store
from tasks.registry.task import find_champion
from tasks.report.task import report_preview
from tasks.train.task import foresee_training, train


def preview(
    dataset: CleanDataset, golden: GoldenSet, formatted: FormattedDataset, config: RetrainConfig
) -> RunSummary:
    """Ask each stage that costs something whether its result is kept, and if not, what it takes."""
    calls = foresee_training(formatted, config.train, config.task, config.name)
    is_trained = all(call.cached for call in calls)
    adapter = train(formatted, config.train, config.task, config.name) if is_trained else None
    champion = find_champion(config.name)
    shots = choose_shots(dataset, golden, config.evaluate.few_shot)
    suite = collect_general(dataset, config.evaluate.general)
    contestants = Contestant.of(
        formatted.base_model, shots, champion, adapter, config.evaluate.reference
    )
    reports: dict[Role, EvalReport] = {}
    for contestant in contestants:
        known = _evaluation(contestant, golden, suite, config, calls)
        if known is not None:
            reports[contestant.role] = known
    if adapter is None:
        calls += _of_untrained(golden, suite, config)
    if config.evaluate.judge.pairwise and _judge_runs(config):
        calls.append(_comparison(reports, len(contestants), golden, config))
    return report_preview(run_info(config), calls)


def _evaluation(
    contestant: Contestant,
    golden: GoldenSet,
    suite: GeneralSuite,
    config: RetrainConfig,
    calls: list[Foreseen],
) -> EvalReport | None:
    """Its three calls, added to ``calls``; the report, where it is kept."""
    settings, role = config.evaluate, contestant.role
    answers = generate_answers.known(contestant, golden, settings.decoding)
    detail, pays = "", None
    if answers is None:
        kept = len(known_answers(open_store(), contestant, settings.decoding).read())
        detail = f"{kept:,} answers of the {role} are kept from earlier runs" if kept else ""
        pays = None if contestant.reference is None else contestant.reference.model
    calls.append(_call("generate", role, answers, golden.num_out, detail=detail, pays=pays))
    beside = measure_general.known(contestant.weights, suite, settings.decoding)
    calls.append(_call("measure_general", role, beside, suite.num_out))
    scored = None
    if answers is not None and beside is not None:
        scored = evaluate.known(contestant, answers, beside, settings, config.task)
    calls.append(_call("evaluate", role, scored, golden.num_out, usd=_judge_usd(config)))
    return scored


def _comparison(
    reports: dict[Role, EvalReport],
    num_contestants: int,
    golden: GoldenSet,
    config: RetrainConfig,
) -> Foreseen:
    """Kept only for the reports of all: the judge has a budget of its own here."""
    complete = "candidate" in reports and len(reports) == num_contestants
    known = compare_answers.known(reports, config.evaluate) if complete else None
    return _call("compare", None, known, golden.num_out, usd=_judge_usd(config))


def _of_untrained(
    golden: GoldenSet, suite: GeneralSuite, config: RetrainConfig
) -> Iterator[Foreseen]:
    yield _call("generate", "candidate", None, golden.num_out)
    yield _call("measure_general", "candidate", None, suite.num_out)
    yield _call("evaluate", "candidate", None, golden.num_out, usd=_judge_usd(config))


def _call(
    stage: str,
    role: Role | None,
    known: Artifact | None,
    num_in: int,
    usd: float | None = None,
    detail: str = "",
    pays: str | None = None,
) -> Foreseen:
    return Foreseen(
        stage=stage,
        subject=role,
        cached=known is not None,
        num_in=num_in,
        usd=usd,
        pays=pays,
        detail=detail,
    )


def _judge_usd(config: RetrainConfig) -> float:
    """The most that the judge may spend on one contestant, or on comparing two."""
    return config.evaluate.judge.budget_usd if _judge_runs(config) else 0.0


def _judge_runs(config: RetrainConfig) -> bool:
    return config.evaluate.judge.state(os.environ) == "run"
