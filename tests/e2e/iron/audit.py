"""The audit log."""

from __future__ import annotations

import re

from tests.e2e.curl import invalid
from tests.e2e.iron.shapes import AUDIT_ENTRY, NOT_ALLOWED, Row

ROWS: list[Row] = [
    (
        "list what was done",
        """-G $url/api/v1/audit -d resource_type=agent -d page_size=1 -d resource_id=$agent \
           -d since=2020-01-01T00:00:00Z -d until=2999-01-01T00:00:00Z $as_admin""",
        200,
        {
            "entries": [AUDIT_ENTRY | {"action": "agent.created", "before": None}],
            "next_page_token": str,
        },
    ),
    (
        "list what was done by wrong filters",
        """-G $url/api/v1/audit -d page_size=-1 -d page_token=x \
           -d since=2020-01-01T00:00:00Z -d until=2019-01-01T00:00:00Z $as_admin""",
        400,
        invalid("page_size", "page_token", "until"),
    ),
    ("list what was done as a user", "$url/api/v1/audit $as_user", 403, NOT_ALLOWED),
    (
        "verify the audit log",
        "$url/api/v1/audit/verify $as_admin",
        200,
        {
            "verified": True,
            "entries": int,
            "head_number": int,
            "head_hash": re.compile("[0-9a-f]{64}"),
            "broken_at": 0,
            "what": "",
        },
    ),
    (
        "verify the audit log against nonsense",
        "'$url/api/v1/audit/verify?known_number=1&known_hash=x' $as_admin",
        400,
        invalid("known_hash"),
    ),
]
