"""Undo a promotion: an earlier version serves again, and the one it takes over from stays out.

Started by ``make rollback``, or by hand from the Prefect UI.
"""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.config import RollbackConfig
from tasks.evidence import Rollback
from tasks.registry.task import restore
from tasks.report.task import report_rollback


def run_name() -> str:
    """Which model, and when: ``rollback tickets 2026-01-05 03:00``."""
    config = (flow_run.get_parameters() or {}).get("config")
    name = config.name if isinstance(config, RollbackConfig) else (config or {}).get("name", "?")
    return f"rollback {name} {flow_run.get_scheduled_start_time():%Y-%m-%d %H:%M}"


@flow(name="rollback", flow_run_name=run_name)
def rollback(config: RollbackConfig) -> Rollback:
    """Make an earlier version champion again, for a reason that is kept."""
    done = restore(config.name, config.to, config.by, config.reason, config.readmit)
    return report_rollback(done, str(flow_run.get_id()), config.notify)
