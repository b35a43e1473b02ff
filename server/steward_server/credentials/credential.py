"""A credential as it is kept: a gateway's user name, and its password sealed. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
"""What a reference in a playbook can name: a dot would begin the next part of it."""

MAX_USERNAME = 255
MAX_PASSWORD = 1_000
MAX_URL = 500
MAX_DESCRIPTION = 500


@dataclass(frozen=True, slots=True)
class StoredCredential:
    """A credential of somebody's, its password sealed."""

    credential_id: str
    owner_id: str
    name: str
    username: str
    gateway_url: str
    description: str
    sealed_password: bytes = field(repr=False)
    created_at_us: int
    updated_at_us: int


def wrong_with_url(text: str) -> str:
    """What is wrong with a gateway's address, in words; empty if it may be used."""
    if len(text) > MAX_URL:
        return f"has {len(text)} characters; at most {MAX_URL} are allowed"
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        return "holds characters that no URL has"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not host:
        return "must begin with http:// or https:// and a host"
    if "@" in parts.netloc:  # it is listed, and a password is not
        return "holds a user name or a password; these have fields of their own"
    if "?" in text or "#" in text:
        return "holds a query or a fragment; give only what the gateway's paths begin with"
    return ""
