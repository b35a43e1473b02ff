"""Calls of the document's paths, good and bad, with what it says they answer."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.iron.shapes import HEALTH, Row

ACTION = {
    "action": int,
    "value": float,
    "log_prob": float,
    "agent_id": "default",
    "pressure": float,
}
RESET = {
    "message": "Agent state reset",
    "agent_id": "default",
    "state": {"hidden": "initialized", "memory": "initialized"},
    "policy": "cartpole@1",
}
TOKEN = {
    "access_token": re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+"),
    "token_type": "bearer",
    "expires_at": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"),
    "subject": "user123",
}
BATCH = {
    "actions": [int],
    "values": [float],
    "log_probs": [float],
    "agent_ids": [str],
    "pressures": [float],
}
GOOD = '{"observation":[0.1,0.2,0.3,0.4]}'
NO_ROWS = {"detail": "Missing 'observations' field"}
INVALID = {"detail": "Invalid authentication token"}


def told(text: str) -> dict[str, Any]:
    """A refusal, in these very words."""
    return {"detail": text}


def having(*texts: str) -> dict[str, Any]:
    """A refusal that names these things."""
    return {"detail": re.compile("(?s).*" + ".*".join(map(re.escape, texts)) + ".*")}


def step(body: str, credential: str = "$as_client") -> str:
    return f"-X POST $url/step {credential} $json -d '{body}'"


def batch(body: str) -> str:
    return f"-X POST $url/step_batch $as_client $json -d '{body}'"


def reset(body: str) -> str:
    return f"-X POST $url/reset $as_client $json -d '{body}'"


def token(body: str) -> str:
    return f"-X POST $url/auth/token $json -d '{body}'"


ROWS: list[Row] = [
    ("health", "$url/health", 200, HEALTH),
    ("reset an agent", reset('{"agent_id":"one"}'), 200, RESET | {"agent_id": "one"}),
    ("reset the default agent", reset('{"agent_id":"default"}'), 200, RESET),
    ("reset without an id", reset("{}"), 200, RESET),
    ("reset without a body", "-X POST $url/reset $as_client", 200, RESET),
    (
        "reset with a policy",
        reset('{"agent_id":"one","policy":"pendulum@1","seed":7}'),
        200,
        RESET | {"agent_id": "one", "policy": "pendulum@1"},
    ),
    ("reset with a number", reset('{"agent_id":5}'), 422, having("agent_id", "text")),
    ("reset with what is not known", reset('{"agent":"one"}'), 422, having("agent")),
    (
        "reset with no policy",
        reset('{"agent_id":"one","policy":"none"}'),
        400,
        having("no policy 'none'", "cartpole, cartpole-memory, pendulum"),
    ),
    (
        "reset with what is no policy",
        reset('{"agent_id":"one","policy":"../x"}'),
        422,
        having("names no policy"),
    ),
    (
        "reset without a credential",
        "-X POST $url/reset $json -d '{}'",
        403,
        having("authorization: Bearer"),
    ),
    ("reset by GET", "$url/reset $as_client", 405, having("POST")),
    ("step", step(GOOD), 200, ACTION),
    ("step with whole numbers", step('{"observation":[0,0,0,0]}'), 200, ACTION),
    (
        "step an agent",
        step('{"observation":[0.1,-0.5,0.0,1.2],"agent_id":"$new_id","deterministic":true}'),
        200,
        ACTION | {"agent_id": str},
    ),
    (
        "step with a continuous action",
        step('{"observation":[1,0,0],"agent_id":"$new_pendulum"}'),
        200,
        ACTION | {"action": [float], "agent_id": str},
    ),
    ("step with a token", step(GOOD, "$as_named_client"), 200, ACTION),
    ("step as a person", step(GOOD, "$as_admin"), 200, ACTION),
    ("step with an API key", step(GOOD, "$as_key"), 200, ACTION),
    ("step as an agent", step(GOOD, "$as_runtime"), 200, ACTION),
    (
        "step with two numbers",
        step('{"observation":[0.1,0.2]}'),
        400,
        told("Expected observation of length 4, got 2"),
    ),
    (
        "step with three numbers",
        step('{"observation":[0.1,0.2,0.3]}'),
        400,
        told("Expected observation of length 4, got 3"),
    ),
    (
        "step an agent that is not there",
        step('{"observation":[0.1,0.2,0.3,0.4],"agent_id":"unknown_agent"}'),
        400,
        told("Agent 'unknown_agent' not initialized. Call /reset first."),
    ),
    ("step without an observation", step("{}"), 422, told("Missing 'observation' field")),
    (
        "step with nothing observed",
        step('{"observation":[]}'),
        422,
        told("Missing 'observation' field"),
    ),
    ("step with what is no JSON", step("observation"), 422, having("JSON", "line 1, column 1")),
    ("step with half of it", step('{"observation":[0.1'), 422, having("JSON")),
    ("step with a list", step("[0.1]"), 422, having("must be an object")),
    (
        "step without a body",
        "-X POST $url/step $as_client $json",
        422,
        told("Missing 'observation' field"),
    ),
    ("step with a text", step('{"observation":["0.1",0,0,0]}'), 422, having("observation[0]")),
    ("step with true", step('{"observation":[0,true,0,0]}'), 422, having("observation[1]")),
    ("step with null", step('{"observation":[0,0,null,0]}'), 422, having("observation[2]")),
    ("step with NaN", step('{"observation":[NaN,0,0,0]}'), 422, having("JSON")),
    ("step with infinity", step('{"observation":[1e999,0,0,0]}'), 422, having("infinity")),
    ("step with too much", step('{"observation":[1e39,0,0,0]}'), 422, having("observation[0]")),
    ("step with rows", step('{"observation":[[1,2,3,4]]}'), 422, having("observation[0]")),
    ("step with a number", step('{"observation":4}'), 422, having("observation", "list")),
    (
        "step perhaps deterministic",
        step('{"observation":[0,0,0,0],"deterministic":"yes"}'),
        422,
        having("deterministic"),
    ),
    ("step with what is not known", step('{"observation":[0,0,0,0],"x":1}'), 422, having("x ")),
    ("step without a credential", step(GOOD, ""), 403, having("authorization: Bearer")),
    ("step with a wrong token", step(GOOD, "$as_wrong_client"), 403, INVALID),
    ("step with no bearer", step(GOOD, "-H 'Authorization: Basic eDp5'"), 403, INVALID),
    ("step too late", step(GOOD, "$as_expired_client"), 403, told("Token has expired")),
    (
        "step with a token of another issuer",
        step(GOOD, "$as_client_of_another_issuer"),
        403,
        told("Invalid token issuer"),
    ),
    (
        "step with a token for others",
        step(GOOD, "$as_client_of_another_audience"),
        403,
        told("Invalid token audience"),
    ),
    ("step with a forged token", step(GOOD, "$as_forged_client"), 403, INVALID),
    ("step with an unsigned token", step(GOOD, "$as_unsigned_client"), 403, INVALID),
    ("step with a token without an end", step(GOOD, "$as_client_for_ever"), 403, INVALID),
    ("step as a viewer", step(GOOD, "$as_viewer"), 403, having("role")),
    ("step as an agent for others", step(GOOD, "$as_narrow_runtime"), 403, having("inference")),
    ("step by GET", "$url/step $as_client", 405, having("POST")),
    (
        "step a batch",
        batch('{"observations":[[0.1,0.2,0.3,0.4],[0.5,0.6,0.7,0.8]],"deterministic":true}'),
        200,
        BATCH | {"agent_ids": ["default"]},
    ),
    (
        "step a batch of agents",
        batch('{"observations":[[0.1,0.2,0.3,0.4]],"agent_ids":["$new_id"]}'),
        200,
        BATCH,
    ),
    ("step a batch of none", batch('{"observations":[]}'), 422, NO_ROWS),
    ("step a batch without rows", batch("{}"), 422, NO_ROWS),
    (
        "step a batch with too few ids",
        batch('{"observations":[[0,0,0,0],[0,0,0,0]],"agent_ids":["$new_id"]}'),
        400,
        told("Expected 2 agent_ids, one for each observation, got 1"),
    ),
    (
        "step a batch with an agent that is not there",
        batch('{"observations":[[0,0,0,0],[0,0,0,0]],"agent_ids":["$new_id","unknown_agent"]}'),
        400,
        told("Agent 'unknown_agent' not initialized. Call /reset first."),
    ),
    (
        "step a batch with a short row",
        batch('{"observations":[[0,0,0,0],[0,0,0]]}'),
        400,
        told("Expected observation of length 4, got 3"),
    ),
    (
        "step a batch with a text",
        batch('{"observations":[[0,0,0,0],[0,0,0,"0"]]}'),
        422,
        having("observations[1]", "[3]"),
    ),
    (
        "step a batch of one row",
        batch('{"observations":[1,2,3,4]}'),
        422,
        having("observations[0]"),
    ),
    (
        "step a batch without a credential",
        "-X POST $url/step_batch $json -d '{\"observations\":[]}'",
        403,
        having("authorization: Bearer"),
    ),
    ("make a token", token('{"subject":"user123","expiry_minutes":120}'), 200, TOKEN),
    ("make a token as usual", token('{"subject":"user123"}'), 200, TOKEN),
    ("make a token for nobody", token("{}"), 422, having("subject", "missing")),
    ("make a token for an empty name", token('{"subject":""}'), 422, having("subject", "missing")),
    ("make a token for a number", token('{"subject":5}'), 422, having("subject", "text")),
    (
        "make a token that is over",
        token('{"subject":"x","expiry_minutes":-5}'),
        422,
        having("expiry_minutes", "-5"),
    ),
    (
        "make a token for half a minute",
        token('{"subject":"x","expiry_minutes":0.5}'),
        422,
        having("expiry_minutes", "integer"),
    ),
    ("make a token by GET", "$url/auth/token", 405, having("POST")),
]
