"""What belongs to somebody else does not exist: for every method that takes an id."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from steward.gateway.v1 import options_pb2 as options
from steward_gateway.codec import Codecs, Style
from steward_gateway.contracts import load_contracts
from steward_gateway.routes import Route, build_routes
from steward_server.interceptors.authorization import PEOPLE
from tests.integration.access.tables import FOREIGN, METHODS, RULES, name_of
from tests.integration.access.world import Headers, World, outcome

ROUTES = build_routes(load_contracts())
CODECS = Codecs(Style.HOUSE)
MADE_UP = "made-up-id"


def ids_of(method: MethodDescriptor) -> list[str]:
    """The fields of a request that name something there is."""
    repeats = RULES[name_of(method)].request_id_field
    return [
        field.name
        for field in method.input_type.fields
        if field.name not in (repeats, "request_id") and field.name.endswith("_id")
    ]


def is_for_users(name: str) -> bool:
    rule = RULES[name]
    return rule.access in PEOPLE and (not rule.roles or options.ROLE_USER in rule.roles)


TAKING = {name for name, method in METHODS.items() if is_for_users(name) and ids_of(method)}
CHECKED = sorted(name for name, row in FOREIGN.items() if not isinstance(row, str))


def test_the_table_names_every_method_that_takes_an_id_and_no_other() -> None:
    assert FOREIGN.keys() == TAKING


def with_id(method: MethodDescriptor, request: Message, value: str) -> Message:
    changed = type(request)()
    changed.CopyFrom(request)
    for field in ids_of(method):
        if getattr(request, field):
            setattr(changed, field, value)
    return changed


async def through_grpc(
    world: World, method: MethodDescriptor, request: Message, headers: Headers
) -> tuple[grpc.StatusCode, str]:
    call = world.call(method, request, headers)
    return await outcome(call, streams=method.server_streaming)


async def through_rest(
    world: World, route: Route, request: Message, headers: Headers
) -> tuple[int, str]:
    """The status and the whole answer, which never ends where it is a stream."""
    shown = CODECS.of(route.method.input_type).encode(request)
    rest = {name: value for name, value in shown.items() if value}
    path = route.template.text
    for variable in route.variables:
        path = path.replace(f"{{{variable[0].name}}}", str(rest.pop(variable[0].name)))
    api, body = world.live.api, None
    if route.body == "*":
        body, headers = json.dumps(rest), headers | {"content-type": "application/json"}
        rest = {}
    elif route.body:
        body = str(rest.pop(route.body))
    if rest:
        path += f"?{urlencode(rest)}"
    async with api.session.request(
        route.verb, api.base_url + path, data=body, headers=headers
    ) as answer:
        return answer.status, await answer.text() if answer.status >= 400 else ""


@pytest.mark.parametrize("name", CHECKED)
async def test_what_is_somebody_elses_is_as_if_it_did_not_exist(world: World, name: str) -> None:
    method, make = METHODS[name], FOREIGN[name]
    assert not isinstance(make, str)
    stranger = (await world.person("user")).headers
    request = await make(world)
    (foreign_id,) = {getattr(request, field) for field in ids_of(method)} - {""}
    made_up = with_id(method, request, MADE_UP)

    seen: Any = await through_grpc(world, method, request, stranger)
    assert seen[0] is grpc.StatusCode.NOT_FOUND
    assert seen == await through_grpc(world, method, made_up, stranger)
    for route in ROUTES:
        if route.method is method and route.kind == "http":
            status, text = await through_rest(world, route, request, stranger)
            assert status == 404, route
            unknown = await through_rest(world, route, made_up, stranger)
            assert unknown == (404, text.replace(foreign_id, MADE_UP))

    owner = world.owner.headers
    assert (await through_grpc(world, method, request, owner))[0] is grpc.StatusCode.OK
