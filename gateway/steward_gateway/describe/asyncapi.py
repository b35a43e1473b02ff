"""AsyncAPI 3 of the WebSockets: channels, and the frames that travel each way. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor
from grpc import StatusCode

from steward.gateway.v1 import options_pb2
from steward_gateway.bodies import JSON
from steward_gateway.codec import Style, codecs_of
from steward_gateway.contracts import Contracts
from steward_gateway.describe.examples import Examples
from steward_gateway.describe.operations import (
    SECURITY_SCHEMES,
    Operations,
    path_of,
    security,
    tag_of,
    who,
)
from steward_gateway.describe.schemas import Schema, Schemas
from steward_gateway.errors import Refusal, error_frame
from steward_gateway.framing import DATA, TYPE, members_of
from steward_gateway.names import json_name
from steward_gateway.routes import Route, build_routes

ASYNCAPI = "3.0.0"
WS_BINDING = "0.1.0"

ABOUT = """\
WebSockets, each a view of a stream of the gRPC contract. A frame is text and holds one JSON object,
in the style of `/openapi.json`. The credential is a header, the parameter `token`, or what follows
the subprotocol `Authorization`. What is wrong before the upgrade is a plain HTTP answer.
"""

_SCHEME_TYPES = {"apiKey": "httpApiKey", "http": "http"}


def build_asyncapi(
    contracts: Contracts, comments: Mapping[str, str], version: str
) -> dict[str, Any]:
    """Describe the WebSockets of the contracts."""
    routes = [route for route in build_routes(contracts) if route.kind == "websocket"]
    schemas = Schemas(comments)
    frames = _Frames(schemas)
    channels, operations = {}, {}
    for route in routes:
        name = f"{tag_of(route)}_{route.method.name}"
        incoming, outgoing = frames.incoming(route), frames.outgoing(route)
        channels[name] = frames.channel(route, {**incoming, **outgoing})
        if incoming:
            operations[f"{name}_receive"] = _operation(route, name, "receive", incoming)
        operations[f"{name}_send"] = _operation(route, name, "send", outgoing)
    return {
        "asyncapi": ASYNCAPI,
        "info": {
            "title": "Steward",
            "version": version,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "securitySchemes": {
                name: {**scheme, "type": _SCHEME_TYPES[scheme["type"]]}
                for name, scheme in SECURITY_SCHEMES.items()
            },
        },
    }


def _operation(route: Route, channel: str, action: str, messages: Mapping[str, Schema]) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": "What callers send." if action == "receive" else "What callers are sent.",
        "security": [
            {"$ref": f"#/components/securitySchemes/{name}"}
            for each in security(route)
            for name in each
        ],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


class _Frames:
    """Describes what travels over a WebSocket."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._examples = Examples(schemas)
        self._operations = Operations(schemas)
        self._codecs = codecs_of(Style.HOUSE)

    def channel(self, route: Route, messages: Mapping[str, Schema]) -> Schema:
        comment = self._schemas.comments.get(route.method.full_name, "")
        channel: Schema = {
            "address": path_of(route),
            "title": route.method.name,
            "description": "\n\n".join(filter(None, [comment, who(route)])),
            "messages": dict(messages),
        }
        if route.variables:
            channel["parameters"] = {
                "_".join(variable.field_path): {"description": "A part of the path."}
                for variable in route.template.variables
            }
        query = self._operations.query_of_socket(route)
        channel["bindings"] = {
            "ws": {"method": "GET", "query": query, "bindingVersion": WS_BINDING}
        }
        return channel

    def incoming(self, route: Route) -> dict[str, Schema]:
        """The frames callers may send, by name."""
        if not route.streams_requests:
            return {}
        return self._frames(route, route.method.input_type, read=True)

    def outgoing(self, route: Route) -> dict[str, Schema]:
        """The frames callers are sent, by name."""
        shown = route.method.output_type
        if route.response_body:
            shown = shown.fields_by_name[route.response_body].message_type or shown
        return {**self._frames(route, shown, read=False), "Error": self._error(route)}

    def _frames(self, route: Route, message: Descriptor, *, read: bool) -> dict[str, Schema]:
        suffix = "Request" if read else ""
        if route.framing not in (options_pb2.FRAMING_TAGGED, options_pb2.FRAMING_FLAT):
            plain = self._schemas.refer(message, read=read)
            told = self._examples.of_message(message, read=read)
            return {message.name: _message(message.name, plain, told)}
        flat = route.framing == options_pb2.FRAMING_FLAT
        _, members = members_of(self._codecs, message, flat=flat)
        inside = {member.name for member in members}
        if message == route.method.output_type:  # a refusal is told as an `Error`
            members = [member for member in members if member.name != route.refusal]
        outer = [field for field in message.fields if field.name not in inside]
        frames = {}
        for member in members:
            inner = message.fields_by_name[member.name].message_type
            assert inner is not None  # noqa: S101 - the routes have looked
            properties: Schema = {TYPE: {"const": member.tag}}
            example: Schema = {TYPE: member.tag}
            always = [TYPE]
            for field in outer:
                name = json_name(field, Style.HOUSE)
                always.append(name)
                properties[name] = self._schemas.of_field(field, read=read)
                example[name] = self._examples.of_field(field, read=read)
            told = self._examples.of_message(inner, read=read)
            if member.flat:
                whole = self._schemas.resolve(self._schemas.refer(inner, read=read))
                properties |= whole["properties"]
                always += whole.get("required", [])
                example |= told
            else:
                properties[DATA] = self._schemas.refer(inner, read=read)
                always.append(DATA)
                example[DATA] = told
            required = [TYPE] if read else always
            payload = {"type": "object", "properties": properties, "required": required}
            comment = self._schemas.comments.get(inner.full_name, "")
            frames[member.tag + suffix] = _message(member.tag, payload, example, comment)
        return frames

    def _error(self, route: Route) -> Schema:
        refusal = Refusal(StatusCode.NOT_FOUND, "there is no such thing", reason="NOT_FOUND")
        example = error_frame(refusal, route.dialect)
        payload: Schema = {
            "type": "object",
            "properties": {
                name: {"const": value} if name == TYPE else _like(value)
                for name, value in example.items()
            },
            "required": list(example),
        }
        return _message("Error", payload, example, "A frame was refused; the socket stays open.")


def _like(value: Any) -> Schema:
    kinds = {str: "string", int: "integer"}
    return {"type": kinds.get(type(value), "object")}


def _message(name: str, payload: Schema, example: Any, comment: str = "") -> Schema:
    message: Schema = {"name": name, "title": name, "payload": payload}
    if comment:
        message["summary"] = comment
    if example is not None:
        message["examples"] = [{"payload": example}]
    return message
