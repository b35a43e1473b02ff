"""Agents."""

from __future__ import annotations

from tests.e2e.curl import MONEY, TIME, conflict, error, invalid
from tests.e2e.iron.shapes import (
    AGENT,
    BUDGET,
    MALFORMED,
    NO_AGENT,
    NO_BODY,
    NO_METHOD,
    NOT_ALLOWED,
    SCOPE_BUDGET,
    STATUS,
    Row,
)

ROWS: list[Row] = [
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
    (
        "create an agent of a project, by the month",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":1,"project_id":"$project","budget_period":"month"}'""",
        201,
        AGENT | {"budget": BUDGET | {"period": "month", "period_start": TIME, "period_end": TIME}},
    ),
    (
        "create an agent of no project, by the year",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":1,"project_id":"nothing","budget_period":"year"}'""",
        400,
        invalid("budget_period"),
    ),
    (
        "create an agent of no project",
        """-X POST $url/api/v1/agents $as_admin $json \
           -d '{"name":"a","budget_usd":1,"project_id":"nothing"}'""",
        400,
        invalid("project_id"),
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
    (
        "move an agent",
        """-X PATCH $url/api/v1/agents/$new_agent $as_admin $json \
           -d '{"project_id":"$project","budget_period":"day"}'""",
        200,
        AGENT | {"budget": BUDGET | {"period": "day", "period_start": TIME, "period_end": TIME}},
    ),
    (
        "move an agent with leases",
        """-X PATCH $url/api/v1/agents/$busy_agent $as_admin $json \
           -d '{"project_id":"$project"}'""",
        409,
        error("CONFLICT", "AGENT_HAS_LEASES", details={"agent_id": str, "open_leases": "1"}),
    ),
    (
        "list the agents of a project",
        "$url/api/v1/agents?project_id=$new_project $as_admin",
        200,
        {"agents": [], "next_page_token": ""},
    ),
    (
        "the budgets of an agent",
        "$url/api/v1/agents/$agent/budget $as_admin",
        200,
        {"path": [SCOPE_BUDGET], "available_usd": MONEY},
    ),
    ("the budgets of nobody", "$url/api/v1/agents/nobody/budget $as_admin", 404, NO_AGENT),
    (
        "the budgets of another's agent",
        "$url/api/v1/agents/$agent/budget $as_user",
        404,
        NO_AGENT,
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
    (
        "start",
        "-X POST $url$api/agents/$new_agent/start $as_admin $json -d '{}'",
        200,
        {"agent_id": str, "status": "idle"},
    ),
    ("start nobody", "-X POST $url$api/agents/nobody/start $as_admin", 404, NO_AGENT),
]
