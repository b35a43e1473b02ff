"""Spending and usage, and single calls."""

from __future__ import annotations

from tests.e2e.curl import MONEY, TIME, error, invalid
from tests.e2e.iron.shapes import (
    MAYBE_TIME,
    NO_AGENT,
    NO_CREDENTIAL,
    NO_METHOD,
    NOT_ALLOWED,
    Row,
)

NO_FILTERS = dict.fromkeys(("agent_id", "provider_id", "provider", "model", "project_id"))
PAGINATION = {"page": 1, "per_page": 50, "total": int, "total_pages": int}
ASKED = {"period": "all-time", "filters": NO_FILTERS, "calculated_at": TIME}
BAD_PERIOD = error("VALIDATION_ERROR", "INVALID_PERIOD", fields={"period": str})

EVENT = (
    '"event_type":"llm_request_completed","timestamp":"$now","model":"gpt-5",'
    '"provider":"openai","input_tokens":3,"output_tokens":4'
)

POINT = {"begins_at": TIME, "spending": MONEY, "request_count": int, "total_tokens": int}

SHAPES = {
    "spending/total": {"total_spend": MONEY, "currency": "USD", **ASKED},
    "spending/by-agent": {
        "data": [
            {
                "agent_id": str,
                "agent_name": str,
                "spending": MONEY,
                "budget": MONEY,
                "percent_used": float,
                "request_count": int,
            }
        ],
        "summary": {
            "total_spend": MONEY,
            "total_budget": MONEY,
            "total_agents": int,
            "average_percent_used": float,
        },
        "pagination": PAGINATION,
        **ASKED,
    },
    "spending/by-provider": {
        "data": [
            {
                "provider": "openai",
                "provider_id": str,
                "spending": MONEY,
                "request_count": int,
                "avg_cost_per_request": MONEY,
                "agent_count": int,
            }
        ],
        "summary": {
            "total_spend": MONEY,
            "total_requests": int,
            "providers_count": int,
            "average_cost_per_request": MONEY,
        },
        "pagination": PAGINATION,
        **ASKED,
    },
    "spending/over-time": {
        "data": [POINT],
        "groups": [],
        "total_spend": MONEY,
        "total_requests": int,
        "total_tokens": int,
        "step": "day",
        **ASKED,
    },
    "spending/avg-per-request": {
        "average_cost_per_request": MONEY,
        "min_cost_per_request": MONEY,
        "max_cost_per_request": MONEY,
        "total_requests": int,
        "total_spend": MONEY,
        **ASKED,
    },
    "usage/requests": {
        "total_requests": int,
        "successful_requests": int,
        "failed_requests": int,
        "unbilled_requests": int,
        "success_rate": float,
        **ASKED,
        "period": "today",
    },
    "usage/tokens/by-agent": {
        "data": [
            {
                "agent_id": str,
                "agent_name": str,
                "input_tokens": int,
                "output_tokens": int,
                "cached_tokens": int,
                "total_tokens": int,
                "unbilled_tokens": int,
                "request_count": int,
                "avg_tokens_per_request": float,
            }
        ],
        "summary": {
            "total_input_tokens": int,
            "total_output_tokens": int,
            "total_cached_tokens": int,
            "total_tokens": int,
            "total_unbilled_tokens": int,
            "total_requests": int,
            "average_tokens_per_request": float,
        },
        "pagination": PAGINATION,
        **ASKED,
    },
    "usage/models": {
        "data": [
            {
                "model": str,
                "provider": str,
                "request_count": int,
                "spending": MONEY,
                "input_tokens": int,
                "output_tokens": int,
                "cached_tokens": int,
                "total_tokens": int,
                "unbilled_requests": int,
                "avg_cost_per_request": MONEY,
            }
        ],
        "summary": {"unique_models": int, "total_requests": int, "total_spend": MONEY},
        "pagination": PAGINATION,
        **ASKED,
    },
}
BUDGETS = {
    "data": [
        {
            "agent_id": str,
            "agent_name": str,
            "budget": MONEY,
            "spent": MONEY,
            "remaining": MONEY,
            "percent_used": float,
            "status": str,
            "risk_level": str,
            "risk_scope": str,
        }
    ],
    "summary": dict.fromkeys(
        (
            "total_agents",
            "active",
            "inactive",
            "exhausted",
            "critical",
            "high",
            "medium",
            "low",
        ),
        int,
    ),
    "pagination": PAGINATION,
    "calculated_at": TIME,
}
TOTALS = {
    "allocated": MONEY,
    "reserved": MONEY,
    "spent": MONEY,
    "overrun": MONEY,
    "available": MONEY,
    "percent_used": float,
    "requests": int,
    "tokens": int,
}
USAGE = {
    "agents": [TOTALS | {"agent_id": str, "agent_name": str, "risk_level": str, "risk_scope": str}],
    "totals": TOTALS | {"agents": int},
    "pagination": PAGINATION,
    "calculated_at": TIME,
}
TRACE = {
    "id": str,
    "agent_id": str,
    "lease_id": str,
    "request_id": str,
    "provider": str,
    "model": str,
    "status": str,
    "billed": bool,
    "input_tokens": int,
    "output_tokens": int,
    "cache_read_tokens": int,
    "cache_write_tokens": int,
    "total_tokens": int,
    "cost_usd": MONEY,
    "overrun_usd": MONEY,
    "claimed_cost_usd": (int, float, None),
    "certainty": str,
    "error_code": str,
    "error_message": str,
    "duration_ms": (int, None),
    "ended_at": MAYBE_TIME,
    "recorded_at": TIME,
}
NO_TRACE = error("NOT_FOUND", "TRACE_NOT_FOUND", details={"trace": str})

