"""Ids and secrets: random, prefixed by what they name."""

from __future__ import annotations

import hashlib
import secrets
import uuid


def new_id(prefix: str) -> str:
    """An id as ``agent_5f0c…``: the prefix and a random UUID."""
    return f"{prefix}_{uuid.uuid4()}"


def new_secret(prefix: str) -> str:
    """A credential with 256 random bits, to be shown once and stored as `digest`."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> bytes:
    """What is stored of a random secret. A slow hash adds nothing to 256 random bits."""
    return hashlib.sha256(secret.encode()).digest()
