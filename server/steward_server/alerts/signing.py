"""Signatures and secrets as Standard Webhooks have them (standardwebhooks.com, version 1). Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64


def secret_text(key: bytes) -> str:
    """A secret as people see it."""
    return PREFIX + base64.b64encode(key).decode()


def secret_key(text: str) -> bytes | None:
    """The key in a secret; None if it is none."""
    if not text.startswith(PREFIX):
        return None
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if LEAST_BYTES <= len(key) <= MOST_BYTES else None


def headers(
    keys: Sequence[bytes], *, delivery_id: str, timestamp_s: int, body: bytes
) -> dict[str, str]:
    """The headers that prove who sent a body, and when; a signature for each key."""
    signed = f"{delivery_id}.{timestamp_s}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        for key in keys
    ]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }
