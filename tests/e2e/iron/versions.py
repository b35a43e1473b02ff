"""Versions of what several people may change: read again, and changed under a condition."""

from __future__ import annotations

from tests.e2e.curl import error
from tests.e2e.iron.shapes import NO_BODY, Row

READ = {
    "agent": "/api/v1/agents/$new_agent",
    "project": "/api/v1/projects/$new_project",
    "organisation": "/api/v1/organisation",
    "provider": "/api/v1/providers/$new_provider_id",
    "user": "/api/v1/users/$new_user_id",
    "limit": "/api/v1/limits/$new_limit_scope",
}
"""Where each kind of thing is read."""

CHANGED = [
    ("agent", "PATCH", "", '{"name":"x"}'),
    ("agent", "DELETE", "", ""),
    ("project", "PATCH", "", '{"name":"x"}'),
    ("project", "DELETE", "", ""),
    ("organisation", "PATCH", "", '{"name":"x"}'),
    ("provider", "PATCH", "", '{"allow_plaintext_key":true}'),
    ("provider", "DELETE", "", ""),
    ("user", "PUT", "/suspend", "{}"),
    ("user", "PUT", "/activate", "{}"),
    ("user", "PUT", "/role", '{"role":"admin"}'),
    ("user", "POST", "/reset-password", '{"new_password":"another long one"}'),
    ("user", "DELETE", "", ""),
    ("limit", "PUT", "", '{"max_tokens_per_day":1}'),
    ("limit", "DELETE", "", ""),
]
"""The kind of thing, then how, below the path it is read at, and with which body it is changed."""


def _changes() -> list[Row]:
    rows: list[Row] = []
    for kind, method, below, body in CHANGED:
        call = f"-X {method} $url{READ[kind]}{below} $as_admin" + (
            f" $json -d '{body}'" * bool(body)
        )
        passed = error("PRECONDITION_FAILED", "VERSION_PASSED", details={kind: str, "version": str})
        what = f"{method} {kind}{below}"
        rows += [
            (
                f"{what} of a version that has passed",
                f"""{call} -H 'If-Match: "4711"'""",
                412,
                passed,
            ),
            (
                f"{what} of no version",
                f"""{call} -H 'If-Match: 4711'""",
                400,
                error("VALIDATION_ERROR", fields={"If-Match": str}),
            ),
        ]
    return rows


ROWS: list[Row] = [
    *(
        (f"{kind} that is known", f"$url{path} $as_admin -H 'If-None-Match: *'", 304, NO_BODY)
        for kind, path in READ.items()
    ),
    *_changes(),
    (
        "a change that compares no versions",
        """-X POST $url/api/agents/$new_agent/stop $as_admin $json -H 'If-Match: "1"' -d '{}'""",
        412,
        error("PRECONDITION_FAILED"),
    ),
]
