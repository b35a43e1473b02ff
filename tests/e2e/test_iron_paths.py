"""Every Iron path by curl: what it answers when it is called well, and when it is not.

A row is a name, curl's arguments, the status and the exact shape of the body. `$names` are made by
the scene; a row with `$api` stands for two, `/api` and `/api/v1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.curl import MONEY, TIME, conflict, curl, differences, error, invalid
from tests.e2e.process import steward, until
from tests.e2e.scene import STATIC_TOKEN, Scene

MAYBE_TIME = (TIME, None)

PAIR = {
    "access_token": str,
    "refresh_token": str,
    "token_type": "Bearer",
    "expires_in": int,
    "expires_at": TIME,
    "user": {"id": str, "username": "admin", "email": "", "role": "admin"},
}
LOGIN = PAIR | {"token": str}
TOKEN = {
    "id": str,
    "agent_id": str,
    "name": str,
    "status": str,
    "prefix": str,
    "scopes": [str],
    "created_at": TIME,
    "expires_at": MAYBE_TIME,
    "last_used_at": MAYBE_TIME,
    "rotated_at": MAYBE_TIME,
    "revoked_at": MAYBE_TIME,
}
NEW_TOKEN = TOKEN | {"status": "active", "token": str}
BUDGET = {
    "limit_usd": MONEY,
    "spent_usd": MONEY,
    "reserved_usd": MONEY,
    "available_usd": MONEY,
    "overrun_usd": MONEY,
    "percent_used": float,
    "state": str,
}
AGENT = {
    "id": str,
    "name": str,
    "owner_id": str,
    "provider": str,
    "status": str,
    "desired_state": str,
    "budget": BUDGET,
    "created_at": TIME,
    "updated_at": TIME,
    "last_seen_at": MAYBE_TIME,
}
STATUS = {
    "agent_id": str,
    "name": str,
    "status": str,
    "desired_state": "running",
    "budget": BUDGET,
    "last_seen_at": MAYBE_TIME,
    "started_at": MAYBE_TIME,
    "stopped_at": MAYBE_TIME,
    "exit_code": (int, None),
    "open_leases": int,
    "commit_number": int,
}
PROVIDER = {
    "id": str,
    "name": str,
    "kind": str,
    "base_url": str,
    "masked_key": str,
    "created_at": TIME,
    "last_used_at": MAYBE_TIME,
    "usable": True,
}
GRANT = {
    "lease_id": str,
    "ip_token": str,
    "seal_format": "aes256",
    "seal_salt": str,
    "seal_info": str,
    "budget_requested_usd": MONEY,
    "budget_granted_usd": MONEY,
    "partial": bool,
    "budget_remaining_usd": MONEY,
    "provider": "openai",
    "provider_kind": "openai",
    "base_url": "http://127.0.0.1:9",
    "expires_at": TIME,
    "lease_duration_ms": int,
    "settle_grace_ms": int,
    "desired_state": "running",
    "agent_id": str,
    "price_version": str,
    "commit_number": int,
}
REPORT = {
    "success": True,
    "lease_spent_usd": MONEY,
    "lease_remaining_usd": MONEY,
    "budget_remaining_usd": MONEY,
    "desired_state": "running",
    "sequence": int,
    "cost_usd": MONEY,
    "overrun_usd": MONEY,
    "lease_status": "active",
    "commit_number": int,
}
RETURN = {
    "success": True,
    "returned_usd": MONEY,
    "lease_status": "closed",
    "lease_spent_usd": MONEY,
    "budget_remaining_usd": MONEY,
    "commit_number": int,
}
REFRESH = {
    "status": "approved",
    "reason": "",
    "lease_id": str,
    "budget_granted_usd": MONEY,
    "partial": bool,
    "budget_remaining_usd": MONEY,
    "lease_granted_usd": MONEY,
    "lease_spent_usd": MONEY,
    "expires_at": TIME,
    "lease_duration_ms": int,
    "commit_number": int,
}
HEALTH = {
    "status": "healthy",
    "version": str,
    "timestamp": TIME,
    "ledger": {
        "balanced": True,
        "checked_at": TIME,
        "commit_number": int,
        "account_count": int,
        "open_lease_count": int,
        "overrun_usd": MONEY,
    },
    "notices": [str],
}

NO_CREDENTIAL = error("UNAUTHORIZED", "CREDENTIAL_MISSING")
BAD_CREDENTIAL = error("UNAUTHORIZED", "INVALID_TOKEN")
NOT_ALLOWED = error("FORBIDDEN", "ROLE_NOT_ALLOWED")
NO_METHOD = error("METHOD_NOT_ALLOWED")
NO_AGENT = error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": str})
NO_TOKEN = error("NOT_FOUND", "TOKEN_NOT_FOUND", details={"token": str})
NO_LEASE = error("NOT_FOUND", "LEASE_NOT_FOUND", details={"lease": str})
MALFORMED = error("VALIDATION_ERROR")
NO_BODY = None
NO_MONEY = {"scope": str, "agent_id": str, "requested_nanousd": str, "available_nanousd": "0"}

Row = tuple[str, str, int, Any]

AUTH: list[Row] = [
    (
        "login",
        """-X POST $url$api/auth/login $json -d '{"username":"admin","password":"$password"}'""",
        200,
        LOGIN,
    ),
    (
        "login with a wrong password",
        """-X POST $url$api/auth/login $json -d '{"username":"admin","password":"wrong"}'""",
        401,
        error("UNAUTHORIZED", "INVALID_CREDENTIALS"),
    ),
    (
        "login of nobody",
        """-X POST $url$api/auth/login $json -d '{"email":"no@body","password":"$password"}'""",
        401,
        error("UNAUTHORIZED", "INVALID_CREDENTIALS"),
    ),
    (
        "login without a password",
        """-X POST $url$api/auth/login $json -d '{"username":"admin"}'""",
        400,
        invalid("password"),
    ),
    ("login without a body", "-X POST $url$api/auth/login", 400, invalid("username", "password")),
    (
        "login by name and address",
        """-X POST $url/api/auth/login $json -d '{"username":"a","email":"b","password":"c"}'""",
        400,
        invalid("email"),
    ),
    (
        "malformed JSON",
        """-X POST $url/api/auth/login $json -d '{"username":'""",
        400,
        MALFORMED,
    ),
    ("a list for an object", "-X POST $url/api/auth/login $json -d '[]'", 400, MALFORMED),
    (
        "a number for a text",
        """-X POST $url/api/auth/login $json -d '{"username":5,"password":"x"}'""",
        400,
        invalid("username"),
    ),
    (
        "an unknown field",
        """-X POST $url/api/auth/login $json -d '{"username":"a","password":"b","stay":true}'""",
        400,
        invalid("stay"),
    ),
    (
        "a form",
        "-X POST $url/api/auth/login -d 'username=admin&password=x'",
        415,
        error("UNSUPPORTED_MEDIA_TYPE"),
    ),
    (
        "another charset",
        "-X POST $url/api/auth/login -H 'Content-Type: application/json; charset=latin-1' -d '{}'",
        415,
        error("UNSUPPORTED_MEDIA_TYPE"),
    ),
    ("login by GET", "$url$api/auth/login", 405, NO_METHOD),
    (
        "refresh",
        """-X POST $url$api/auth/refresh $json -d '{"refresh_token":"$new_refresh_token"}'""",
        200,
        PAIR,
    ),
    (
        "refresh with a spent token",
        """-X POST $url/api/auth/refresh $json -d '{"refresh_token":"$spent_refresh_token"}'""",
        401,
        error("UNAUTHORIZED", "REFRESH_TOKEN_REUSED"),
    ),
    (
        "refresh with a made-up token",
        """-X POST $url$api/auth/refresh $json -d '{"refresh_token":"rt_nonsense"}'""",
        401,
        BAD_CREDENTIAL,
    ),
    (
        "refresh with nothing",
        "-X POST $url/api/auth/refresh $json -d '{}'",
        400,
        invalid("refresh_token"),
    ),
    (
        "logout",
        "-X POST $url$api/auth/logout -H 'Authorization: Bearer $new_access_token'",
        204,
        NO_BODY,
    ),
    ("logout of nobody", "-X POST $url$api/auth/logout", 401, NO_CREDENTIAL),
    (
        "logout twice",
        "-X POST $url/api/auth/logout $as_signed_out_admin",
        401,
        error("UNAUTHORIZED", "TOKEN_REVOKED"),
    ),
    ("logout of a runtime", "-X POST $url/api/auth/logout $as_runtime", 403, NOT_ALLOWED),
]

CREDENTIALS: list[Row] = [
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

TOKENS: list[Row] = [
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

AGENTS: list[Row] = [
    (
        "create an agent",
        """-X POST $url/api/v1/agents $as_admin $json -d '{"name":"a","budget_usd":0.1}'""",
        201,
        AGENT
        | {
            "name": "a",
            "provider": "",
            "status": "idle",
            "desired_state": "running",
            "budget": BUDGET
            | {"limit_usd": 0.1, "spent_usd": 0, "available_usd": 0.1, "state": "active"},
        },
    ),
    (
        "create an agent with nine decimals, as text",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":"0.000000001"}'""",
        201,
        AGENT | {"budget": BUDGET | {"limit_usd": 1e-09}},
    ),
    (
        "create an agent of a provider",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":1,"provider":"$provider"}'""",
        201,
        AGENT | {"provider": "openai"},
    ),
    *(
        (
            f"create an agent with {money}",
            f"""-X POST $url/api/v1/agents $as_admin $json \
                -d '{{"name":"a","budget_usd":{money}}}'""",
            400,
            shape,
        )
        for money, shape in {
            "-1": invalid("budget_usd"),
            "0": invalid("budget_usd"),
            "0.0000000001": invalid("budget_usd"),
            "1.00000000012345": invalid("budget_usd"),
            "1000000.000000001": invalid("budget_usd"),
            "9223372036.854775808": invalid("budget_usd"),
            "1e300": invalid("budget_usd"),
            "1e-400": invalid("budget_usd"),
            '"NaN"': invalid("budget_usd"),
            '"Infinity"': invalid("budget_usd"),
            '"1,5"': invalid("budget_usd"),
            '"0x10"': invalid("budget_usd"),
            "true": invalid("budget_usd"),
            "[1]": invalid("budget_usd"),
            "1e400": MALFORMED,
            "NaN": MALFORMED,
            "Infinity": MALFORMED,
            "-Infinity": MALFORMED,
            "1.": MALFORMED,
            ".5": MALFORMED,
        }.items()
    ),
    (
        "create an agent in nano-dollars",
        """-X POST $url/api/v1/agents $as_admin $json -d '{"name":"a","budget_nanousd":5}'""",
        400,
        invalid("budget_nanousd"),
    ),
    (
        "create an agent of nothing",
        "-X POST $url/api/v1/agents $as_admin $json -d '{}'",
        400,
        invalid("name", "budget_usd"),
    ),
    (
        "create an agent of no provider",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":1,"provider":"none"}'""",
        400,
        invalid("provider"),
    ),
    (
        "create an agent as a user",
        """-X POST $url/api/v1/agents $as_user $json -d '{"name":"a","budget_usd":1}'""",
        403,
        NOT_ALLOWED,
    ),
    (
        "list agents",
        "$url/api/v1/agents?page_size=1 $as_admin",
        200,
        {"agents": [AGENT], "next_page_token": str},
    ),
    (
        "list the agents of someone who has none",
        "$url/api/v1/agents $as_user",
        200,
        {"agents": [], "next_page_token": ""},
    ),
    (
        "list agents from nowhere",
        "$url/api/v1/agents?page_token=nowhere $as_admin",
        400,
        invalid("page_token"),
    ),
    ("get an agent", "$url/api/v1/agents/$agent $as_admin", 200, AGENT),
    ("get no agent", "$url/api/v1/agents/nobody $as_admin", 404, NO_AGENT),
    ("get the agent of another", "$url/api/v1/agents/$agent $as_user", 404, NO_AGENT),
    (
        "change an agent",
        """-X PATCH $url/api/v1/agents/$new_agent $as_admin $json \
           -d '{"name":"b","budget_usd":20}'""",
        200,
        AGENT | {"name": "b", "budget": BUDGET | {"limit_usd": 20, "available_usd": 20}},
    ),
    (
        "change nothing",
        "-X PATCH $url/api/v1/agents/$agent $as_admin $json -d '{}'",
        400,
        error("VALIDATION_ERROR", "NO_FIELDS_PROVIDED"),
    ),
    (
        "take back what is lent",
        """-X PATCH $url/api/v1/agents/$busy_agent $as_admin $json -d '{"budget_usd":4.99}'""",
        409,
        conflict("BUDGET_BELOW_COMMITTED", "allocated_nanousd", "committed_nanousd", "account_id"),
    ),
    ("delete an agent", "-X DELETE $url/api/v1/agents/$new_agent $as_admin", 204, NO_BODY),
    ("delete no agent", "-X DELETE $url/api/v1/agents/nobody $as_admin", 404, NO_AGENT),
    (
        "delete an agent with leases",
        "-X DELETE $url/api/v1/agents/$busy_agent $as_admin",
        409,
        error("CONFLICT", "AGENT_HAS_LEASES", details={"agent_id": str, "open_leases": "1"}),
    ),
    ("post to an agent", "-X POST $url/api/v1/agents/$agent $as_admin", 405, NO_METHOD),
    ("status", "$url$api/agents/$agent/status $as_admin", 200, STATUS),
    ("status for a viewer", "$url/api/agents/$agent/status $as_viewer", 404, NO_AGENT),
    ("status of nobody", "$url$api/agents/nobody/status $as_admin", 404, NO_AGENT),
    ("status for a runtime", "$url/api/agents/$agent/status $as_runtime", 403, NOT_ALLOWED),
    (
        "stop",
        """-X POST $url$api/agents/$new_agent/stop $as_admin $json -d '{"reason":"enough"}'""",
        202,
        {"agent_id": str, "status": "stopping"},
    ),
    (
        "stop twice",
        "-X POST $url$api/agents/$stopped_agent/stop $as_admin",
        202,
        {"agent_id": str, "status": "stopping"},
    ),
    ("stop nobody", "-X POST $url$api/agents/nobody/stop $as_admin", 404, NO_AGENT),
    ("stop as a viewer", "-X POST $url/api/agents/$agent/stop $as_viewer", 403, NOT_ALLOWED),
    ("stop the agent of another", "-X POST $url/api/agents/$agent/stop $as_user", 404, NO_AGENT),
    ("stop by GET", "$url/api/agents/$agent/stop $as_admin", 405, NO_METHOD),
]

