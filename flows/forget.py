"""Forget a person, a text or examples: look everywhere, and only with ``apply`` change anything.

Started by hand, from the Prefect UI or by ``make forget``.
"""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from tasks.forget.config import ForgetConfig
from tasks.forget.records import Forgotten
from tasks.forget.task import bury, record, seen, trace


def run_name() -> str:
    """When it was to start; not the reason, which is checked only once the run is on."""
    return f"forget {flow_run.get_scheduled_start_time():%Y-%m-%d %H:%M}"


@flow(name="forget", flow_run_name=run_name)
def forget(config: ForgetConfig) -> Forgotten:
    """Find what holds it; with ``apply``, keep it out of every later run."""
    traces = trace(config)
    done = bury(config, traces) if config.apply else seen(config, traces)
    return record(done, str(flow_run.get_id()))
