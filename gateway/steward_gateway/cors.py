"""Which pages of other sites may call: their origins are named in the configuration. Pure.

Browsers keep pages from reading answers of other sites unless these say so. They keep no page from
opening a WebSocket, so that is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

REQUEST_HEADERS = (
    "Authorization",
    "Connect-Protocol-Version",
    "Connect-Timeout-Ms",
    "Content-Type",
    "Grpc-Timeout",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "Last-Event-ID",
    "X-API-Key",
    "X-Grpc-Web",
    "X-IC-Key",
    "X-Request-Id",
    "X-Request-Timeout",
    "X-User-Agent",
)
"""Headers that a page may send."""

RESPONSE_HEADERS = (
    "ETag",
    "Grpc-Message",
    "Grpc-Status",
    "Grpc-Status-Details-Bin",
    "Retry-After",
    "WWW-Authenticate",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "X-Request-Id",
)
"""Headers that a page may read."""

MAX_AGE_S = 600


class Cors:
    """The rules for one set of origins; "*" lets in every page, but never with credentials.

    Credentials travel in headers that a page sets itself, so that none needs
    `Access-Control-Allow-Credentials`.
    """

    def __init__(self, origins: frozenset[str]) -> None:
        self._origins = origins

    def headers_for(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What is added to every answer."""
        told = {} if "*" in self._origins else {"Vary": "Origin"}
        origin = headers.get("Origin")
        if origin is None or not self._lets_in(origin):
            return told
        told["Access-Control-Allow-Origin"] = "*" if "*" in self._origins else origin
        told["Access-Control-Expose-Headers"] = ", ".join(RESPONSE_HEADERS)
        return told

    def preflight(self, headers: Mapping[str, str], methods: str) -> dict[str, str]:
        """What is added for a page that asks before it calls; nothing if it may not.

        `methods` are those of HTTP that the path serves, with commas.
        """
        asks = "Access-Control-Request-Method" in headers
        if not asks or not methods or not self._lets_in(headers.get("Origin", "")):
            return {}
        return {
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": ", ".join(REQUEST_HEADERS),
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }

    def lets_open(self, headers: Mapping[str, str]) -> bool:
        """Whether a WebSocket may be opened: by a program, by our own pages, by named origins."""
        origin = headers.get("Origin")
        if origin is None or self._lets_in(origin):
            return True
        return origin.lower().partition("://")[2] == headers.get("Host", "").lower()

    def _lets_in(self, origin: str) -> bool:
        return "*" in self._origins or origin.lower() in self._origins


def parse_origins(text: str) -> frozenset[str]:
    """Read "https://app.example, http://localhost:5173".

    Raises:
        ValueError: one is not an origin.
    """
    origins = frozenset(item.strip().lower() for item in text.split(",") if item.strip())
    for origin in origins - {"*"}:
        scheme, found, rest = origin.partition("://")
        if not found or scheme not in ("http", "https") or not rest or "/" in rest:
            raise ValueError(f"{origin!r} is not an origin such as https://app.example")
    return origins