PROVIDERS: list[Row] = [
    (
        "create a provider",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"$new_name","kind":"anthropic","api_key":"sk-ant-api-0123456789"}'""",
        201,
        PROVIDER | {"kind": "anthropic", "masked_key": "sk-a...789", "last_used_at": None},
    ),
    (
        "create a provider twice",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"$provider","api_key":"sk-0123456789"}'""",
        409,
        error("CONFLICT", "PROVIDER_EXISTS", details={"provider": "openai"}),
    ),
    (
        "create a provider of no kind",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"No Name","kind":"abacus","base_url":"ftp://x","api_key":""}'""",
        400,
        invalid("kind"),
    ),
    (
        "create a provider with a bad name, address and key",
        """-X POST $url/api/v1/providers $as_admin $json \
           -d '{"name":"No Name","kind":"openai","base_url":"ftp://x","api_key":""}'""",
        400,
        invalid("name", "base_url", "api_key"),
    ),
    (
        "create a provider as a user",
        "-X POST $url/api/v1/providers $as_user $json -d '{}'",
        403,
        NOT_ALLOWED,
    ),
    (
        "list providers",
        "$url/api/v1/providers $as_admin",
        200,
        {"providers": [PROVIDER], "next_page_token": ""},
    ),
    ("list providers as a runtime", "$url/api/v1/providers $as_runtime", 403, NOT_ALLOWED),
    (
        "delete a provider",
        "-X DELETE $url/api/v1/providers/$new_provider_id $as_admin",
        204,
        NO_BODY,
    ),
    (
        "delete no provider",
        "-X DELETE $url/api/v1/providers/none $as_admin",
        404,
        error("NOT_FOUND", "PROVIDER_NOT_FOUND", details={"provider": "none"}),
    ),
    (
        "delete a provider in use",
        "-X DELETE $url/api/v1/providers/$used_provider_id $as_admin",
        409,
        conflict("PROVIDER_IN_USE", "provider", "agent_count"),
    ),
    ("get a provider", "$url/api/v1/providers/none $as_admin", 405, NO_METHOD),
]

