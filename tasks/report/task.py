"""The stage ``report`` as Prefect sees it, and what is written for a run that failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.blocks.core import Block

from tasks.evidence import Foreseen, Rollback, RunSummary
from tasks.looks import count_looks, wear
from tasks.objects import Store, open_store
from tasks.report.answers import ScoredAnswer
from tasks.report.config import NotifyConfig, ReportConfig
from tasks.report.html import render_page
from tasks.report.markdown import markdown
from tasks.report.notice import Notice, notice_of, notice_of_rollback, notice_of_trial
from tasks.report.story import Story
from tasks.report.summary import (
    RunInfo,
    RunRecords,
    merge_stages,
    summarise,
    summarise_failure,
)
from tasks.report.training_log import training_facts
from tasks.report.wording import headline
from tasks.stage import stage
from tasks.trial import Verdict

logger = logging.getLogger(__name__)


@stage("report", timeout_seconds=900, cached=False)
def report(
    info: RunInfo, records: RunRecords, primary: str, config: ReportConfig, config_yaml: str
) -> RunSummary:
    """Tell the run's story: summary.json and one page, here, in S3, in MLflow and in Prefect."""
    from tasks.report.gather import (
        gather,
        gather_slices,
        scored_answers,
        share_of_reference,
    )

    store = open_store()
    slices, more = gather_slices(store, records, primary, config)
    story = gather(store, records, primary, config, config_yaml)
    story = replace(story, num_more_slices=more)
    training = training_facts(story.training) if story.training else {}
    summary = summarise(info, records)
    parts = {"golden_wear": records.golden, "sealed_wear": records.golden.sealed}
    worn = {
        name: sentence
        for name, part in parts.items()
        if (sentence := wear(count_looks(store, part), part, config.max_models))
    }
    cautions = summary.cautions | worn
    summary = summary.model_copy(
        update={
            "training": training,
            "cautions": cautions,
            "slices": slices,
            "share_of_reference": share_of_reference(store, records, primary),
        }
    )
    return _publish(summary, story, config.notify, scored_answers(store, records, primary))


@stage("preview", timeout_seconds=600, cached=False)
def report_preview(info: RunInfo, calls: Sequence[Foreseen]) -> RunSummary:
    """Tell what a run would do: summary.json here and in S3, and a page in Prefect."""
    from tasks.report import preview, publish

    calls = preview.timed(calls, publish.past(info.name))
    summary = RunSummary(
        flow_run_id=info.flow_run_id,
        flow_run_name=info.flow_run_name,
        name=info.name,
        status="dry_run",
        decision=None,
        sentence=preview.sentence(calls),
        reasons=[],
        stages=merge_stages(info.stages),
        foreseen=calls,
        seconds=round(info.seconds, 1),
    )
    publish.preview_to_folder(summary)
    publish.preview_to_store(open_store(), summary)
    told = preview.markdown(info.name, summary.sentence, calls)
    create_markdown_artifact(told, key=f"preview-{info.name}".lower())
    logger.info("preview: %s", summary.sentence)
    return summary


@stage("report_rollback", timeout_seconds=300, cached=False)
def report_rollback(done: Rollback, flow_run_id: str, notify: NotifyConfig) -> Rollback:
    """Tell what was done: rollback.json here and in S3, a note in Prefect, a message to people."""
    from tasks.report import publish

    store, body = open_store(), done.model_dump_json(indent=1)
    folder = publish.local_runs() / flow_run_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rollback.json").write_text(body, encoding="utf-8")
    store.put_bytes(f"runs/{flow_run_id}/rollback.json", body.encode())
    address = publish.version_address(done.model, done.champion)
    told = f"{done.sentence}\n\n[Version {done.champion}]({address})"
    create_markdown_artifact(told, key=f"rollback-{done.model}".lower())
    logger.info("rollback: %s", done.sentence)
    _tell(flow_run_id, notice_of_rollback(done, address), notify, store)
    return done


@stage("report_canary", timeout_seconds=300, cached=False)
def report_canary(verdict: Verdict, flow_run_id: str, notify: NotifyConfig) -> Verdict:
    """Tell what a trial has shown: canary.json and a page here and in S3, a note in Prefect."""
    from tasks.report import canary, publish

    store, trial = open_store(), verdict.trial
    page = canary.render(verdict, datetime.now(UTC))
    prefix = f"canary/{trial.model}/{trial.challenger}"
    folder = publish.local_runs() / flow_run_id / prefix
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        publish.REPORT: page,
        "canary.json": verdict.model_dump_json(indent=1),
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
        store.put_bytes(f"runs/{flow_run_id}/{prefix}/{name}", text.encode())
    create_markdown_artifact(canary.markdown(verdict), key=f"canary-{trial.model}".lower())
    logger.info("canary: %s The page: %s", verdict.sentence, folder / publish.REPORT)
    if verdict.outcome != "watch":
        address = publish.version_address(trial.model, trial.challenger)
        _tell(flow_run_id, notice_of_trial(verdict, address), notify, store)
    return verdict


def report_failure(
    info: RunInfo, reason: str, config_yaml: str, notify: NotifyConfig, *, crashed: bool
) -> None:
    """The same for a run that did not come to a decision, with what is known of it."""
    summary = summarise_failure(info, reason, crashed=crashed)
    _publish(summary, Story(config_yaml=config_yaml), notify)


def _publish(
    summary: RunSummary, story: Story, notify: NotifyConfig, answers: Sequence[ScoredAnswer] = ()
) -> RunSummary:
    from mlflow.tracking import MlflowClient

    from tasks.report import publish

    store = open_store()
    folder = publish.local_runs() / summary.flow_run_id
    summary = summary.model_copy(
        update={
            "report": str(folder / publish.REPORT),
            "report_uri": f"{store.root}/runs/{summary.flow_run_id}/{publish.REPORT}",
        }
    )
    page = render_page(summary, story, datetime.now(UTC))
    publish.to_folder(summary, page)
    publish.to_store(store, summary, page)
    address = publish.to_mlflow(MlflowClient(), summary, folder, answers)
    key, word = f"report-{summary.name}".lower(), headline(summary).word.capitalize()
    create_markdown_artifact(
        markdown(summary), key=f"decision-{summary.name}".lower(), description=f"{word}, and why"
    )
    create_link_artifact(
        address, link_text="The whole report", key=key, description="One page, kept in MLflow"
    )
    _tell(summary.flow_run_id, notice_of(summary, address), notify, store)
    return summary


def _tell(flow_run_id: str, notice: Notice, config: NotifyConfig, store: Store) -> None:
    """Send the notice to each block, once a run; what cannot be sent is told in the log."""
    if notice.occasion not in config.on:
        return
    for name in config.blocks:
        key = f"runs/{flow_run_id}/notices/{notice.occasion}/{name}"
        if store.size(key) is not None:
            continue  # sent before the run was suspended, or tried again
        try:
            block: Any = Block.load(name)
            block.notify(notice.body, notice.subject)
        except Exception as error:  # noqa: BLE001 - a message that is lost undoes no decision
            # Not what it says: it may hold the block's address, which is a secret.
            logger.warning("report: %s was not told: %s", name, type(error).__name__)
        else:
            store.put_bytes(key, b"")
