"""Which of the paths there are a table of rows calls, and how."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from steward.gateway.v1 import options_pb2
from steward_gateway.contracts import load_contracts
from steward_gateway.routes import Route, build_routes
from tests.e2e.iron.shapes import Row

UNREFUSABLE = {"/health", "/api/health", "/metrics"}
"""What anybody may call in any way."""
ROUTES = build_routes(load_contracts())


def uncalled(
    rows: Iterable[Row],
    dialects: Collection[options_pb2.Dialect.ValueType],
    *,
    with_streams: bool = False,
) -> set[tuple[str, str, str]]:
    """The verbs and paths of these dialects that no row calls well, or none badly."""
    called = {(route, status < 400) for _, text, status, _ in rows if (route := route_of(text))}
    return {
        (route.verb, route.template.text, "well" if well else "badly")
        for route in ROUTES
        if route.dialect in dialects
        and route.template.text not in UNREFUSABLE
        and (with_streams or not (route.streams_requests or route.streams_responses))
        for well in (True, False)
        if (route, well) not in called
    }


def route_of(arguments: str) -> Route | None:
    """What curl reaches with these arguments; None: nothing that is served."""
    method = re.search(r"-X ([A-Z]+)", arguments)
    target = re.search(r"\$url([^\s']*)", arguments)
    assert target, arguments
    verb = method[1] if method else "GET"
    path, _, query = target[1].partition("?")
    asks_for_socket = "$upgrade" in arguments or "upgrade: " in arguments.lower()
    kind = "websocket" if asks_for_socket else "http"
    found = [
        route
        for route in ROUTES
        if route.kind == kind and route.verb == verb and _fits(route.template.text, path)
    ]
    # The most literal one is taken, as the gateway does.
    found.sort(key=lambda route: (not _is_switched(route, query), len(route.variables)))
    return next(
        (route for route in found if not route.taken_if or _is_switched(route, query)), None
    )


def _is_switched(route: Route, query: str) -> bool:
    return bool(route.taken_if) and f"{route.taken_if}=" in query


def _fits(template: str, path: str) -> bool:
    pattern = re.sub(r"\{[^}]*\*\*\}", ".+", re.sub(r"\{[^}*]*\}", "[^/]+", template))
    return re.fullmatch(pattern, path) is not None
