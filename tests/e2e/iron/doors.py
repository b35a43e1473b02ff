"""The same methods by Connect and gRPC-Web, and the descriptions of them all."""

from __future__ import annotations

from typing import Any

from tests.e2e.iron.shapes import NO_METHOD, Row

RPC = "$url/steward.agents.v1.AgentService"
JSON = "-H 'Content-Type: application/json'"


def refusal(code: str) -> dict[str, Any]:
    """A refusal as Connect tells it."""
    return {"code": code, "message": str}


ROWS: list[Row] = [
    (
        "a call by Connect",
        f"{RPC}/ListAgents $as_admin {JSON} -d '{{\"pageSize\": 1}}'",
        200,
        dict,
    ),
    (
        "a call by Connect as GET",
        f"-G {RPC}/ListAgents $as_admin -d connect=v1 -d encoding=json -d message={{}}",
        200,
        dict,
    ),
    (
        "a call by Connect without a credential",
        f"{RPC}/ListAgents {JSON} -d '{{}}'",
        401,
        {**refusal("unauthenticated"), "details": list},
    ),
    (
        "a call by Connect with an unknown field",
        f"{RPC}/ListAgents $as_admin {JSON} -d '{{\"page\": 1}}'",
        400,
        {**refusal("invalid_argument"), "details": list},
    ),
    (
        "a call by Connect as a form",
        f"{RPC}/ListAgents $as_admin -d page=1",
        415,
        refusal("unimplemented"),
    ),
    (
        "a change by Connect as GET",
        f"-G {RPC}/CreateAgent $as_admin -d encoding=json -d message={{}}",
        405,
        refusal("unimplemented"),
    ),
    (
        "no such method by Connect",
        f"{RPC}/Nothing $as_admin {JSON} -d '{{}}'",
        404,
        refusal("unimplemented"),
    ),
    ("the description", "$url/openapi.json", 200, dict),
    ("the description by POST", "-X POST $url/openapi.json", 405, NO_METHOD),
    ("the description of the sockets", "$url/asyncapi.json", 200, dict),
    ("the explorer by DELETE", "-X DELETE $url/docs", 405, NO_METHOD),
]
