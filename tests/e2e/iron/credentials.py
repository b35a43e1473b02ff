"""Credentials, good for something else or for nothing."""

from __future__ import annotations

from tests.e2e.curl import error
from tests.e2e.iron.shapes import BAD_CREDENTIAL, NO_CREDENTIAL, NOT_ALLOWED, Row

ROWS: list[Row] = [
    ("no credential", "$url$api/tokens", 401, NO_CREDENTIAL),
    ("a made-up JWT", "$url/api/tokens -H 'Authorization: Bearer a.b.c'", 401, BAD_CREDENTIAL),
    (
        "a JWT cut short",
        "$url/api/tokens -H 'Authorization: Bearer ${new_access_token}x'",
        401,
        BAD_CREDENTIAL,
    ),
    ("another scheme", "$url/api/tokens -H 'Authorization: Basic YTpi'", 401, BAD_CREDENTIAL),
    ("a scheme alone", "$url/api/tokens -H 'Authorization: Bearer'", 401, BAD_CREDENTIAL),
    ("bytes for a JWT", "$url/api/tokens -H 'Authorization: Bearer \xff\xfe'", 401, NO_CREDENTIAL),
    (
        "a signed-out JWT",
        "$url/api/tokens $as_signed_out_admin",
        401,
        error("UNAUTHORIZED", "TOKEN_REVOKED"),
    ),
    ("an unknown IC token", "$url/api/tokens -H 'X-IC-Key: ic_x_y'", 401, BAD_CREDENTIAL),
    (
        "a rotated IC token",
        "-X POST $url/api/budget/handshake $as_rotated_runtime",
        401,
        BAD_CREDENTIAL,
    ),
    (
        "a revoked IC token",
        "-X POST $url/api/budget/handshake $as_revoked_runtime",
        401,
        error("UNAUTHORIZED", "TOKEN_REVOKED"),
    ),
    (
        "an expired IC token",
        "-X POST $url/api/budget/handshake $as_expired_runtime",
        401,
        error("UNAUTHORIZED", "TOKEN_EXPIRED"),
    ),
    ("a runtime for an administrator", "$url$api/tokens $as_runtime", 403, NOT_ALLOWED),
    ("a viewer for an administrator", "$url/api/tokens $as_viewer", 403, NOT_ALLOWED),
    ("the static token", "$url/api/tokens $as_client", 403, NOT_ALLOWED),
    ("a person for a runtime", "-X POST $url/api/budget/handshake $as_admin", 403, NOT_ALLOWED),
    (
        "the static token for a runtime",
        "-X POST $url/api/budget/handshake $as_client",
        403,
        NOT_ALLOWED,
    ),
]
