"""Webhooks by the Standard Webhooks specification: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<HMAC-SHA256 in base64>`.

A receiver checks the signature over `id.timestamp.body`, refuses old timestamps, and remembers ids: the same id twice is the same event.
The secret is derived from the platform's signing key and the subscription's id, so that the database holds none.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

PREFIX = "whsec_"


def secret(signing_key: str, subscription_id: str) -> str:
    """As people give it to their receiver."""
    derived = hmac.new(signing_key.encode(), f"webhook:{subscription_id}".encode(), hashlib.sha256).digest()
    return PREFIX + base64.b64encode(derived).decode()


def headers(body: bytes, *, delivery_id: str, secret: str, now: datetime) -> dict[str, str]:
    timestamp = str(int(now.timestamp()))
    return {
        "Content-Type": "application/json",
        "User-Agent": "abruzzi",
        "webhook-id": delivery_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(body, delivery_id=delivery_id, timestamp=timestamp, secret=secret),
    }


def signature(body: bytes, *, delivery_id: str, timestamp: str, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(signed).decode()
