"""IC tokens."""

from __future__ import annotations

from tests.e2e.curl import TIME, error, invalid
from tests.e2e.iron.shapes import (
    MALFORMED,
    NEW_TOKEN,
    NO_AGENT,
    NO_BODY,
    NO_METHOD,
    NO_TOKEN,
    NOT_ALLOWED,
    TOKEN,
    Row,
)

ROWS: list[Row] = [
    (
        "list tokens",
        "$url$api/tokens?agent_id=$agent $as_admin",
        200,
        {"tokens": [TOKEN], "total": int, "limit": 100, "offset": 0},
    ),
    (
        "list a page of live tokens",
        "'$url/api/tokens?limit=1&offset=1&status=active' $as_admin",
        200,
        {"tokens": [TOKEN], "total": int, "limit": 1, "offset": 1},
    ),
    ("list -1 tokens", "$url/api/tokens?limit=-1 $as_admin", 400, invalid("limit")),
    ("list x tokens", "$url/api/tokens?limit=x $as_admin", 400, invalid("limit")),
    ("list 2^40 tokens", "$url/api/tokens?limit=1099511627776 $as_admin", 400, invalid("limit")),
    ("list dead tokens", "$url/api/tokens?status=dead $as_admin", 400, invalid("status")),
    ("list by colour", "$url/api/tokens?colour=red $as_admin", 400, invalid("colour")),
    ("put tokens", "-X PUT $url$api/tokens $as_admin $json -d '{}'", 405, NO_METHOD),
    (
        "create a token",
        """-X POST $url$api/tokens $as_admin $json \
           -d '{"agent_id":"$new_agent","name":"n","expires_in_days":30,"scopes":["budget"]}'""",
        201,
        NEW_TOKEN | {"expires_at": TIME, "name": "n"},
    ),
    (
        "create a second token",
        """-X POST $url$api/tokens $as_admin $json -d '{"agent_id":"$busy_agent"}'""",
        409,
        error("CONFLICT", "TOKEN_EXISTS", details={"token_id": str, "agent_id": str}),
    ),
    (
        "create a token of no agent",
        """-X POST $url/api/tokens $as_admin $json -d '{"agent_id":"nobody"}'""",
        404,
        NO_AGENT,
    ),
    (
        "create a token for 0 days with a wrong scope",
        """-X POST $url/api/tokens $as_admin $json \
           -d '{"agent_id":"$agent","expires_in_days":0,"scopes":["everything"]}'""",
        400,
        invalid("expires_in_days", "scopes[0]"),
    ),
    (
        "create a token as a user",
        """-X POST $url/api/tokens $as_user $json -d '{"agent_id":"$agent"}'""",
        403,
        NOT_ALLOWED,
    ),
    ("get a token", "$url$api/tokens/$token_id $as_admin", 200, TOKEN),
    ("get no token", "$url$api/tokens/nothing $as_admin", 404, NO_TOKEN),
    ("get a token by a path", "$url/api/tokens/..%2F..%2Fetc $as_admin", 404, NO_TOKEN),
    ("get a token by NUL", "$url/api/tokens/%00 $as_admin", 400, invalid("token_id")),
    ("get a token by half an escape", "$url/api/tokens/%f $as_admin", 400, MALFORMED),
    (
        "rotate a token",
        "-X POST $url$api/tokens/$new_token_id/rotate $as_admin",
        200,
        NEW_TOKEN | {"rotated_at": TIME},
    ),
    ("rotate no token", "-X POST $url$api/tokens/nothing/rotate $as_admin", 404, NO_TOKEN),
    ("rotate by GET", "$url/api/tokens/$token_id/rotate $as_admin", 405, NO_METHOD),
    ("revoke a token", "-X DELETE $url$api/tokens/$new_token_id $as_admin", 204, NO_BODY),
    ("revoke no token", "-X DELETE $url$api/tokens/nothing $as_admin", 404, NO_TOKEN),
]
