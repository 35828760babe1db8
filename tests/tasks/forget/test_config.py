"""Where identifiers may come from, and that no error repeats them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tasks.errors import ConfigError, MissingFileError
from tasks.forget.config import ForgetConfig


def test_all_places_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "who.txt").write_text("\ufeffanna@example.org\n\n Anna Smith \r\n")
    monkeypatch.setenv("WHO", "0170 1234567")
    config = ForgetConfig(
        reason="ticket 5",
        identifiers_file=str(tmp_path / "who.txt"),
        identifiers_variable="WHO",
        identifiers=("a",),
        texts=("b c",),
    )
    assert config.wanted() == ["a", "b c", "anna@example.org", "Anna Smith", "0170 1234567"]


def test_ids_alone_are_enough() -> None:
    assert ForgetConfig(reason="r", example_ids=("x",)).wanted() == []


def test_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "who.txt").write_text("\n")
    with pytest.raises(ConfigError, match="Nothing to forget"):
        ForgetConfig(reason="r", identifiers_file=str(tmp_path / "who.txt")).wanted()


def test_erase_needs_apply() -> None:
    with pytest.raises(ConfigError, match="`erase` without `apply`"):
        ForgetConfig(reason="r", identifiers=("a",), erase=True).wanted()


def test_what_is_not_on_the_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such file on this worker"):
        ForgetConfig(reason="r", identifiers_file=str(tmp_path / "no")).wanted()
    with pytest.raises(ConfigError, match="NO_SUCH: not set on this worker"):
        ForgetConfig(reason="r", identifiers_variable="NO_SUCH").wanted()
    (tmp_path / "latin").write_bytes(b"J\xf6rg")
    with pytest.raises(ConfigError, match="expected UTF-8"):
        ForgetConfig(reason="r", identifiers_file=str(tmp_path / "latin")).wanted()


def test_a_wrong_field_does_not_repeat_the_identifier() -> None:
    with pytest.raises(ValidationError) as refused:
        ForgetConfig.model_validate({"identifiers": "anna@example.org", "reason": ""})
    assert "anna" not in str(refused.value)
