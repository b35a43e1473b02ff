"""OpenAPI 3.1 of everything that is served over plain HTTP. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steward_gateway.contracts import Contracts
from steward_gateway.describe.failing import error_schemas
from steward_gateway.describe.operations import (
    SECURITY_SCHEMES,
    VERBS,
    Operations,
    aliases,
    path_of,
    tag_of,
)
from steward_gateway.describe.schemas import Schemas
from steward_gateway.routes import Route, build_routes

OPENAPI = "3.1.0"

ABOUT = """\
Every capability is a gRPC method first; these paths are derived from its contract. The same methods
answer Connect and gRPC-Web at `POST <x-rpc>`, and WebSockets are described in `/asyncapi.json`.

- Names have underscores. Fields of an answer are always there, null or empty if there is nothing
  to say. A field or parameter that is not known is refused.
- Money is a number of dollars with at most nine decimals, under a name that ends in `_usd`. The
  text of a number is read as one, and a field that is null as one that is left out.
- Times are RFC 3339 in UTC, bytes are base64.
- `X-Request-Timeout: 2.5` sets a deadline in seconds. `X-Request-Id` is passed on, or made, and
  stands in the answer and in the server's log.
- What several people may change has a `version`. A change with `If-Match` is made to that version
  only, and else answered 412; `If-None-Match` is answered 304 while nothing is new.
"""

_HEADERS = {
    "RequestId": {
        "description": "Names the request in the server's log.",
        "schema": {"type": "string"},
    },
    "ETag": {
        "description": "The version, for `If-Match`, and a digest, for `If-None-Match`.",
        "schema": {"type": "string"},
    },
    "RetryAfter": {
        "description": "Seconds until another try is worth while.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
}


def build_openapi(
    contracts: Contracts, comments: Mapping[str, str], version: str
) -> dict[str, Any]:
    """Describe the contracts."""
    routes = [route for route in build_routes(contracts) if route.kind == "http"]
    schemas = Schemas(comments)
    operations = Operations(schemas)
    repeats = aliases(routes)
    names = _operation_ids(routes)
    paths: dict[str, dict[str, Any]] = {}
    tags: dict[str, str] = {}
    variants: list[tuple[Route, dict[str, Any]]] = []
    for position, route in enumerate(routes):
        if route.verb not in VERBS:
            continue
        described = operations.describe(route, names[position], repeats.get(position))
        if route.taken_if:
            variants.append((route, described))
            continue
        paths.setdefault(path_of(route), {})[route.verb.lower()] = described
        tags[tag_of(route)] = comments.get(route.method.containing_service.full_name, "")
    for route, described in variants:
        _add_variant(paths[path_of(route)][route.verb.lower()], route, described)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Steward",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in tags.items()],
        "paths": paths,
        "components": {
            "schemas": {**error_schemas(), **dict(sorted(schemas.components.items()))},
            "headers": _HEADERS,
            "responses": dict(sorted(operations.responses.items())),
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _add_variant(operation: dict[str, Any], route: Route, described: dict[str, Any]) -> None:
    """Tell in an operation what its path answers where a parameter of the query is true."""
    status = str(route.success_status)
    content = operation["responses"][status]["content"]
    for media_type, shown in described["responses"][status]["content"].items():
        if (known := content.get(media_type)) is None:
            content[media_type] = shown
        else:
            known["schema"] = {"anyOf": [known["schema"], shown["schema"]]}
    operation["description"] += f"\n\nWith `{route.taken_if}=true`: {described['description']}"


def _operation_ids(routes: list[Route]) -> list[str]:
    """`Service_Method`; further ways into the method are numbered from 2."""
    seen: dict[str, int] = {}
    owners: dict[str, str] = {}
    ids = []
    for route in routes:
        name = f"{tag_of(route)}_{route.method.name}"
        if owners.setdefault(name, route.full_method) != route.full_method:
            name = route.full_method.strip("/").replace("/", "_").replace(".", "_")
        seen[name] = seen.get(name, 0) + 1
        ids.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return ids
