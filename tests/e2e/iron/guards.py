"""Limits, webhooks, and provider keys handed over once more."""

from __future__ import annotations

from tests.e2e.curl import conflict, error, invalid
from tests.e2e.iron.shapes import (
    DELIVERY,
    LIMIT,
    NEW_WEBHOOK,
    NO_BODY,
    NO_CREDENTIAL,
    NO_LEASE,
    NO_WEBHOOK,
    NOT_ALLOWED,
    PROVIDER_KEY,
    WEBHOOK,
    Row,
)

ROWS: list[Row] = [
    (
        "set a limit",
        """-X PUT $url/api/v1/limits/agent:$new_agent $as_admin $json \
           -d '{"max_requests_per_minute":60,"max_cost_per_month_usd":"2.5"}'""",
        200,
        LIMIT
        | {
            "max_requests_per_minute": 60,
            "max_tokens_per_day": None,
            "max_cost_per_month_usd": 2.5,
        },
    ),
    (
        "set a limit of nothing on nobody",
        """-X PUT $url/api/v1/limits/nobody $as_admin $json -d '{"max_tokens_per_day":0}'""",
        400,
        invalid("scope", "max_tokens_per_day"),
    ),
    (
        "set a limit as a user",
        """-X PUT $url/api/v1/limits/everyone $as_user $json -d '{"max_tokens_per_day":1}'""",
        403,
        NOT_ALLOWED,
    ),
    (
        "get a limit",
        "$url/api/v1/limits/$new_limit_scope $as_user",
        404,
        error("NOT_FOUND", "LIMIT_NOT_FOUND", details={"limit": str}),
    ),
    (
        "get a limit as an administrator",
        "$url/api/v1/limits/$new_limit_scope $as_admin",
        200,
        LIMIT | {"max_tokens_per_day": 1_000, "version": 1},
    ),
    ("get a limit as a runtime", "$url/api/v1/limits/everyone $as_runtime", 403, NOT_ALLOWED),
    ("get a limit of nothing", "$url/api/v1/limits/nobody $as_admin", 400, invalid("scope")),
    (
        "list limits",
        "$url$api/limits $as_admin",
        200,
        {"limits": [LIMIT], "next_page_token": str},
    ),
    ("list limits without a credential", "$url$api/limits", 401, NO_CREDENTIAL),
    ("list limits as a runtime", "$url$api/limits $as_runtime", 403, NOT_ALLOWED),
    (
        "list limits from nowhere",
        "'$url$api/limits?page_size=1001&page_token=x' $as_admin",
        400,
        invalid("page_size", "page_token"),
    ),
    (
        "lift a limit",
        "-X DELETE $url/api/v1/limits/$new_limit_scope $as_admin",
        204,
        NO_BODY,
    ),
    (
        "lift no limit",
        "-X DELETE $url/api/v1/limits/agent:none $as_admin",
        404,
        error("NOT_FOUND", "LIMIT_NOT_FOUND", details={"limit": "agent:none"}),
    ),
    (
        "handshake beyond a limit on requests",
        """-X POST $url/api/budget/handshake $as_throttled_runtime $json \
           -d '{"provider":"$provider"}'""",
        429,
        error("RATE_LIMITED", "LIMIT_REQUESTS_PER_MINUTE", details={"scope": str, "limit": "1"}),
    ),
    (
        "handshake beyond a limit on money",
        """-X POST $url/api/budget/handshake $as_capped_runtime $json \
           -d '{"provider":"$provider"}'""",
        402,
        error(
            "BUDGET_EXCEEDED",
            "LIMIT_COST_PER_MONTH",
            details={
                "scope": str,
                "limit_nanousd": "1000000000",
                "spent_nanousd": "0",
                "leased_nanousd": "1000000000",
            },
        ),
    ),
    (
        "provider key",
        """-X POST $url/api/v1/agents/provider-key $as_assigned_runtime $json \
           -d '{"lease_id":"$assigned_lease"}'""",
        200,
        PROVIDER_KEY,
    ),
    (
        "provider key of no lease",
        """-X POST $url/api/v1/agents/provider-key $as_assigned_runtime $json \
           -d '{"lease_id":"none"}'""",
        404,
        NO_LEASE,
    ),
    (
        "provider key of an agent without a provider",
        """-X POST $url/api/v1/agents/provider-key $as_runtime $json \
           -d '{"lease_id":"$new_lease"}'""",
        403,
        error(
            "FORBIDDEN",
            "NO_PROVIDER_ASSIGNED",
            details={"agent_id": str, "assigned": "", "provider": "openai"},
        ),
    ),
    (
        "provider key of a lease that is being revoked",
        """-X POST $url/api/v1/agents/provider-key $json \
           -d '{"lease_id":"$stopped_lease_id"}' $as_its_runtime""",
        409,
        conflict("LEASE_CLOSED", "state", "lease_id"),
    ),
    (
        "provider key to half a key",
        """-X POST $url/api/v1/agents/provider-key $as_assigned_runtime $json \
           -d '{"public_key":"AAAA"}'""",
        400,
        invalid("lease_id", "public_key"),
    ),
    (
        "provider key without a credential",
        "-X POST $url/api/v1/agents/provider-key $json -d '{}'",
        401,
        NO_CREDENTIAL,
    ),
    (
        "create a webhook",
        """-X POST $url/api/v1/webhooks $as_admin $json \
           -d '{"url":"https://hooks.invalid/x","events":["Overrun"],"description":"ops"}'""",
        201,
        NEW_WEBHOOK | {"events": ["Overrun"], "enabled": True},
    ),
    (
        "create a webhook into a private network",
        """-X POST $url/api/v1/webhooks $as_admin $json \
           -d '{"url":"https://169.254.169.254/latest"}'""",
        400,
        invalid("url"),
    ),
    (
        "create a webhook of nothing",
        """-X POST $url/api/v1/webhooks $as_admin $json \
           -d '{"events":["Nothing"],"secret":"short"}'""",
        400,
        invalid("url", "events", "secret"),
    ),
    (
        "create a webhook as a runtime",
        "-X POST $url/api/v1/webhooks $as_runtime $json -d '{}'",
        403,
        NOT_ALLOWED,
    ),
    (
        "list webhooks",
        "$url/api/v1/webhooks $as_admin",
        200,
        {"webhooks": [WEBHOOK], "next_page_token": str},
    ),
    ("list webhooks as a user", "$url/api/v1/webhooks $as_user", 403, NOT_ALLOWED),
    ("get a webhook", "$url/api/v1/webhooks/$new_webhook_id $as_admin", 200, WEBHOOK),
    ("get no webhook", "$url/api/v1/webhooks/none $as_admin", 404, NO_WEBHOOK),
    (
        "disable a webhook",
        """-X PATCH $url/api/v1/webhooks/$new_webhook_id $as_admin $json \
           -d '{"enabled":false,"events":{"types":[]}}'""",
        200,
        WEBHOOK | {"enabled": False, "events": []},
    ),
    (
        "change nothing of a webhook",
        "-X PATCH $url/api/v1/webhooks/$new_webhook_id $as_admin $json -d '{}'",
        400,
        error("VALIDATION_ERROR", "NO_FIELDS_PROVIDED"),
    ),
    (
        "rotate a webhook's secret",
        "-X POST $url/api/v1/webhooks/$new_webhook_id/rotate $as_admin $json -d '{}'",
        200,
        NEW_WEBHOOK,
    ),
    (
        "rotate no webhook's secret",
        "-X POST $url/api/v1/webhooks/none/rotate $as_admin $json -d '{}'",
        404,
        NO_WEBHOOK,
    ),
    (
        "test a webhook",
        "-X POST $url/api/v1/webhooks/$new_webhook_id/test $as_admin $json -d '{}'",
        202,
        DELIVERY | {"event_type": "Test", "status": "pending"},
    ),
    (
        "test a disabled webhook",
        "-X POST $url/api/v1/webhooks/$disabled_webhook_id/test $as_admin $json -d '{}'",
        409,
        conflict("WEBHOOK_DISABLED", "webhook_id"),
    ),
    (
        "list deliveries",
        "$url/api/v1/webhooks/$tested_webhook_id/deliveries $as_admin",
        200,
        {"deliveries": [DELIVERY], "next_page_token": ""},
    ),
    (
        "list deliveries of no webhook",
        "$url/api/v1/webhooks/none/deliveries $as_admin",
        404,
        NO_WEBHOOK,
    ),
    (
        "delete a webhook",
        "-X DELETE $url/api/v1/webhooks/$new_webhook_id $as_admin",
        204,
        NO_BODY,
    ),
    ("delete no webhook", "-X DELETE $url/api/v1/webhooks/none $as_admin", 404, NO_WEBHOOK),
]
