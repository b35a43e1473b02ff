"""Whatever people change is written down with it: every method that changes something."""

from __future__ import annotations

import json
import sqlite3

import grpc
from google.protobuf.message_factory import GetMessageClass

from steward.auth.v1 import auth_pb2
from steward.gateway.v1 import options_pb2 as options
from steward_gateway.contracts import load_contracts
from steward_gateway.routes import build_routes
from steward_server.interceptors.authorization import PEOPLE
from tests.integration.access.tables import METHODS, RECORDED, RULES, Recorded, name_of
from tests.integration.access.world import Headers, World, outcome

CHANGING = {
    name_of(route.method)
    for route in build_routes(load_contracts())
    if route.verb != "GET"
    and RULES[name_of(route.method)].access in PEOPLE | {options.ACCESS_PUBLIC}
}


def test_the_table_names_every_method_that_changes_something_and_no_other() -> None:
    assert RECORDED.keys() == CHANGING


async def me(world: World, headers: Headers) -> str:
    method = METHODS["steward.auth.v1.AuthService/GetMe"]
    return str((await world.call(method, auth_pb2.GetMeRequest(), headers)).id)


def callers_rows(world: World, after: int) -> list[sqlite3.Row]:
    """What was written down of callers: what the server does by itself comes in its own time."""
    return [each for each in world.audit_rows(after) if each["actor_kind"] != "server"]


async def test_each_change_leaves_who_what_and_where(world: World) -> None:
    wrong = []
    for name, row in sorted(RECORDED.items()):
        if not isinstance(row, Recorded):
            continue
        headers = await row.caller(world) if row.caller else world.admin
        request = await row.request(world)
        actor_id = await me(world, headers)
        newest = world.audit_rows()[-1]["number"]
        request_id = f"req-{name.rpartition('/')[2]}"
        await world.call(METHODS[name], request, headers | {"x-request-id": request_id})
        written = callers_rows(world, newest)
        actions = tuple(each["action"] for each in written)
        if actions != row.actions:
            wrong.append((name, actions))
        for each in written:
            assert each["method"] == f"/{name}"
            assert (each["actor_kind"], each["actor_id"]) == ("person", actor_id)
            assert each["actor_role"] in ("admin", "user")
            assert each["credential"].startswith("session_")
            assert each["address"] == "127.0.0.1"
            assert each["user_agent"].startswith("grpc-python")
            assert each["request_id"] == request_id
            assert each["resource_type"] == each["action"].partition(".")[0]
            assert each["resource_id"]
            for state in ("before", "after"):
                assert each[state] is None or isinstance(json.loads(each[state]), dict)
    assert wrong == []

    # And none of the secrets that went in or came out.
    held = "\n".join(repr(tuple(each)) for each in world.audit_rows())
    assert len(world.secrets) > 20
    assert [secret for secret in world.secrets if secret in held] == []


NEED_NOTHING = {
    "steward.auth.v1.AuthService/Logout",
    "steward.api_keys.v1.ApiKeyService/CreateApiKey",
    "steward.inference.v1.InferenceService/Reset",
    "steward.inference.v1.InferenceService/Step",
    "steward.inference.v1.InferenceService/StepBatch",
    "steward.inference.v1.ClientTokenService/MintToken",
}
"""An empty request does what it can do."""


async def test_what_is_refused_leaves_nothing(world: World) -> None:
    newest = world.audit_rows()[-1]["number"]
    refused = 0
    for name in sorted(CHANGING - NEED_NOTHING):
        method = METHODS[name]
        call = world.call(method, GetMessageClass(method.input_type)(), world.admin)
        code, _ = await outcome(call, streams=False)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, name
        refused += 1
    assert refused > 15
    assert callers_rows(world, newest) == []