BUDGETS: list[Row] = [
    (
        "handshake",
        """-X POST $url$api/budget/handshake $as_runtime $json \
           -d '{"requested_budget_usd":0.5,"provider":"$provider","runtime_id":"r"}'""",
        200,
        GRANT | {"budget_requested_usd": 0.5, "budget_granted_usd": 0.5, "partial": False},
    ),
    (
        "handshake with the token in the body",
        """-X POST $url/api/budget/handshake $json \
           -d '{"requested_budget_usd":1,"provider":"$provider","ic_token":"$ic_token"}'""",
        200,
        GRANT,
    ),
    (
        "handshake with the token as Bearer",
        """-X POST $url/api/budget/handshake $json -H 'Authorization: Bearer $ic_token' \
           -d '{"requested_budget_usd":1,"provider":"$provider"}'""",
        200,
        GRANT,
    ),
    (
        "handshake sealed to a key",
        """-X POST $url/api/budget/handshake $as_runtime $json \
           -d '{"requested_budget_usd":1,"provider":"$provider", \
                "public_key":"jK1bd2YSEhF0XRmLFDZ2WQSIKS6Ppqd7s2lQ1cV9nCQ="}'""",
        200,
        GRANT | {"seal_format": "hpke", "seal_salt": ""},
    ),
    (
        "handshake with half a key",
        """-X POST $url/api/budget/handshake $as_runtime $json -d '{"public_key":"AAAA"}'""",
        400,
        invalid("public_key"),
    ),
    (
        "handshake for nothing",
        """-X POST $url$api/budget/handshake $as_runtime $json -d '{"requested_budget_usd":0}'""",
        400,
        invalid("requested_budget_usd"),
    ),
    (
        "handshake without money",
        """-X POST $url$api/budget/handshake $as_poor_runtime $json \
           -d '{"requested_budget_usd":1,"provider":"$provider"}'""",
        402,
        error("BUDGET_EXCEEDED", details=NO_MONEY),
    ),
    (
        "handshake of a stopped agent",
        """-X POST $url/api/budget/handshake $as_stopped_runtime $json \
           -d '{"provider":"$provider"}'""",
        409,
        error("CONFLICT", "AGENT_STOPPED", details={"agent_id": str}),
    ),
    (
        "handshake for no provider",
        """-X POST $url/api/budget/handshake $as_runtime $json -d '{"provider":"none"}'""",
        404,
        error("NOT_FOUND", "PROVIDER_NOT_FOUND", details={"provider": "none"}),
    ),
    ("handshake of nobody", "-X POST $url$api/budget/handshake", 401, NO_CREDENTIAL),
    ("handshake by GET", "$url$api/budget/handshake $as_runtime", 405, NO_METHOD),
    (
        "report",
        """-X POST $url$api/budget/report $as_runtime $json \
           -d '{"lease_id":"$new_lease","request_id":"c1","model":"gpt-4o","provider":"openai", \
                "input_tokens":1000,"output_tokens":500,"timestamp":"2026-11-21T09:30:00Z"}'""",
        200,
        REPORT | {"cost_usd": 0.0075, "lease_spent_usd": 0.0075, "lease_remaining_usd": 0.9925},
    ),
    (
        "report a cost of nine decimals",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$new_lease", \
           "request_id":"c1","sequence":1,"model":"own","cost_usd":0.123456789}'""",
        200,
        REPORT | {"cost_usd": 0.123456789, "sequence": 1},
    ),
    (
        "report ten decimals",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"own","cost_usd":0.1234567891}'""",
        400,
        invalid("cost_usd"),
    ),
    (
        "report negative usage",
        """-X POST $url$api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"m","input_tokens":-1,"cost_usd":-0.5}'""",
        400,
        invalid("input_tokens", "cost_usd"),
    ),
    (
        "report more tokens than there are",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"m","input_tokens":9223372036854775808}'""",
        400,
        invalid("input_tokens"),
    ),
    (
        "report half a token",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"m","input_tokens":0.5}'""",
        400,
        invalid("input_tokens"),
    ),
    (
        "report without ids",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease"}'""",
        400,
        invalid("request_id", "model"),
    ),
    (
        "report at no time",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"m","cost_usd":0,"timestamp":"yesterday"}'""",
        400,
        invalid("timestamp"),
    ),
    (
        "report a model without a price",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"abacus","input_tokens":1}'""",
        400,
        error("VALIDATION_ERROR", "PRICE_UNKNOWN", fields={"model": "has no price"}),
    ),
    (
        "report on no lease",
        """-X POST $url$api/budget/report $as_runtime $json -d '{"lease_id":"none", \
           "request_id":"c2","model":"gpt-4o","input_tokens":1}'""",
        404,
        NO_LEASE,
    ),
    (
        "report out of order",
        """-X POST $url/api/budget/report $as_runtime $json -d '{"lease_id":"$lease", \
           "request_id":"c2","model":"m","cost_usd":0,"sequence":7}'""",
        409,
        conflict("SEQUENCE_GAP", "got", "expected", "lease_id"),
    ),
    (
        "refresh a lease",
        """-X POST $url$api/budget/refresh $as_runtime $json \
           -d '{"lease_id":"$new_lease","requested_budget_usd":0.25}'""",
        200,
        REFRESH | {"budget_granted_usd": 0.25, "lease_granted_usd": 1.25},
    ),
    (
        "refresh a stopped lease",
        """-X POST $url/api/budget/refresh $json -d '{"lease_id":"$stopped_lease_id"}' \
           $as_its_runtime""",
        200,
        REFRESH | {"status": "denied", "reason": "agent_stopped", "budget_granted_usd": 0},
    ),
    (
        "refresh no lease",
        """-X POST $url$api/budget/refresh $as_runtime $json -d '{"lease_id":"none"}'""",
        404,
        NO_LEASE,
    ),
    (
        "refresh by a negative amount",
        """-X POST $url/api/budget/refresh $as_runtime $json \
           -d '{"lease_id":"$lease","requested_budget_usd":-1}'""",
        400,
        invalid("requested_budget_usd"),
    ),
    (
        "return",
        """-X POST $url$api/budget/return $as_runtime $json \
           -d '{"lease_id":"$new_lease","spent_usd":0}'""",
        200,
        RETURN | {"returned_usd": 1, "lease_spent_usd": 0},
    ),
    (
        "return no lease",
        """-X POST $url$api/budget/return $as_runtime $json -d '{"lease_id":"none"}'""",
        404,
        NO_LEASE,
    ),
    (
        "return without a lease",
        "-X POST $url/api/budget/return $as_runtime $json -d '{}'",
        400,
        invalid("lease_id"),
    ),
]

