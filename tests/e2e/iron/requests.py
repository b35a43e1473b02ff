"""Requests for larger budgets, and how budgets changed."""

from __future__ import annotations

from tests.e2e.curl import MONEY, TIME, error, invalid
from tests.e2e.iron.shapes import (
    BUDGET,
    MAYBE_TIME,
    NO_AGENT,
    NO_BODY,
    NO_CREDENTIAL,
    NO_METHOD,
    NOT_ALLOWED,
    Row,
)

MAYBE_MONEY = (int, float, None)
REQUEST = {
    "id": str,
    "agent_id": str,
    "agent_name": str,
    "requester_id": str,
    "requester_name": str,
    "requester_kind": str,
    "current_budget_usd": MONEY,
    "requested_budget_usd": MONEY,
    "justification": str,
    "expires_in_s": (int, None),
    "status": str,
    "reviewer_id": (str, None),
    "reviewed_at": MAYBE_TIME,
    "review_notes": (str, None),
    "rejection_reason": (str, None),
    "previous_budget_usd": MAYBE_MONEY,
    "approved_budget_usd": MAYBE_MONEY,
    "expires_at": MAYBE_TIME,
    "created_at": TIME,
    "updated_at": TIME,
    "agent_budget": BUDGET,
}
PENDING = REQUEST | {
    "status": "pending",
    "reviewer_id": None,
    "reviewed_at": None,
    "review_notes": None,
    "rejection_reason": None,
    "previous_budget_usd": None,
    "approved_budget_usd": None,
    "expires_at": None,
}
NO_REQUEST = error("NOT_FOUND", "BUDGET_REQUEST_NOT_FOUND", details={"budget_request": str})
REVIEWED = error(
    "CONFLICT",
    "REQUEST_ALREADY_REVIEWED",
    details={
        "budget_request_id": str,
        "status": "cancelled",
        "reviewer_id": str,
        "reviewed_at": TIME,
    },
)
UNCHANGED = error(
    "VALIDATION_ERROR",
    "BUDGET_UNCHANGED",
    fields={"requested_budget_usd": str},
    details={"current_nanousd": "10000000000", "requested_nanousd": "10000000000"},
)
CHANGE = {
    "sequence": int,
    "agent_id": str,
    "old_budget_usd": 10,
    "new_budget_usd": 12,
    "change_usd": 2,
    "cause": "set",
    "changed_by": str,
    "reason": "a slow start",
    "budget_request_id": "",
    "changed_at": TIME,
}
WHY = "The crawl has grown a lot."
URL = "$url/api/v1/budget/requests"

