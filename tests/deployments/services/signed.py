"""Webhooks as their tools sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

from standardwebhooks.webhooks import Webhook

from tasks.collected import Hook
from tests.conftest import WEBHOOK_SECRET

BODY = b'{"rows": [{"q": "\xc3\xa4"}]}'
SECRET = WEBHOOK_SECRET
OLD = "whsec_" + base64.b64encode(b"another-secret-of-24-byt").decode()


def headers_of(hook: Hook, secret: str, body: bytes = BODY, age: float = 0) -> dict[str, str]:
    """What the tool itself would send."""
    if hook == "label-studio":
        return {"x-retune-secret": secret}
    if hook == "s3":
        return {"authorization": f"Bearer {secret}"}
    if hook == "labelbox":
        digest = hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
        return {"x-hub-signature": f"sha1={digest}"}
    at = datetime.now(UTC) - timedelta(seconds=age)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", at, body.decode(errors="replace")),
    }
