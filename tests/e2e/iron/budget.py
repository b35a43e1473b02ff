"""Money lent, spent and given back."""

from __future__ import annotations

from tests.e2e.curl import conflict, error, invalid
from tests.e2e.iron.shapes import (
    GRANT,
    NO_CREDENTIAL,
    NO_LEASE,
    NO_METHOD,
    NO_MONEY,
    REFRESH,
    REPORT,
    RETURN,
    Row,
)

ROWS: list[Row] = [
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
