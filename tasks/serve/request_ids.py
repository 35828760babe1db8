"""Ids of requests that only the gateways can have made: feedback is taken for no others.

An id holds when it was made, a random part and a keyed digest of both, so that any replica of the
gateway knows it without having kept it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time

_PREFIX = "req-"
_RANDOM, _MAC, _TIME = 9, 11, 5
_LENGTH = len(_PREFIX) + (_RANDOM + _MAC + _TIME) * 8 // 5


class RequestIds:
    """Makes and knows ids by a secret that all replicas of the gateway share."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def new(self, now: float | None = None) -> str:
        """An id as ``req-`` and 40 letters and digits."""
        made = int(time.time() if now is None else now)
        head = made.to_bytes(_TIME, "big") + os.urandom(_RANDOM)
        return _PREFIX + base64.b32encode(head + self._mac(head)).decode().lower()

    def made_at(self, request_id: str) -> float | None:
        """When the id was made, in seconds since 1970; None where no gateway made it."""
        text = request_id.removeprefix(_PREFIX)
        if not request_id.startswith(_PREFIX) or len(request_id) != _LENGTH or text != text.lower():
            return None
        try:
            raw = base64.b32decode(text.upper())
        except ValueError:
            return None
        head, mac = raw[:-_MAC], raw[-_MAC:]
        if not hmac.compare_digest(mac, self._mac(head)):
            return None
        return float(int.from_bytes(head[:_TIME], "big"))

    def pseudonym(self, user: str) -> str:
        """A name for a user that tells nothing of who it is to whom lacks the secret."""
        text = user.encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, b"user\0" + text, hashlib.sha256).hexdigest()[:32]

    def _mac(self, head: bytes) -> bytes:
        return hmac.new(self._secret, b"request\0" + head, hashlib.sha256).digest()[:_MAC]
