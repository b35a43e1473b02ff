"""Projects and the organisation."""

from __future__ import annotations

from tests.e2e.curl import TIME, conflict, error, invalid
from tests.e2e.iron.shapes import (
    NO_BODY,
    NO_METHOD,
    NO_PROJECT,
    NOT_ALLOWED,
    ORGANISATION,
    PROJECT,
    SCOPE_BUDGET,
    Row,
)

PROJECT_BUDGET = {"budget": SCOPE_BUDGET, "children": [SCOPE_BUDGET], "next_page_token": str}

ROWS: list[Row] = [
    (
        "create a project",
        """-X POST $url/api/v1/projects $as_admin $json -d '{"name":"p","budget_usd":12.5}'""",
        201,
        PROJECT | {"name": "p", "budget": SCOPE_BUDGET | {"limit_usd": 12.5}},
    ),
    (
        "create a project without a limit",
        """-X POST $url/api/v1/projects $as_admin $json -d '{"name":"p","budget_usd":null}'""",
        201,
        PROJECT
        | {
            "budget": SCOPE_BUDGET
            | {"limit_usd": None, "available_usd": None, "percent_used": None}
        },
    ),
    (
        "create a project that only counts, by the week",
        """-X POST $url/api/v1/projects $as_admin $json \
           -d '{"name":"p","budget_usd":1,"mode":"informative","period":"week"}'""",
        201,
        PROJECT
        | {
            "budget": SCOPE_BUDGET
            | {
                "mode": "informative",
                "period": "week",
                "period_start": TIME,
                "period_end": TIME,
                "available_usd": None,
            }
        },
    ),
    (
        "create a project of nothing",
        "-X POST $url/api/v1/projects $as_admin $json -d '{}'",
        400,
        invalid("name"),
    ),
    (
        "create a project of everything wrong",
        """-X POST $url/api/v1/projects $as_admin $json -d '{"name":" ","budget_usd":-1}'""",
        400,
        invalid("name", "budget_usd"),
    ),
    *(
        (
            f"create a project with {field} {value}",
            f"""-X POST $url/api/v1/projects $as_admin $json \
                -d '{{"name":"p","{field}":{value}}}'""",
            400,
            invalid(field),
        )
        for field, value in [
            ("budget_usd", "100000000.000000001"),
            ("budget_usd", '"NaN"'),
            ("mode", '"strict"'),
            ("period", '"year"'),
            ("colour", "1"),
        ]
    ),
    (
        "create a project as a user",
        """-X POST $url/api/v1/projects $as_user $json -d '{"name":"p"}'""",
        403,
        NOT_ALLOWED,
    ),
    (
        "list projects",
        "$url/api/v1/projects?page_size=1 $as_admin",
        200,
        {"projects": [dict], "next_page_token": str},
    ),
    (
        "list the projects of someone who has none",
        "$url/api/v1/projects $as_user",
        200,
        {"projects": [], "next_page_token": ""},
    ),
    (
        "list projects from nowhere",
        "$url/api/v1/projects?page_token=nowhere&page_size=1001 $as_admin",
        400,
        invalid("page_token", "page_size"),
    ),
    ("get a project", "$url/api/v1/projects/$project $as_admin", 200, PROJECT),
    ("get no project", "$url/api/v1/projects/nothing $as_admin", 404, NO_PROJECT),
    ("get the project of others", "$url/api/v1/projects/$project $as_user", 404, NO_PROJECT),
    (
        "change a project",
        """-X PATCH $url/api/v1/projects/$new_project $as_admin $json \
           -d '{"name":"q","budget_usd":20}'""",
        200,
        PROJECT | {"name": "q", "budget": SCOPE_BUDGET | {"name": "q", "limit_usd": 20}},
    ),
    (
        "take a project's limit away",
        """-X PATCH $url/api/v1/projects/$new_project $as_admin $json -d '{"unlimited":true}'""",
        200,
        PROJECT | {"budget": SCOPE_BUDGET | {"limit_usd": None}},
    ),
    (
        "change a project to both",
        """-X PATCH $url/api/v1/projects/$project $as_admin $json \
           -d '{"unlimited":true,"budget_usd":1}'""",
        400,
        invalid("unlimited"),
    ),
    (
        "change nothing of a project",
        "-X PATCH $url/api/v1/projects/$project $as_admin $json -d '{}'",
        400,
        error("VALIDATION_ERROR", "NO_FIELDS_PROVIDED"),
    ),
    (
        "take back what a project has lent",
        """-X PATCH $url/api/v1/projects/$busy_project $as_admin $json -d '{"budget_usd":4.99}'""",
        409,
        conflict("BUDGET_BELOW_COMMITTED", "allocated_nanousd", "committed_nanousd", "account_id"),
    ),
    (
        "change no project",
        """-X PATCH $url/api/v1/projects/nothing $as_admin $json -d '{"name":"q"}'""",
        404,
        NO_PROJECT,
    ),
    (
        "the budget of a project",
        "$url/api/v1/projects/$busy_project/budget $as_admin",
        200,
        PROJECT_BUDGET
        | {
            "budget": SCOPE_BUDGET | {"spent_usd": 1, "reserved_usd": 4},
            "children": [SCOPE_BUDGET | {"spent_usd": 1, "reserved_usd": 4}],
            "next_page_token": "",
        },
    ),
    (
        "the budget of no project",
        "$url/api/v1/projects/nothing/budget $as_admin",
        404,
        NO_PROJECT,
    ),
    (
        "the budget of a project from nowhere",
        "$url/api/v1/projects/$project/budget?page_token=nowhere $as_admin",
        400,
        invalid("page_token"),
    ),
    ("delete a project", "-X DELETE $url/api/v1/projects/$new_project $as_admin", 204, NO_BODY),
    ("delete no project", "-X DELETE $url/api/v1/projects/nothing $as_admin", 404, NO_PROJECT),
    (
        "delete a project with agents",
        "-X DELETE $url/api/v1/projects/$busy_project $as_admin",
        409,
        error("CONFLICT", "PROJECT_HAS_AGENTS", details={"project_id": str, "agents": "1"}),
    ),
    ("post to a project", "-X POST $url/api/v1/projects/$project $as_admin", 405, NO_METHOD),
    ("get the organisation", "$url/api/v1/organisation $as_admin", 200, ORGANISATION),
    ("get the organisation as a user", "$url/api/v1/organisation $as_user", 403, NOT_ALLOWED),
    (
        "change the organisation",
        """-X PATCH $url/api/v1/organisation $as_admin $json \
           -d '{"name":"acme","budget_usd":1000000}'""",
        200,
        ORGANISATION
        | {"name": "acme", "budget": ORGANISATION["budget"] | {"limit_usd": 1_000_000}},  # type: ignore[operator]
    ),
    (
        "change nothing of the organisation",
        "-X PATCH $url/api/v1/organisation $as_admin $json -d '{}'",
        400,
        error("VALIDATION_ERROR", "NO_FIELDS_PROVIDED"),
    ),
    (
        "the budget of the organisation",
        "$url/api/v1/organisation/budget?page_size=1 $as_admin",
        200,
        {"budget": dict, "children": [dict], "next_page_token": str},
    ),
    (
        "the budget of the organisation as a viewer",
        "$url/api/v1/organisation/budget $as_viewer",
        403,
        NOT_ALLOWED,
    ),
    ("delete the organisation", "-X DELETE $url/api/v1/organisation $as_admin", 405, NO_METHOD),
]
