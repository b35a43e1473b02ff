"""Routes to operations of OpenAPI: parameters, bodies, answers, who may call. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from steward.gateway.v1 import options_pb2
from steward_gateway.binding import HTTP_BODY, may_be_text
from steward_gateway.bodies import JSON
from steward_gateway.contracts import method_rule
from steward_gateway.describe.examples import Examples
from steward_gateway.describe.failing import ERROR_NAMES, Failing, failings
from steward_gateway.describe.schemas import Schema, Schemas
from steward_gateway.exchange import MAX_IDEMPOTENCY_KEY_CHARS
from steward_gateway.names import Style, json_name
from steward_gateway.rest import EVENT_STREAM, NDJSON
from steward_gateway.routes import Route

VERBS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
"""What a path of OpenAPI 3.1 can hold; other methods of HTTP have no place in it."""

MAX_QUERY_DEPTH = 3

_VARIABLE = re.compile(r"{([^}=]+)(?:=[^}]*)?}")
_MULTI = "May hold slashes."
_ONE_VERSION = r'^(\*|(W/)?"-?[0-9]{1,18}(~[0-9a-f]{18})?")$'
_NOT_MODIFIED: dict[str, Any] = {
    "description": "It is what the caller has.",
    "headers": {
        "X-Request-Id": {"$ref": "#/components/headers/RequestId"},
        "ETag": {"$ref": "#/components/headers/ETag"},
    },
}
_SUCCESS = {200: "OK", 201: "Created", 202: "Accepted", 204: "Done; there is nothing to say."}

SECURITY_SCHEMES: dict[str, Schema] = {
    "accessToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A person, signed in: the `access_token` of a login.",
    },
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "A key that stands for a person.",
    },
    "icToken": {
        "type": "apiKey",
        "in": "header",
        "name": "X-IC-Key",
        "description": "An agent's runtime: the IC token it was given.",
    },
    "clientToken": {
        "type": "http",
        "scheme": "bearer",
        "description": "A client of inference: the server's static token, or one it was given.",
    },
    "queryToken": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "An access token or IC token, for a browser's `EventSource` and WebSocket.",
    },
}
_API_KEY = "apiKey"
_PEOPLE, _AGENTS = ("accessToken", _API_KEY), ("icToken",)
_WHO = {
    options_pb2.ACCESS_PEOPLE: _PEOPLE,
    options_pb2.ACCESS_AGENT: _AGENTS,
    options_pb2.ACCESS_PEOPLE_AND_AGENT: (*_PEOPLE, *_AGENTS),
    options_pb2.ACCESS_CLIENTS: (*_PEOPLE, *_AGENTS, "clientToken"),
}


def security(route: Route) -> list[dict[str, list[str]]]:
    """The credentials a route takes, any one of them; none for what is open to all."""
    rule = method_rule(route.method)
    names = tuple(
        name for name in _WHO.get(rule.access, ()) if not (rule.no_keys and name == _API_KEY)
    )
    if names and (route.streams_responses or route.kind == "websocket"):
        names = (*names, "queryToken")
    return [{name: []} for name in names]


def who(route: Route) -> str:
    """Who may call, in words."""
    rule = method_rule(route.method)
    roles = [options_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in rule.roles]
    people = f"people with the role {' or '.join(roles)}" if roles else "people"
    agents = f"agents whose token has the scope `{rule.scope}`" if rule.scope else "agents"
    said = {
        options_pb2.ACCESS_PUBLIC: "anyone",
        options_pb2.ACCESS_PEOPLE: people,
        options_pb2.ACCESS_AGENT: agents,
        options_pb2.ACCESS_PEOPLE_AND_AGENT: f"{people}, and {agents}",
        options_pb2.ACCESS_CLIENTS: f"{people}, {agents}, and clients of inference",
    }
    return f"For {said.get(rule.access, 'nobody')}."


def path_of(route: Route) -> str:
    """The template as OpenAPI writes it; the dots in names of variables are not for every tool."""
    return _VARIABLE.sub(lambda found: f"{{{found[1].replace('.', '_')}}}", route.template.text)


def tag_of(route: Route) -> str:
    return route.method.containing_service.name.removesuffix("Service")


class Operations:
    """Describes routes; what they refer to is gathered in `schemas` and `responses`."""

    def __init__(self, schemas: Schemas) -> None:
        self.responses: dict[str, Schema] = {}
        self._schemas = schemas
        self._examples = Examples(schemas)

    def describe(self, route: Route, operation_id: str, alias_of: Route | None) -> Schema:
        """The operation of a route, which may repeat another one's under another path."""
        comment = self._schemas.comments.get(route.method.full_name, "")
        summary, _, _ = comment.partition(". ")
        operation: Schema = {
            "operationId": operation_id,
            "tags": [tag_of(route)],
            "summary": summary.strip().removesuffix(".") or route.method.name,
            "description": "\n\n".join(filter(None, [comment, who(route)])),
            "x-rpc": route.full_method,
        }
        if alias_of is not None:
            operation["x-alias-of"] = f"{alias_of.verb} {path_of(alias_of)}"
            operation["description"] = (
                f"The same as `{alias_of.verb} {path_of(alias_of)}`.\n\n{operation['description']}"
            )
            operation["deprecated"] = _is_versioned(route, alias_of)
        parameters = [
            *self._path_parameters(route),
            *self._query_parameters(route),
            *self._header_parameters(route),
        ]
        if parameters:
            operation["parameters"] = parameters
        if route.body:
            operation["requestBody"] = self._body(route)
        operation["responses"] = {
            str(route.success_status): self._success(route),
            **({"304": _NOT_MODIFIED} if route.etag and route.verb == "GET" else {}),
            **{
                str(status): self._failure(route, status, failing)
                for status, failing in failings(route, comment).items()
            },
        }
        operation["security"] = security(route)
        return operation

    def _path_parameters(self, route: Route) -> Iterator[Schema]:
        for variable, fields in zip(route.template.variables, route.variables, strict=True):
            name = "_".join(variable.field_path)
            parameter = self._parameter("path", name, fields[-1]) | {"required": True}
            if variable.multi:
                said = parameter.get("description", "")
                parameter["description"] = f"{said} {_MULTI}".strip()
                parameter["x-slashes"] = True  # OpenAPI 3.1 has no word for it
            if parameter["schema"].get("type") == "string":
                parameter["schema"].setdefault("minLength", 1)
            yield parameter

    def _query_parameters(self, route: Route) -> Iterator[Schema]:
        if route.body == "*":
            return
        bound = {tuple(field.name for field in fields) for fields in route.variables}
        if route.body:
            bound.add((route.body,))
        yield from self._below(route.method.input_type, (), bound)

    def _header_parameters(self, route: Route) -> Iterator[Schema]:
        if route.request_id_field:
            field = route.method.input_type.fields_by_name[route.request_id_field]
            yield {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Makes the call safe to repeat; stands for the field "
                f"`{json_name(field, Style.HOUSE)}` where that is not given.",
                "schema": {
                    "type": "string",
                    "maxLength": MAX_IDEMPOTENCY_KEY_CHARS,
                    "pattern": "^[ -~]*$",
                },
            }
        if route.if_match is not None:
            yield {
                "name": "If-Match",
                "in": "header",
                "description": "Changes this version only: an `ETag` that was answered, or the "
                f"version in quotes; stands for `{json_name(route.if_match, Style.HOUSE)}`.",
                "schema": {"type": "string", "pattern": _ONE_VERSION},
                "example": '"7"',
            }
        if route.etag and route.verb == "GET":
            yield {
                "name": "If-None-Match",
                "in": "header",
                "description": "Answers 304 where this `ETag` still holds.",
                "schema": {"type": "string"},
            }

    def query_of_socket(self, route: Route) -> Schema:
        """What may stand in the query of a WebSocket, as an object."""
        filled: Descriptor | None = route.method.input_type
        if route.opening:
            filled = route.method.input_type.fields_by_name[route.opening].message_type
        elif route.streams_requests:
            filled = None
        bound = {tuple(field.name for field in fields) for fields in route.variables}
        parameters = self._below(filled, (), bound) if filled is not None else ()
        properties = {}
        for parameter in parameters:
            described = {"description": parameter.get("description", "")}
            properties[parameter["name"]] = {**parameter["schema"], **described}
        token = {"type": "string", "description": SECURITY_SCHEMES["queryToken"]["description"]}
        return {"type": "object", "properties": {**properties, "token": token}}

    def _below(
        self,
        message: Descriptor,
        above: tuple[FieldDescriptor, ...],
        bound: set[tuple[str, ...]],
    ) -> Iterator[Schema]:
        for field in message.fields:
            fields = (*above, field)
            if tuple(each.name for each in fields) in bound:
                continue
            name = ".".join(json_name(each, Style.HOUSE) for each in fields)
            if may_be_text(field):
                yield self._parameter("query", name, field)
            elif not field.is_repeated and field.message_type and len(fields) < MAX_QUERY_DEPTH:
                yield from self._below(field.message_type, fields, bound)

    def _parameter(self, place: str, name: str, field: FieldDescriptor) -> Schema:
        schema = self._schemas.of_field(field, read=True)
        parameter: Schema = {"name": name, "in": place}
        if description := schema.pop("description", ""):
            parameter["description"] = description
        if schema.pop("deprecated", False):
            parameter["deprecated"] = True
        parameter["schema"] = _never_null(schema)
        if field.is_repeated:
            parameter["explode"] = True
        if place == "path":
            parameter["example"] = self._examples.of_field(field, read=True)
        return parameter

    def _body(self, route: Route) -> Schema:
        message = route.method.input_type
        if route.body != "*":
            field = message.fields_by_name[route.body]
            if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
                return {"content": {"*/*": {"schema": {}}}}
            in_path = frozenset(
                fields[1].name
                for fields in route.variables
                if fields[0] is field and len(fields) == 2
            )
            if field.message_type is None or field.is_repeated or not in_path:
                schema = self._schemas.of_field(field, read=True)
                example = self._examples.of_field(field, read=True)
                return {"content": {JSON: {"schema": schema, "example": example}}}
            return self._json_body(field.message_type, in_path)
        if message.full_name == HTTP_BODY:
            return {"content": {"*/*": {"schema": {}}}}
        in_path = frozenset(fields[0].name for fields in route.variables if len(fields) == 1)
        return self._json_body(message, in_path)

    def _json_body(self, message: Descriptor, in_path: frozenset[str]) -> Schema:
        """A body without what the path gives."""
        schema = self._schemas.refer(message, read=True)
        if in_path:
            whole = self._schemas.resolve(schema)
            gone = {json_name(message.fields_by_name[name], Style.HOUSE) for name in in_path}
            kept = {key: value for key, value in whole["properties"].items() if key not in gone}
            schema = {**whole, "properties": kept}
        example = self._examples.of_message(message, read=True, without=in_path)
        return {"content": {JSON: {"schema": schema, "example": example}}}

    def _success(self, route: Route) -> Schema:
        response: Schema = {
            "description": _SUCCESS.get(route.success_status, "Success"),
            "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
        }
        if route.success_status == 204:
            return response
        if route.etag:
            response["headers"]["ETag"] = {"$ref": "#/components/headers/ETag"}
        schema, example = self._shown(route)
        if schema is None:
            response["content"] = {"*/*": {"schema": {}}}
        elif route.streams_responses:
            response["content"] = _streamed(schema)
        else:
            response["content"] = {JSON: {"schema": schema, "example": example}}
        return response

    def _failure(self, route: Route, status: int, failing: Failing) -> Schema:
        name = ERROR_NAMES[route.dialect]
        response: Schema = {
            "description": failing.description,
            "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
            "content": {
                JSON: {
                    "schema": {"$ref": f"#/components/schemas/{name}"},
                    "example": failing.example,
                }
            },
        }
        if status in (429, 503):
            response["headers"]["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
        if failing.reasons:
            return response
        shared = f"{name}.{status}"
        self.responses.setdefault(shared, response)
        return {"$ref": f"#/components/responses/{shared}"}

    def _shown(self, route: Route) -> tuple[Schema | None, Any]:
        """What an answer shows; nothing of bytes of any type."""
        message = route.method.output_type
        if not route.response_body:
            if message.full_name == HTTP_BODY:
                return None, None
            example = self._examples.of_message(message, read=False)
            return self._schemas.refer(message, read=False), example
        field = message.fields_by_name[route.response_body]
        if field.message_type is not None and not field.is_repeated:
            if field.message_type.full_name == HTTP_BODY:
                return None, None
            example = self._examples.of_message(field.message_type, read=False)
            return self._schemas.refer(field.message_type, read=False), example
        example = self._examples.of_field(field, read=False)
        return self._schemas.of_field(field, read=False), example


def _streamed(item: Schema) -> Schema:
    inner = {"contentMediaType": JSON, "contentSchema": item}
    line = {"type": "string", "description": "A JSON object on each line.", **inner}
    event = {
        "type": "string",
        "description": "A JSON object after each `data:`; one after `event: error` is the last.",
        **inner,
    }
    return {NDJSON: {"schema": line}, EVENT_STREAM: {"schema": event}}


def _never_null(schema: Schema) -> Schema:
    """A parameter that is not given is left out; there is no text for null."""
    kind = schema.get("type")
    if isinstance(kind, list):
        (schema["type"],) = (each for each in kind if each != "null")
    if "enum" in schema:
        schema["enum"] = [word for word in schema["enum"] if word is not None]
    if "items" in schema:
        schema["items"] = _never_null(schema["items"])
    return schema


def _is_versioned(route: Route, other: Route) -> bool:
    """Whether a path is the other's with a version in it, and speaks as that one does."""
    return (
        path_of(route) != path_of(other)
        and re.sub(r"/v\d+/", "/", path_of(route)) == path_of(other)
        and route.dialect == other.dialect
    )


def aliases(routes: Sequence[Route]) -> dict[int, Route]:
    """By position: the first route of the same method, for each route but that one."""
    first: dict[str, Route] = {}
    found = {}
    for position, route in enumerate(routes):
        original = first.setdefault(route.full_method, route)
        if original is not route:
            found[position] = original
    return found