SYSTEM: list[Row] = [
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
    ("no path", "$url/", 404, error("NOT_FOUND")),
    ("another path", "$url/api/nothing/here $as_admin", 404, error("NOT_FOUND")),
    ("a path too long", "$url/api/tokens/ $as_admin", 404, error("NOT_FOUND")),
    ("a path above", "--path-as-is $url/api/../health", 404, error("NOT_FOUND")),
]


def rows() -> Iterator[Any]:
    for name, arguments, status, shape in [
        *(*AUTH, *CREDENTIALS, *TOKENS, *AGENTS, *PROVIDERS, *BUDGETS, *SYSTEM)
    ]:
        if "$api" not in arguments:
            yield pytest.param(arguments, status, shape, id=name)
            continue
        for prefix in ("/api", "/api/v1"):
            call = arguments.replace("$api", prefix)
            yield pytest.param(call, status, shape, id=f"{name} under {prefix}")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    data_dir = tmp_path_factory.mktemp("iron") / "data"
    with steward(
        data_dir,
        STEWARD_STATIC_TOKEN=STATIC_TOKEN,
        STEWARD_AUTH_LOGINS_PER_MINUTE="10000",
        STEWARD_AUTH_LOCK_AFTER_FAILURES="10000",
        STEWARD_AUTH_REFRESH_GRACE_S="0",
        STEWARD_PROFILE="development",
    ) as server:
        scene = Scene(server, data_dir)
        yield scene
        # Whatever was asked, none of it was a fault of the server.
        counts = scene.run("$url/metrics").text.splitlines()
        calls = [line for line in counts if line.startswith("rpc_count_total{")]
        assert [line for line in calls if 'code="INTERNAL"' in line or "UNKNOWN" in line] == []
        assert "Traceback" not in server.log


