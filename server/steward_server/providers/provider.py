"""A provider of models: its address and how its key is shown. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z0-9_-]{1,50}")
KEY = re.compile(r"[\x21-\x7e]{1,500}")
"""It has to travel in an HTTP header."""

MAX_URL = 2_000
SHORTEST_SHOWN = 9
"""Of a key below this length, first and last characters would show too much."""


class ProviderKind(Enum):
    """The dialect its API speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


BASE_URLS = {
    ProviderKind.OPENAI: "https://api.openai.com/v1",
    ProviderKind.ANTHROPIC: "https://api.anthropic.com",
}
"""Public addresses, as the providers' own SDKs take them for `base_url`."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider, its key sealed."""

    provider_id: str
    name: str
    kind: ProviderKind
    base_url: str
    sealed_key: bytes = field(repr=False)
    masked_key: str
    created_at_us: int
    last_used_at_us: int | None = None
    allow_plaintext_key: bool = False
    """A runtime that holds a lease may have the key without a seal."""
    version: int = 1


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A provider and its key in clear, to be lent."""

    name: str
    kind: str
    base_url: str
    api_key: str = field(repr=False)
    allow_plaintext_key: bool = False


class BadAddress(ValueError):
    """An address that is not to be used; the message says why."""


def masked(api_key: str) -> str:
    """A key's first four and last three characters."""
    return f"{api_key[:4]}...{api_key[-3:]}" if len(api_key) >= SHORTEST_SHOWN else "***"


def checked_base_url(text: str, *, allow_http: bool) -> str:
    """An address without a trailing slash.

    Plain http is for this machine alone, unless `allow_http`: the key travels with each call.

    Raises:
        BadAddress: it is no such address.
    """
    if len(text) > MAX_URL:
        raise BadAddress(f"has {len(text)} characters; at most {MAX_URL} are allowed")
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise BadAddress("holds characters that no URL has")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise BadAddress(f"is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadAddress("must begin with https:// (or http://) and a host")
    if "@" in parts.netloc:
        raise BadAddress("holds a user name or a password; the key goes into `api_key`")
    if "?" in text or "#" in text:
        raise BadAddress("holds a query or a fragment; give only the path calls begin with")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise BadAddress(
            f"is plain http to {host}: the key would travel in clear; use https (http is for "
            "this machine, or the development profile)"
        )
    return text.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
