"""A challenger on live traffic: promoted when it is shown to be better, out when it does harm.

Started by its schedule, every quarter of an hour, and by a run whose candidate goes on trial.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from prefect import flow
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.config import WatchConfig
from tasks.evidence import GateDecision
from tasks.registry.task import settle
from tasks.report.task import report_canary
from tasks.serve.task import watch_challengers
from tasks.trial import Verdict

logger = logging.getLogger(__name__)
_DEPLOYMENT = "canary/canary-watch"


def run_name() -> str:
    """When: ``canary watch 2026-01-05 03:00``."""
    return f"canary watch {flow_run.get_scheduled_start_time():%Y-%m-%d %H:%M}"


@flow(name="canary", flow_run_name=run_name)
def canary(config: WatchConfig) -> list[Verdict]:
    """Watch every challenger on live traffic, and do what its trial shows."""
    until = datetime.now(UTC) + timedelta(minutes=config.minutes)
    settled = []
    while verdicts := watch_challengers(until):
        settled += [
            report_canary(settle(verdict), str(flow_run.get_id()), config.notify)
            for verdict in verdicts
        ]
        if datetime.now(UTC) >= until:
            break
    return settled


def watch_soon(decision: GateDecision) -> None:
    """Have a challenger watched from its first request on."""
    if decision.outcome != "canary":
        return
    try:
        run_deployment(_DEPLOYMENT, timeout=0, as_subflow=False)
    except ObjectNotFound:
        logger.warning("There is no deployment %s: run `make up`, or watch by hand.", _DEPLOYMENT)
