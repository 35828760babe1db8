"""Is a webhook from whom it says? Each tool's scheme, with what a stranger would try."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.services.signatures import is_genuine, secrets_of
from tasks.collected import Hook
from tests.deployments.services.signed import BODY, OLD, SECRET, headers_of

HOOKS: tuple[Hook, ...] = ("label-studio", "argilla", "labelbox", "s3", "generic")
SIGNED: tuple[Hook, ...] = ("argilla", "labelbox", "generic")
TIMED: tuple[Hook, ...] = ("argilla", "generic")


@pytest.mark.parametrize("hook", HOOKS)
def test_what_the_tool_sends_is_genuine_and_a_stranger_is_not(hook: Hook) -> None:
    assert is_genuine(hook, (SECRET,), headers_of(hook, SECRET), BODY)
    assert not is_genuine(hook, (SECRET,), headers_of(hook, OLD), BODY)
    assert not is_genuine(hook, (SECRET,), {}, BODY)
    assert not is_genuine(hook, (), headers_of(hook, SECRET), BODY)


@pytest.mark.parametrize("hook", HOOKS)
def test_while_keys_are_rotated_both_are_valid(hook: Hook) -> None:
    for secret in (SECRET, OLD):
        assert is_genuine(hook, (SECRET, OLD), headers_of(hook, secret), BODY)


@pytest.mark.parametrize("hook", SIGNED)
def test_another_body_under_the_same_signature_is_refused(hook: Hook) -> None:
    assert not is_genuine(hook, (SECRET,), headers_of(hook, SECRET), BODY + b" ")


@pytest.mark.parametrize("hook", TIMED)
@pytest.mark.parametrize(("age", "fits"), [(290, True), (310, False), (-290, True), (-310, False)])
def test_the_replay_window_is_five_minutes(hook: Hook, age: float, fits: bool) -> None:
    assert is_genuine(hook, (SECRET,), headers_of(hook, SECRET, age=age), BODY) == fits


@pytest.mark.parametrize("hook", TIMED)
def test_the_time_is_signed_too(hook: Hook) -> None:
    old = headers_of(hook, SECRET, age=3600)
    now = {**old, "webhook-timestamp": str(int(datetime.now(UTC).timestamp()))}
    assert not is_genuine(hook, (SECRET,), now, BODY)


@given(
    st.sampled_from(HOOKS),
    st.dictionaries(
        st.sampled_from(
            [
                *("x-retune-secret", "x-hub-signature", "authorization"),
                *("webhook-id", "webhook-timestamp", "webhook-signature"),
            ]
        ),
        st.text() | st.sampled_from(["nan", "inf", "-1e400", "v1", "v1,", "v1,=", " ", "v1,a b"]),
    ),
    st.binary(),
)
def test_no_header_and_no_body_breaks_it(hook: Hook, headers: dict[str, str], body: bytes) -> None:
    assert not is_genuine(hook, (SECRET,), headers, body)


def test_secrets_are_those_of_the_environment_and_none_is_off() -> None:
    environ = {
        "RETUNE_WEBHOOK_LABEL_STUDIO_SECRET": "new",
        "RETUNE_WEBHOOK_LABEL_STUDIO_SECRET_OLD": "old",
        "RETUNE_WEBHOOK_S3_SECRET": "",
    }
    assert secrets_of("label-studio", environ) == ("new", "old")
    assert secrets_of("s3", environ) == ()
    assert secrets_of("generic", environ) == ()
