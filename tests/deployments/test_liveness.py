"""How long a run may be silent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deployments import liveness
from tasks.errors import ConfigError


def test_the_window_is_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    monkeypatch.delenv("RETUNE_SILENT_MINUTES", raising=False)
    assert liveness.silence() == timedelta(minutes=15)
    monkeypatch.setenv("RETUNE_SILENT_MINUTES", "2.5")
    assert liveness.silence() == timedelta(seconds=150)


@pytest.mark.parametrize("given", ["1", "soon", "-5"])
def test_one_too_short_for_heartbeats_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    monkeypatch.setenv("RETUNE_SILENT_MINUTES", given)
    with pytest.raises(ConfigError, match=f"RETUNE_SILENT_MINUTES={given}: expected"):
        liveness.silence()
