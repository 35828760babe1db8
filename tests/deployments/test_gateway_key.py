"""The command that makes API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.gateway_key import main
from tasks.serve.keys import Keys


def test_the_key_that_is_printed_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "keys"
    assert main([str(file), "shop"]) == 0
    assert main([str(file), "till", "2026-12-31"]) == 0
    shop, till = capsys.readouterr().out.split()
    keys = Keys(file)
    assert keys.owner(shop, datetime(2030, 1, 1, tzinfo=UTC)) == "shop"
    assert keys.owner(till, datetime(2026, 12, 30, 23, tzinfo=UTC)) == "till"
    assert keys.owner(till, datetime(2026, 12, 31, tzinfo=UTC)) is None


def test_what_is_wrong_is_said_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    assert main([str(file)]) == 2
    assert main([str(file), "a b"]) == 1
    assert main([str(file), "shop", "soon"]) == 1
    assert "'soon' is no time" in capsys.readouterr().err
    assert not file.exists()
