"""API keys and ids of requests: known without being kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.serve.config import GatewayConfig, read_config
from tasks.serve.keys import Keys, add
from tasks.serve.request_ids import RequestIds

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def test_a_key_is_known_until_it_expires(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    forever, a_day = add(file, "shop"), add(file, "shop", NOW + timedelta(days=1))
    keys = Keys(file)
    assert keys.owner(forever, NOW + timedelta(days=900)) == "shop"
    assert keys.owner(a_day, NOW) == "shop"
    assert keys.owner(a_day, NOW + timedelta(days=1)) is None
    assert keys.owner("", NOW) is None
    assert keys.owner("\ud800", NOW) is None
    assert file.stat().st_mode & 0o777 == 0o600
    assert forever not in file.read_text()


def test_a_line_that_is_none_is_named_and_the_keys_stay(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(file)
    key = add(file, "shop")
    keys = Keys(file)
    good = file.read_text()
    for bad in ("shop", "shop 12ab", f"{good.strip()} soon", f"{good.strip()} a b"):
        file.write_text(f"# comment\n\n{bad}\n")
        with pytest.raises(ConfigError, match="line 3: expected NAME SHA256"):
            keys.refresh()
        assert keys.owner(key, NOW) == "shop"
    for name in ("", "a b", "#x"):
        with pytest.raises(ConfigError, match="no name for a key"):
            add(file, name)


def test_an_id_is_known_by_every_gateway_with_the_secret() -> None:
    made = RequestIds("secret").new(1_800_000_000.7)
    assert RequestIds("secret").made_at(made) == 1_800_000_000
    assert RequestIds("other").made_at(made) is None
    assert len({RequestIds("secret").new(0) for _ in range(100)}) == 100


@given(st.integers(4, 43), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_an_id_with_another_letter_is_forged(at: int, letter: str) -> None:
    ids = RequestIds("secret")
    made = ids.new(1_800_000_000)
    changed = made[:at] + letter + made[at + 1 :]
    assert (ids.made_at(changed) is None) == (changed != made)


@given(st.text(max_size=60))
def test_what_is_no_id_is_none(text: str) -> None:
    assert RequestIds("secret").made_at(text) is None
    assert RequestIds("secret").made_at("req-" + text) is None


def test_a_pseudonym_stays_and_needs_the_secret() -> None:
    ids = RequestIds("secret")
    assert ids.pseudonym("jane") == RequestIds("secret").pseudonym("jane")
    assert ids.pseudonym("jane") != ids.pseudonym("john")
    assert ids.pseudonym("jane") != RequestIds("other").pseudonym("jane")


def test_a_config_is_read_or_named(tmp_path: Path) -> None:
    assert read_config(None) == GatewayConfig()
    file = tmp_path / "gateway.yaml"
    file.write_text("replicas: ['http://127.0.0.1:1/']\nlimits: {max_in_flight: 3}\n")
    assert read_config(file).replicas == ("http://127.0.0.1:1",)
    for text in ("replicas: [ftp://x]", "other: 1", "- 1", "challenger_share: 0.9", ":\n  - :["):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"gateway\.yaml"):
            read_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")