ROWS: list[Row] = [
    (
        "ask for a larger budget",
        f"""-X POST {URL} $as_admin $json -d '{{"agent_id":"$new_agent", \
            "requested_budget_usd":12.5,"justification":"  {WHY} ","expires_in_s":3600}}'""",
        201,
        PENDING
        | {
            "requester_name": "admin",
            "requester_kind": "person",
            "current_budget_usd": 10,
            "requested_budget_usd": 12.5,
            "justification": WHY,
            "expires_in_s": 3600,
        },
    ),
    (
        "ask as a runtime",
        f"""-X POST {URL} $as_runtime $json \
            -d '{{"requested_budget_usd":"2000.000000001","justification":"{WHY}"}}'""",
        201,
        PENDING | {"requester_kind": "agent", "requested_budget_usd": 2000.000000001},
    ),
    (
        "ask for nothing",
        f"-X POST {URL} $as_admin $json -d '{{}}'",
        400,
        invalid("agent_id", "requested_budget_usd", "justification"),
    ),
    (
        "ask with everything wrong",
        f"""-X POST {URL} $as_admin $json -d '{{"agent_id":"$agent","expires_in_s":0, \
            "requested_budget_usd":1000000.000000001,"justification":"too short"}}'""",
        400,
        invalid("requested_budget_usd", "justification", "expires_in_s"),
    ),
    (
        "ask for what there is",
        f"""-X POST {URL} $as_admin $json -d '{{"agent_id":"$new_agent", \
            "requested_budget_usd":10,"justification":"{WHY}"}}'""",
        400,
        UNCHANGED,
    ),
    (
        "ask for less",
        f"""-X POST {URL} $as_admin $json -d '{{"agent_id":"$new_agent", \
            "requested_budget_usd":9,"justification":"{WHY}"}}'""",
        400,
        error(
            "VALIDATION_ERROR",
            "BUDGET_DECREASE_REQUEST",
            fields={"requested_budget_usd": str},
            details={"current_nanousd": str, "requested_nanousd": "9000000000"},
        ),
    ),
    *(
        (
            f"ask for {money}",
            f"""-X POST {URL} $as_admin $json -d '{{"agent_id":"$agent", \
                "requested_budget_usd":{money},"justification":"{WHY}"}}'""",
            400,
            invalid("requested_budget_usd"),
        )
        for money in ("-1", "0", '"NaN"', "1e300", "0.0000000001", "true")
    ),
    (
        "ask for the agent of another",
        f"""-X POST {URL} $as_user $json -d '{{"agent_id":"$agent", \
            "requested_budget_usd":5000,"justification":"{WHY}"}}'""",
        404,
        NO_AGENT,
    ),
    (
        "ask as a viewer",
        f"""-X POST {URL} $as_viewer $json -d '{{"agent_id":"$agent", \
            "requested_budget_usd":5000,"justification":"{WHY}"}}'""",
        403,
        NOT_ALLOWED,
    ),
    ("ask as nobody", f"-X POST {URL} $json -d '{{}}'", 401, NO_CREDENTIAL),
    (
        "list requests",
        f"{URL}?status=pending&page_size=1&agent_id=$agent $as_admin",
        200,
        {"budget_requests": [PENDING], "next_page_token": str},
    ),
    (
        "list the requests of someone who made none",
        f"{URL} $as_user",
        200,
        {"budget_requests": [], "next_page_token": ""},
    ),
    ("list requests in no state", f"{URL}?status=open $as_admin", 400, invalid("status")),
    ("list requests from nowhere", f"{URL}?page_token=x $as_admin", 400, invalid("page_token")),
    ("list requests as nobody", URL, 401, NO_CREDENTIAL),
    ("get a request", f"{URL}/$new_budget_request $as_admin", 200, PENDING),
    ("get no request", f"{URL}/breq_none $as_admin", 404, NO_REQUEST),
    ("get the request of another", f"{URL}/$new_budget_request $as_user", 404, NO_REQUEST),
    ("get the request of another agent", f"{URL}/$new_budget_request $as_runtime", 404, NO_REQUEST),
    (
        "approve a request",
        f"-X PATCH {URL}/$new_budget_request/approve $as_admin $json -d '{{}}'",
        200,
        REQUEST
        | {
            "status": "approved",
            "reviewer_id": str,
            "reviewed_at": TIME,
            "review_notes": "",
            "previous_budget_usd": 10,
            "approved_budget_usd": 20,
            "agent_budget": BUDGET | {"limit_usd": 20, "available_usd": 20},
        },
    ),
    (
        "approve less for a while",
        f"""-X PATCH {URL}/$new_budget_request/approve $as_admin $json \
            -d '{{"approved_budget_usd":15,"review_notes":"for now","expires_in_s":60}}'""",
        200,
        REQUEST
        | {
            "status": "approved",
            "review_notes": "for now",
            "approved_budget_usd": 15,
            "expires_at": TIME,
            "agent_budget": BUDGET | {"limit_usd": 15},
        },
    ),
    (
        "approve more than was asked",
        f"""-X PATCH {URL}/$new_budget_request/approve $as_admin $json \
            -d '{{"approved_budget_usd":20.000000001}}'""",
        400,
        error("VALIDATION_ERROR", "APPROVAL_EXCEEDS_REQUEST", fields={"approved_budget_usd": str}),
    ),
    (
        "approve no more than there is",
        f"""-X PATCH {URL}/$new_budget_request/approve $as_admin $json \
            -d '{{"approved_budget_usd":10}}'""",
        400,
        error(
            "VALIDATION_ERROR",
            "APPROVAL_DECREASES_BUDGET",
            fields={"approved_budget_usd": str},
            details={"current_nanousd": "10000000000"},
        ),
    ),
    (
        "approve what is decided",
        f"-X PATCH {URL}/$decided_budget_request/approve $as_admin $json -d '{{}}'",
        409,
        REVIEWED,
    ),
    (
        "approve as a user",
        f"-X PATCH {URL}/$new_budget_request/approve $as_user $json -d '{{}}'",
        403,
        NOT_ALLOWED,
    ),
    (
        "approve by POST",
        f"-X POST {URL}/$new_budget_request/approve $as_admin $json -d '{{}}'",
        405,
        NO_METHOD,
    ),
    (
        "reject a request",
        f"""-X PATCH {URL}/$new_budget_request/reject $as_admin $json \
            -d '{{"rejection_reason":"There is no money left now."}}'""",
        200,
        REQUEST
        | {
            "status": "rejected",
            "rejection_reason": "There is no money left now.",
            "review_notes": None,
            "approved_budget_usd": None,
            "agent_budget": BUDGET | {"limit_usd": 10},
        },
    ),
    (
        "reject without a reason",
        f"-X PATCH {URL}/$new_budget_request/reject $as_admin $json -d '{{}}'",
        400,
        invalid("rejection_reason"),
    ),
    (
        "reject what is decided",
        f"""-X PATCH {URL}/$decided_budget_request/reject $as_admin $json \
            -d '{{"rejection_reason":"There is no money left now."}}'""",
        409,
        REVIEWED,
    ),
    ("cancel a request", f"-X DELETE {URL}/$new_budget_request $as_admin", 204, NO_BODY),
    ("cancel what is decided", f"-X DELETE {URL}/$decided_budget_request $as_admin", 409, REVIEWED),
    ("cancel no request", f"-X DELETE {URL}/breq_none $as_admin", 404, NO_REQUEST),
    (
        "see how a budget changed",
        "$url/api/v1/agents/$raised_agent/budget/history $as_admin",
        200,
        {
            "agent_id": str,
            "changes": [CHANGE],
            "summary": {
                "initial_budget_usd": 10,
                "current_budget_usd": 12,
                "total_increases_usd": 2,
                "change_count": 1,
                "temporary_usd": 0,
                "temporary_until": None,
            },
            "next_page_token": "",
        },
    ),
    (
        "see how the budget of another's agent changed",
        "$url/api/v1/agents/$agent/budget/history $as_user",
        404,
        NO_AGENT,
    ),
    (
        "give a reason for no budget",
        """-X PATCH $url/api/v1/agents/$agent $as_admin $json \
           -d '{"name":"b","budget_reason":"why not"}'""",
        400,
        invalid("budget_reason"),
    ),
]
