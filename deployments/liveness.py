"""Runs that died with their machine: a Prefect automation marks those that fell silent.

A run that is killed alone is marked by its worker within a second. Where the worker went with it
nobody would say so, and the run would keep its place in the queue: it is then marked Crashed when
its heartbeats stay away. It is not started again by itself: its next run finds what it finished.
"""

from __future__ import annotations

import os
from datetime import timedelta

from tasks.errors import ConfigError

_NAME = "crash-silent-runs"
# Of Prefect's guide "How to detect and respond to zombie flows", and what else ends a heartbeat: a
# run that waits for a person has no process, and is not dead.
_SIGNS = frozenset(
    f"prefect.flow-run.{sign}"
    for sign in ("heartbeat", "Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused")
)


def silence() -> timedelta:
    """How long a run may be silent: RETUNE_SILENT_MINUTES, by default 15.

    Generous: a process that compiles on busy cores says nothing for minutes, and lives.
    """
    given = os.environ.get("RETUNE_SILENT_MINUTES") or "15"
    try:
        minutes = float(given)
    except ValueError:
        minutes = 0
    heartbeat = float(os.environ["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    if minutes * 60 < 2 * heartbeat:
        raise ConfigError(
            f"RETUNE_SILENT_MINUTES={given}: expected a number of minutes of at least two "
            f"heartbeats of {heartbeat:g} s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."
        )
    return timedelta(minutes=minutes)


def watch(within: timedelta, name: str = _NAME) -> None:
    """Make the automation, or bring it up to date."""
    from prefect.automations import AutomationCore, EventTrigger, Posture
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.events import ResourceSpecification

    wanted = AutomationCore(
        name=name,
        description=f"Marks a run Crashed that gave no sign of life for {within}.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect=set(_SIGNS),
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"The run gave no sign of life for {within}: its machine may be gone.",
            )
        ],
    )
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(name)
        if not found:
            client.create_automation(wanted)
        for automation in found:  # whoever switched it off in the UI meant it
            kept = wanted.model_copy(update={"enabled": automation.enabled})
            client.update_automation(automation.id, kept)
