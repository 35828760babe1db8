"""Is a webhook from whom it says? Over the raw body, in constant time, by each tool's own scheme.

    label-studio   the shared secret in the header X-Retune-Secret (Label Studio signs nothing)
    argilla        Standard Webhooks: HMAC-SHA256 over id, timestamp and body, five minutes' window
    generic        the same
    labelbox       HMAC-SHA1 over the body in X-Hub-Signature
    s3             the shared secret as a bearer token (MinIO's auth_token, a header of SeaweedFS)

Secrets come from RETUNE_WEBHOOK_<SOURCE>_SECRET; while keys are rotated, the one before stays valid
in RETUNE_WEBHOOK_<SOURCE>_SECRET_OLD. What has no timestamp may be replayed, and changes nothing
then: events are named by what they hold.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tasks.collected import Hook

SECRET_HEADER = "x-retune-secret"  # noqa: S105 - the name of a header


def secrets_of(hook: Hook, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets that are valid now; none means that the source is off."""
    name = f"RETUNE_WEBHOOK_{hook.upper().replace('-', '_')}_SECRET"
    given = (environ.get(name, ""), environ.get(f"{name}_OLD", ""))
    return tuple(secret for secret in given if secret)


def is_genuine(hook: Hook, secrets: Sequence[str], headers: Mapping[str, str], raw: bytes) -> bool:
    """Whether one of the secrets vouches for the body; ``headers`` by lower-case name."""
    checks = {
        "label-studio": _shared,
        "argilla": _standard,
        "generic": _standard,
        "labelbox": _hub,
        "s3": _bearer,
    }
    # All are tried, so that the time does not tell which of them fits.
    found = [checks[hook](secret, headers, raw) for secret in secrets]
    return any(found)


def _shared(secret: str, headers: Mapping[str, str], _: bytes) -> bool:
    return _equal(headers.get(SECRET_HEADER, ""), secret)


def _bearer(secret: str, headers: Mapping[str, str], _: bytes) -> bool:
    return _equal(headers.get("authorization", ""), f"Bearer {secret}")


def _hub(secret: str, headers: Mapping[str, str], raw: bytes) -> bool:
    expected = hmac.new(secret.encode(), raw, hashlib.sha1).hexdigest()
    return _equal(headers.get("x-hub-signature", ""), f"sha1={expected}")


def _standard(secret: str, headers: Mapping[str, str], raw: bytes) -> bool:
    try:
        Webhook(secret).verify(raw, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError, OverflowError):  # the others: hostile headers
        return False
    return True


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
