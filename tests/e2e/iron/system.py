"""The server itself, and paths that are none."""

from __future__ import annotations

from tests.e2e.curl import error
from tests.e2e.iron.shapes import HEALTH, NO_CREDENTIAL, NO_METHOD, Row

ROWS: list[Row] = [
    ("health", "$url/health", 200, HEALTH),
    ("health with a bad credential", "$url/health -H 'Authorization: x'", 200, HEALTH),
    ("health by POST", "-X POST $url/health", 405, NO_METHOD),
    ("metrics by DELETE", "-X DELETE $url/metrics", 405, NO_METHOD),
    ("events without an upgrade", "$url/ws $as_admin", 426, error("UPGRADE_REQUIRED")),
    ("events by POST", "-X POST $url/ws $as_admin", 405, NO_METHOD),
    (
        "events without a credential",
        """$url/ws -H 'Connection: Upgrade' -H 'Upgrade: websocket' \
           -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='""",
        401,
        NO_CREDENTIAL,
    ),
    ("a path of nobody's", "$url/nothing", 404, error("NOT_FOUND")),
    ("another path", "$url/api/nothing/here $as_admin", 404, error("NOT_FOUND")),
    ("a path too long", "$url/api/tokens/ $as_admin", 404, error("NOT_FOUND")),
    ("a path above", "--path-as-is $url/api/../health", 404, error("NOT_FOUND")),
]
