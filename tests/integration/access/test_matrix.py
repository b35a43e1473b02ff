"""Who may call what: every method, by every kind of caller, through every door.

The rules stand in the protos. What they should be is written down a second time, by hand, in
`rooms/`: a rule that is changed there alone, or forgotten here, fails.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from steward.gateway.v1 import options_pb2 as options
from steward_gateway.contracts import load_contracts
from steward_gateway.routes import Route, build_routes
from steward_gateway.scalars import INTEGER_RANGES
from tests.integration.access.callers import CALLERS
from tests.integration.access.tables import ACCESS, METHODS, name_of
from tests.integration.access.world import Headers, World, outcome

ROUTES = build_routes(load_contracts())
REFUSED = {"CREDENTIAL_MISSING", "KEYS_NOT_ALLOWED", "ROLE_NOT_ALLOWED", "PASSWORD_CHANGE_REQUIRED"}
ENDS_ITS_CALLER = "steward.auth.v1.AuthService/Logout"


class Entrance:
    """One kind of caller's credential: the same for every call, until one ends it."""

    def __init__(self, world: World, caller: str) -> None:
        self._world = world
        self._caller = caller
        self._headers: Headers | None = None

    async def headers(self, method: str) -> Headers:
        if self._headers is None:
            self._headers = await CALLERS[self._caller](self._world)
        headers = self._headers
        if method == ENDS_ITS_CALLER:
            self._headers = None
        return headers


def test_the_matrix_names_every_method_and_no_other() -> None:
    assert ACCESS.keys() == METHODS.keys()


async def grpc_cells(world: World, caller: str) -> AsyncIterator[tuple[str, str, bool, object]]:
    entrance = Entrance(world, caller)

    async def cell(name: str, headers: Headers) -> tuple[str, str, bool, object]:
        method = METHODS[name]
        request = GetMessageClass(method.input_type)()
        code, reason = await outcome(world.call(method, request, headers), streams=streams(method))
        outside = (
            grpc.StatusCode.UNAUTHENTICATED
            if caller == "anonymous"
            else grpc.StatusCode.PERMISSION_DENIED
        )
        is_inside = reason not in REFUSED and code is not grpc.StatusCode.UNAUTHENTICATED
        assert is_inside or code is outside, (caller, name, code, reason)
        return "gRPC", name, is_inside, (code, reason)

    for name, method in METHODS.items():
        if not streams(method):
            yield await cell(name, await entrance.headers(name))
    # Together: a stream that is let in is waited for.
    waiting = [
        cell(name, await entrance.headers(name))
        for name, method in METHODS.items()
        if streams(method)
    ]
    for each in await asyncio.gather(*waiting):
        yield each


def streams(method: MethodDescriptor) -> bool:
    return bool(method.server_streaming or method.client_streaming)


def path_of(route: Route) -> str:
    """A path that fits a template, with things nobody has."""
    segments = ["none" if each in ("*", "**") else each for each in route.template.segments]
    for variable, fields in zip(route.template.variables, route.variables, strict=True):
        if fields[-1].type in INTEGER_RANGES:
            segments[variable.start] = "1"
    verb = f":{route.template.verb}" if route.template.verb else ""
    query = f"?{route.taken_if}=true" if route.taken_if else ""
    return "/" + "/".join(segments) + verb + query


def refusal_status(route: Route, caller: str) -> int:
    """What a caller without the right is told in the route's dialect."""
    return 401 if caller == "anonymous" and route.dialect != options.DIALECT_CYBORG else 403


async def rest_cells(world: World, caller: str) -> AsyncIterator[tuple[str, str, bool, object]]:
    entrance, api = Entrance(world, caller), world.live.api
    for route in ROUTES:
        if route.kind != "http":
            continue
        name = name_of(route.method)
        headers = dict(await entrance.headers(name))
        body = None
        if route.body:
            body, headers["content-type"] = json.dumps({}), "application/json"
        # Only the status is read: some answers never end.
        async with api.session.request(
            route.verb, api.base_url + path_of(route), data=body, headers=headers
        ) as answer:
            status = answer.status
        assert status < 500 or status == 501, (caller, name, status)  # what is switched off
        is_inside = status not in (401, 403)
        assert is_inside or status == refusal_status(route, caller), (caller, name, status)
        yield f"{route.verb} {route.template.text}", name, is_inside, status


async def websocket_cells(
    world: World, caller: str
) -> AsyncIterator[tuple[str, str, bool, object]]:
    entrance, api = Entrance(world, caller), world.live.api
    for route in ROUTES:
        if route.kind != "websocket":
            continue
        name = name_of(route.method)
        headers = await entrance.headers(name)
        status = 101
        try:
            async with api.session.ws_connect(api.base_url + path_of(route), headers=headers):
                pass
        except aiohttp.WSServerHandshakeError as error:
            status = error.status
        is_inside = status not in (401, 403)
        assert is_inside or status == refusal_status(route, caller), (caller, name, status)
        yield route.template.text, name, is_inside, status


@pytest.mark.parametrize("caller", CALLERS)
async def test_each_caller_reaches_what_the_matrix_says_and_nothing_else(
    world: World, caller: str
) -> None:
    """An empty request: whoever is let in is told what is missing, if anything."""
    wrong, cell_count = [], 0
    for cells in (grpc_cells, rest_cells, websocket_cells):
        async for door, name, is_inside, seen in cells(world, caller):
            cell_count += 1
            if is_inside != (caller in ACCESS[name]):
                wrong.append((door, name, "let in" if is_inside else "kept out", seen))
    print(f"{caller}: {cell_count} cells")
    assert wrong == []
    assert cell_count == len(METHODS) + len(ROUTES)


def test_the_cells_are_all_there() -> None:
    """How much is walked: not less than when this was written."""
    cell_count = len(CALLERS) * (len(METHODS) + len(ROUTES))
    print(f"{len(METHODS)} methods, {len(ROUTES)} routes, {len(CALLERS)} callers: {cell_count}")
    assert cell_count >= 882
