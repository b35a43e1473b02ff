"""Policies that are served, and agents that have them."""

from __future__ import annotations

from tests.e2e.curl import TIME, error
from tests.e2e.iron.shapes import NO_BODY, NO_CREDENTIAL, NOT_ALLOWED, Row

VERSION = {
    "version": 1,
    "is_loaded": True,
    "fault": "",
    "description": str,
    "model_sha256": str,
    "obs_dim": int,
    "action_type": str,
    "action_size": int,
    "state": [],
    "memory": ({"name": str, "shape": [int]}, None),
    "pressure": str,
    "agent_count": int,
    "step_count": int,
    "run_count": int,
    "loaded_at": TIME,
}
POLICY = {"name": str, "latest": 1, "is_default": bool, "versions": [VERSION]}
REMEMBERING = POLICY | {
    "name": "cartpole-memory",
    "is_default": False,
    "versions": [VERSION | {"obs_dim": 2, "memory": {"name": "memory", "shape": [int]}}],
}
FORGETTING = POLICY | {"name": "pendulum", "versions": [VERSION | {"memory": None}]}
UNLOADED = FORGETTING | {
    "versions": [VERSION | {"is_loaded": False, "memory": None, "loaded_at": None}]
}
NO_POLICY = error("NOT_FOUND", "POLICY_NOT_FOUND", details={"policy": str})
PATH = "$url/api/v1/policies"
AGENTS = "$url/api/v1/inference/agents"

ROWS: list[Row] = [
    ("list policies", f"{PATH} $as_client", 200, {"policies": list}),
    ("list policies without a credential", PATH, 401, NO_CREDENTIAL),
    ("get a policy", f"{PATH}/cartpole-memory $as_client", 200, REMEMBERING),
    ("get no policy", f"{PATH}/none $as_client", 404, NO_POLICY),
    ("unload a policy", f"-X POST {PATH}/pendulum/unload $as_admin $json -d '{{}}'", 200, UNLOADED),
    ("load a policy", f"-X POST {PATH}/pendulum/load $as_admin", 200, FORGETTING),
    ("load a version", f"-X POST {PATH}/pendulum@1/load $as_admin", 200, FORGETTING),
    ("load no version", f"-X POST {PATH}/pendulum@7/load $as_admin", 404, NO_POLICY),
    ("load a policy as a user", f"-X POST {PATH}/pendulum/load $as_user", 403, NOT_ALLOWED),
    ("load a policy as a client", f"-X POST {PATH}/pendulum/load $as_client", 403, NOT_ALLOWED),
    (
        "unload what an agent has",
        f"-X POST {PATH}/$busy_policy/unload $as_admin $json -d '{{}}'",
        409,
        error("CONFLICT", "POLICY_IN_USE", details={"policy": "cartpole", "agents": str}),
    ),
    (
        "list those that step",
        f"'{AGENTS}?policy=cartpole&limit=1' $as_admin",
        200,
        {"agents": list, "total": int},
    ),
    ("list those that step with no policy", f"'{AGENTS}?policy=none' $as_client", 404, NO_POLICY),
    ("end an agent", f"-X DELETE {AGENTS}/$new_policy_agent $as_client", 204, NO_BODY),
    (
        "end somebody else's agent",
        f"-X DELETE {AGENTS}/$new_policy_agent $as_user",
        404,
        error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": str}),
    ),
]