@pytest.mark.parametrize(("arguments", "status", "shape"), list(rows()))
def test_a_path_answers(scene: Scene, arguments: str, status: int, shape: Any) -> None:
    answer = scene.run(arguments)
    assert answer.status == status, answer
    assert answer.headers["x-request-id"]
    if shape is NO_BODY:
        assert answer.text == ""
        return
    assert answer.headers["content-type"] == "application/json"
    assert list(differences(shape, answer.body)) == [], answer.text
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/auth/login", "POST, OPTIONS"),
        ("PATCH", "/api/tokens", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/api/tokens/t", "DELETE, GET, HEAD, OPTIONS"),
        ("GET", "/api/tokens/t/rotate", "POST, OPTIONS"),
        ("POST", "/api/v1/agents/a", "DELETE, GET, PATCH, HEAD, OPTIONS"),
        ("DELETE", "/api/agents/a/status", "GET, HEAD, OPTIONS"),
        ("PUT", "/api/budget/report", "POST, OPTIONS"),
        ("DELETE", "/api/v1/providers", "GET, POST, HEAD, OPTIONS"),
        ("DELETE", "/ws", "GET, OPTIONS"),
        ("POST", "/metrics", "GET, HEAD, OPTIONS"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    scene: Scene, method: str, path: str, allowed: str
) -> None:
    refused = scene.run(f"-X {method} $url{path}")
    assert (refused.status, refused.headers["allow"]) == (405, allowed)
    assert list(differences(NO_METHOD, refused.body)) == []
    asked = scene.run(f"-X OPTIONS $url{path}")
    assert (asked.status, asked.headers["allow"], asked.text) == (204, allowed, "")


def test_head_answers_as_get_without_the_body(scene: Scene) -> None:
    answer = scene.run("--head $url/health")
    assert (answer.status, answer.text) == (200, "")
    assert int(answer.headers["content-length"]) > 50


@pytest.mark.parametrize("how", ["", "-H 'Transfer-Encoding: chunked'"], ids=["sized", "chunked"])
def test_a_body_of_more_than_4_mib_is_refused(scene: Scene, tmp_path: Path, how: str) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(b'{"username":"' + b"a" * (4 * 1024 * 1024) + b'"}')
    answer = scene.run(f"-X POST $url/api/auth/login $json {how} --data-binary @{file}")
    assert answer.status == 413
    assert list(differences(error("PAYLOAD_TOO_LARGE"), answer.body)) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"username":"\xff\xfe","password":"x"}',
        b'{"username":"\\ud800","password":"x"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"username":"a"}{"username":"b"}',
        b'\xef\xbb\xbf{"username":"a","password":"x"}',
        b"null",
        b'"text"',
        b"\x00",
        b"{}}",
    ],
    ids=[
        *("no UTF-8", "half a surrogate", "deep lists", "deep objects", "two objects"),
        *("a byte order mark", "null", "a text", "NUL", "a brace too many"),
    ],
)
def test_a_body_that_is_no_request_is_refused(scene: Scene, tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "body"
    file.write_bytes(body)
    answer = scene.run(f"-X POST $url/api/auth/login $json --data-binary @{file}")
    assert answer.status == 400, answer
    assert answer.body["error"]["code"] == "VALIDATION_ERROR"


def test_a_report_is_booked_once_however_often_it_comes(scene: Scene) -> None:
    lease = scene["new_lease"]
    report = f"""-X POST $url/api/budget/report $as_runtime $json -d '{{"lease_id":"{lease}", \
        "request_id":"c1","model":"own","cost_usd":%s}}'"""
    first, again = scene.run(report % "0.25"), scene.run(report % "0.25")
    other = scene.run(report % "0.26")
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    assert other.status == 409
    reused = conflict("REQUEST_ID_REUSED", "request_id", "first_digest")
    assert list(differences(reused, other.body)) == []


def test_an_idempotency_key_makes_one_agent_of_two_calls(scene: Scene) -> None:
    create = """-X POST $url/api/v1/agents $as_admin $json -H 'Idempotency-Key: once' \
        -d '{"name":"%s","budget_usd":1}'"""
    first, again, other = (scene.run(create % name) for name in ("a", "a", "b"))
    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert again.body == first.body
    assert other.body["error"]["reason"] == "REQUEST_ID_REUSED"


def test_an_ended_thing_cannot_be_ended_again(scene: Scene) -> None:
    token, agent, lease = scene["new_token_id"], scene["new_agent"], scene["new_lease"]
    revoke = f"-X DELETE $url/api/tokens/{token} $as_admin"
    delete = f"-X DELETE $url/api/v1/agents/{agent} $as_admin"
    give_back = f"""-X POST $url/api/budget/return $as_runtime $json \
        -d '{{"lease_id":"{lease}"}}'"""
    firsts = [scene.run(call).status for call in (revoke, delete, give_back)]
    seconds = [scene.run(call) for call in (revoke, delete, give_back)]
    rotated = scene.run(f"-X POST $url/api/tokens/{token}/rotate $as_admin")

    assert firsts == [204, 204, 200]
    shapes = [
        error("CONFLICT", "TOKEN_REVOKED", details={"token_id": token}),
        NO_AGENT,
        conflict("LEASE_CLOSED", "state", "lease_id"),
    ]
    assert [answer.status for answer in seconds] == [409, 404, 409]
    for shape, answer in zip(shapes, seconds, strict=True):
        assert list(differences(shape, answer.body)) == []
    assert (rotated.status, rotated.body["error"]["reason"]) == (409, "TOKEN_REVOKED")


def test_a_rotated_token_is_good_at_once(scene: Scene) -> None:
    rotated = scene.run("-X POST $url/api/tokens/$new_token_id/rotate $as_admin").body
    scene["provider"]
    handshake = f"""-X POST $url/api/budget/handshake -H 'X-IC-Key: {rotated["token"]}' $json \
        -d '{{"provider":"openai"}}'"""
    assert scene.run(handshake).status == 200


def test_metrics_are_text_for_prometheus(scene: Scene) -> None:
    scene.run("$url/api/tokens/one $as_admin")
    answer = scene.run("$url/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'request_count_total{endpoint="/api/tokens/{token_id}",status="error"}' in answer.text


def test_an_access_token_ends_by_the_clock(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_AUTH_ACCESS_TOKEN_TTL_S="1") as server:
        scene = Scene(server, tmp_path / "data")
        call = f"$url/api/tokens -H 'Authorization: Bearer {scene['new_access_token']}'"
        until(lambda: scene.run(call).status == 401, "the token expires")
        answer = scene.run(call)
        expired = error("UNAUTHORIZED", "TOKEN_EXPIRED", details={"expired_at": TIME})
        assert list(differences(expired, answer.body)) == []


def test_too_many_attempts_to_sign_in_are_told_when_to_come_back(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_AUTH_LOGINS_PER_MINUTE="2") as server:
        login = [
            *("-X", "POST", f"{server.url}/api/auth/login", "-H", "Content-Type: application/json"),
            *("-d", '{"username":"admin","password":"wrong"}'),
        ]
        answers = [curl(*login) for _ in range(3)]
    assert [answer.status for answer in answers] == [401, 401, 429]
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["2", "2", "2"]
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["1", "0", "0"]
    refused = answers[2]
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    limited = error("RATE_LIMITED", details={"limit": "2"})
    assert list(differences(limited, refused.body)) == []