ROWS: list[Row] = [
    (
        "tell of a call",
        f"""-X POST $url/api/v1/analytics/events $as_runtime $json \
           -d '{{"event_id":"$new_name",{EVENT}}}'""",
        202,
        {"status": "accepted", "accepted": 1, "duplicates": 0, "rejected": []},
    ),
    (
        "tell of several calls, one of them oddly",
        f"""-X POST $url/api/v1/analytics/events $as_runtime $json \
           -d '{{"events":[{{"event_id":"$new_name",{EVENT}}},{{"event_id":"",{EVENT}}}]}}'""",
        202,
        {
            "status": "partial",
            "accepted": 1,
            "duplicates": 0,
            "rejected": [{"index": 1, "reason": "event_id is missing"}],
        },
    ),
    (
        "tell of a booked call",
        f"""-X POST $url/api/v1/analytics/events $as_spender $json \
           -d '{{"event_id":"c",{EVENT}}}'""",
        202,
        {"status": "accepted", "accepted": 0, "duplicates": 1, "rejected": []},
    ),
    (
        "tell of a call with less than no tokens",
        f"""-X POST $url/api/v1/analytics/events $as_runtime $json \
           -d '{{"event_id":"x",{EVENT.replace(":3", ":-3")}}}'""",
        400,
        invalid("input_tokens"),
    ),
    (
        "tell of NaN",
        """-X POST $url/api/v1/analytics/events $as_runtime $json -d '{"cost_usd":NaN}'""",
        400,
        error("VALIDATION_ERROR"),
    ),
    (
        "tell of nothing",
        "-X POST $url/api/v1/analytics/events $as_runtime $json -d '{}'",
        400,
        invalid("events"),
    ),
    (
        "tell of a call as an administrator",
        f"""-X POST $url/api/v1/analytics/events $as_admin $json \
           -d '{{"event_id":"x",{EVENT}}}'""",
        403,
        NOT_ALLOWED,
    ),
    ("tell as nobody", "-X POST $url/api/v1/analytics/events", 401, NO_CREDENTIAL),
    *(
        row
        for path, shape in SHAPES.items()
        for row in (
            (f"{path}", f"$url/api/v1/analytics/{path} $as_admin", 200, shape),
            (
                f"{path} for someone without agents",
                f"$url/api/v1/analytics/{path}?period=last-30-days $as_viewer",
                200,
                shape
                | {"period": "last-30-days"}
                | ({"data": [None]} if "pagination" in shape else {}),
            ),
            (
                f"{path} of a period that is none",
                f"$url/api/v1/analytics/{path}?period=last7-days $as_admin",
                400,
                BAD_PERIOD,
            ),
            (
                f"{path} of the agent of another",
                f"$url/api/v1/analytics/{path}?agent_id=$busy_agent $as_user",
                404,
                NO_AGENT,
            ),
            (
                f"{path} of no provider",
                f"$url/api/v1/analytics/{path}?provider_id=none $as_admin",
                404,
                error("NOT_FOUND", "PROVIDER_NOT_FOUND", details={"provider": "none"}),
            ),
            (
                f"{path} for a runtime",
                f"$url/api/v1/analytics/{path} $as_runtime",
                403,
                NOT_ALLOWED,
            ),
            (f"{path} as nobody", f"$url/api/v1/analytics/{path}", 401, NO_CREDENTIAL),
            (f"post to {path}", f"-X POST $url/api/v1/analytics/{path} $as_admin", 405, NO_METHOD),
        )
    ),
    (
        "the models of an agent, page by page",
        "$url/api/v1/analytics/usage/models?agent_id=$busy_agent&per_page=1&page=9 $as_admin",
        200,
        SHAPES["usage/models"]
        | {
            "data": [None],
            "pagination": {"page": 9, "per_page": 1, "total": 1, "total_pages": 1},
            "filters": NO_FILTERS | {"agent_id": str},
        },
    ),
    (
        "a page of nothing",
        "$url/api/v1/analytics/usage/models?per_page=0&page=0 $as_admin",
        400,
        invalid("page", "per_page"),
    ),
    ("budget status", "$url/api/v1/analytics/budget/status $as_admin", 200, BUDGETS),
    (
        "budget status above a share",
        "$url/api/v1/analytics/budget/status?threshold=5&status=active&risk_level=low $as_admin",
        200,
        BUDGETS,
    ),
    (
        "budget status of no risk there is",
        "$url/api/v1/analytics/budget/status?risk_level=huge $as_admin",
        400,
        invalid("risk_level"),
    ),
    (
        "budget status of the agent of another",
        "$url/api/v1/analytics/budget/status?agent_id=$agent $as_user",
        404,
        NO_AGENT,
    ),
    ("usage", "$url$api/usage $as_admin", 200, USAGE),
    (
        "usage of an agent",
        "$url$api/usage?agent_id=$busy_agent $as_admin",
        200,
        USAGE | {"totals": TOTALS | {"agents": 1, "allocated": 10, "reserved": 4, "spent": 1}},
    ),
    ("usage of the agent of another", "$url$api/usage?agent_id=$agent $as_user", 404, NO_AGENT),
    ("usage for a runtime", "$url/api/usage $as_runtime", 403, NOT_ALLOWED),
    ("usage as nobody", "$url$api/usage", 401, NO_CREDENTIAL),
    (
        "traces",
        "$url/api/v1/traces?page_size=2 $as_admin",
        200,
        {"traces": [TRACE], "next_page_token": str},
    ),
    (
        "traces of an agent",
        "$url/api/v1/traces?agent_id=$busy_agent&status=completed $as_admin",
        200,
        {
            "traces": [TRACE | {"request_id": "c", "billed": True, "cost_usd": 1}],
            "next_page_token": "",
        },
    ),
    (
        "traces of someone without agents",
        "$url/api/v1/traces $as_user",
        200,
        {"traces": [None], "next_page_token": ""},
    ),
    (
        "traces of no status",
        "$url/api/v1/traces?status=odd $as_admin",
        400,
        invalid("status"),
    ),
    ("traces as nobody", "$url/api/v1/traces", 401, NO_CREDENTIAL),
    ("a trace", "$url/api/v1/traces/$trace $as_admin", 200, TRACE),
    ("the trace of another", "$url/api/v1/traces/$trace $as_user", 404, NO_TRACE),
    ("no trace", "$url/api/v1/traces/trace_none $as_admin", 404, NO_TRACE),
]
