"""Descriptors to routes: the rules of `google.api.http`, and of our option for WebSockets. Pure.

Every fault of a rule is found here, at start, never while serving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.rpc import status_pb2

from steward.gateway.v1 import options_pb2
from steward_gateway.contracts import (
    ContractFault,
    Contracts,
    dialect_of,
    full_method,
    method_rule,
)
from steward_gateway.names import is_map, real_oneof
from steward_gateway.scalars import INTEGER_RANGES
from steward_gateway.templates import BadTemplate, Template, parse_template

BindingKind = Literal["http", "websocket"]

_STRING = FieldDescriptor.TYPE_STRING


@dataclass(frozen=True, slots=True)
class Route:
    """One way into one method.

    Attributes:
        verb: the HTTP method; "*" for every one; "GET" for a WebSocket.
        variables: for each variable of the template the fields that lead to it.
        body: "*" for the whole request, the name of a field, or "" for none.
        response_body: the name of the field that is answered alone, or "".
        opening: for a WebSocket, the field of the request stream that is sent first, or "".
        refusal: for a WebSocket, the field of the response that refuses a message, or "".
        request_id_field: the field that takes the `Idempotency-Key`, or "".
        etag: the fields of the answer that lead to its version, or none.
        if_match: the field that takes the version of `If-Match`, or None.
        position: the field of what is shown, or of the response, that says where a stream is, or
            None.
        after: the field that takes the `Last-Event-ID`, or None.
        taken_if: the parameter of the query that must be true for this route to be taken, or "".
        named_event: the field of the response that is an event of its own name, or None.
        statuses: what HTTP tells of which reason, as the contracts say.
    """

    method: MethodDescriptor
    full_method: str
    kind: BindingKind
    verb: str
    template: Template
    variables: tuple[tuple[FieldDescriptor, ...], ...]
    body: str
    response_body: str
    dialect: options_pb2.Dialect.ValueType
    success_status: int = 200
    framing: options_pb2.Framing.ValueType = options_pb2.FRAMING_PLAIN
    opening: str = ""
    refusal: str = ""
    request_id_field: str = ""
    etag: tuple[FieldDescriptor, ...] = ()
    if_match: FieldDescriptor | None = None
    position: FieldDescriptor | None = None
    after: FieldDescriptor | None = None
    taken_if: str = ""
    named_event: FieldDescriptor | None = None
    statuses: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def streams_requests(self) -> bool:
        return self.method.client_streaming

    @property
    def streams_responses(self) -> bool:
        return self.method.server_streaming


@lru_cache(maxsize=1)  # the same for every gateway of a process
def build_routes(contracts: Contracts) -> tuple[Route, ...]:
    """Every route of the contracts.

    Raises:
        ContractFault: a rule names a field that is not there or of the wrong kind, its template is
            broken, or two methods claim one path.
    """
    routes: list[Route] = []
    taken: dict[tuple[BindingKind, str, str, bool], Route] = {}
    for method in contracts.methods():
        for route in _routes_of(method):
            key = (route.kind, route.verb, route.template.shape, bool(route.taken_if))
            if (other := taken.setdefault(key, route)) is not route:
                raise ContractFault(
                    f"{route.full_method} and {other.full_method} both claim "
                    f"{route.verb} {route.template.text}"
                )
            routes.append(replace(route, statuses=contracts.statuses))
    for (*where, is_taken_if), route in taken.items():
        if is_taken_if and (*where, False) not in taken:
            raise ContractFault(
                f"{route.full_method}: nothing is served at {route.template.text} where "
                f"{route.taken_if!r} is not true"
            )
    return tuple(routes)


def _routes_of(method: MethodDescriptor) -> Iterator[Route]:
    options = method.GetOptions()
    if options.HasExtension(annotations_pb2.http):
        rule = options.Extensions[annotations_pb2.http]
        yield _http_route(method, rule)
        for binding in rule.additional_bindings:
            if binding.additional_bindings:
                raise ContractFault(f"{full_method(method)}: additional_bindings inside each other")
            yield _http_route(method, binding, is_alias=True)
    if method_rule(method).HasField("websocket"):
        yield _websocket_route(method, method_rule(method).websocket)


def _http_route(
    method: MethodDescriptor, rule: http_pb2.HttpRule, *, is_alias: bool = False
) -> Route:
    where = full_method(method)
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise ContractFault(f"{where}: a google.api.http rule without a path")
    if method.client_streaming:
        raise ContractFault(f"{where}: a stream of requests has no HTTP form; use a websocket rule")
    verb, path = (
        (rule.custom.kind.upper(), rule.custom.path)
        if pattern == "custom"
        else (pattern.upper(), getattr(rule, pattern))
    )
    if not verb:
        raise ContractFault(f"{where}: a custom pattern without a kind")
    if rule.body and verb in ("GET", "HEAD"):
        raise ContractFault(f"{where}: {verb} carries no body, but the rule has body {rule.body!r}")
    request = method.input_type
    template, variables = _template(method, path, request)
    if rule.body and rule.body != "*":
        body = _top_level(method, request, "body", rule.body)
        for variable in variables:
            if variable[0] is body and len(variable) == 1:
                raise ContractFault(f"{where}: {rule.body!r} is both the body and in the path")
    shown: Descriptor | None = method.output_type
    if rule.response_body:
        answered = _top_level(method, method.output_type, "response_body", rule.response_body)
        shown = None if answered.is_repeated else answered.message_type
    ours = method_rule(method)
    if ours.HasField("resume") and not method.server_streaming:
        raise ContractFault(f"{where}: `resume` on a method without a stream of responses")
    return Route(
        method=method,
        full_method=where,
        kind="http",
        verb=verb,
        template=template,
        variables=variables,
        body=rule.body,
        response_body=rule.response_body,
        dialect=dialect_of(method, is_alias=is_alias),
        success_status=_success_status(method),
        request_id_field=_request_id_field(method),
        etag=_version_path(method, ours.etag_field),
        if_match=_if_match(method, request, ours.if_match_field),
        position=_position(
            method,
            _holder(shown, method, ours.resume.id_field),
            "resume.id_field",
            ours.resume.id_field,
        ),
        after=_position(method, request, "resume.after_field", ours.resume.after_field),
        taken_if=_switch(method, ours.taken_if),
        named_event=_named_event(method, ours.events.named_field),
    )


def _websocket_route(method: MethodDescriptor, rule: options_pb2.WebSocketRule) -> Route:
    where = full_method(method)
    if not (method.client_streaming or method.server_streaming):
        raise ContractFault(f"{where}: a websocket rule on a method without streams")
    filled = method.input_type
    if rule.opening:
        if not method.client_streaming:
            raise ContractFault(f"{where}: `opening` on a method without a request stream")
        opening = _top_level(method, method.input_type, "opening", rule.opening)
        if opening.message_type is None or opening.is_repeated:
            raise ContractFault(f"{where}: opening {rule.opening!r} is not a single message")
        filled = opening.message_type
    template, variables = _template(method, rule.path, filled)
    if variables and method.client_streaming and not rule.opening:
        raise ContractFault(f"{where}: variables in the path need an `opening` to be sent in")
    shown = method.output_type
    if rule.response_body:
        answered = _top_level(method, method.output_type, "response_body", rule.response_body)
        if answered.message_type is None or answered.is_repeated:
            raise ContractFault(f"{where}: response_body {rule.response_body!r} is no message")
        shown = answered.message_type
    if rule.refusal:
        refusing = _top_level(method, method.output_type, "refusal", rule.refusal)
        if refusing.is_repeated or refusing.message_type is not status_pb2.Status.DESCRIPTOR:
            raise ContractFault(f"{where}: refusal {rule.refusal!r} is no google.rpc.Status")
    if rule.framing in (options_pb2.FRAMING_TAGGED, options_pb2.FRAMING_FLAT):
        read = [method.input_type] if method.client_streaming else []
        for message in [*read, shown]:
            _one_oneof(method, message)
    return Route(
        method=method,
        full_method=where,
        kind="websocket",
        verb="GET",
        template=template,
        variables=variables,
        body="",
        response_body=rule.response_body,
        dialect=dialect_of(method),
        framing=rule.framing or options_pb2.FRAMING_PLAIN,
        opening=rule.opening,
        refusal=rule.refusal,
    )


def _template(
    method: MethodDescriptor, path: str, request: Descriptor
) -> tuple[Template, tuple[tuple[FieldDescriptor, ...], ...]]:
    where = f"{full_method(method)}: the path {path!r}"
    try:
        template = parse_template(path)
    except BadTemplate as error:
        raise ContractFault(f"{where} {error}") from error
    return template, tuple(
        _path_field(where, request, variable.field_path) for variable in template.variables
    )


def _path_field(
    where: str, request: Descriptor, field_path: Sequence[str]
) -> tuple[FieldDescriptor, ...]:
    dotted = ".".join(field_path)
    fields: list[FieldDescriptor] = []
    message: Descriptor | None = request
    for name in field_path:
        if message is None or name not in message.fields_by_name:
            raise ContractFault(f"{where} names {dotted!r}, which {request.full_name} lacks")
        field = message.fields_by_name[name]
        if field.is_repeated:
            raise ContractFault(f"{where} names {dotted!r}, but {name!r} is repeated")
        fields.append(field)
        message = field.message_type
    if message is not None and not message.full_name.startswith("google.protobuf."):
        raise ContractFault(f"{where} names {dotted!r}, which is a message")
    return tuple(fields)


def _version_path(method: MethodDescriptor, path: str) -> tuple[FieldDescriptor, ...]:
    if not path:
        return ()
    fields = _path_field(f"{full_method(method)}: etag_field", method.output_type, path.split("."))
    _told_in_a_header(method, "etag_field", fields[-1])
    return fields


def _if_match(method: MethodDescriptor, request: Descriptor, name: str) -> FieldDescriptor | None:
    field = _position(method, request, "if_match_field", name)
    if field is not None and not field.has_presence:  # version 0 would look like no condition
        raise ContractFault(f"{full_method(method)}: if_match_field {name!r} is not `optional`")
    return field


def _position(
    method: MethodDescriptor, message: Descriptor | None, option: str, name: str
) -> FieldDescriptor | None:
    if not name:
        return None
    if message is None:
        raise ContractFault(f"{full_method(method)}: {option} where no message is shown")
    field = _top_level(method, message, option, name)
    _told_in_a_header(method, option, field)
    return field


def _holder(shown: Descriptor | None, method: MethodDescriptor, name: str) -> Descriptor | None:
    """What holds the field that says where a stream is: what is shown, or the whole response."""
    if shown is None or not name or name in shown.fields_by_name:
        return shown
    return method.output_type


def _switch(method: MethodDescriptor, name: str) -> str:
    if name:
        field = _top_level(method, method.input_type, "taken_if", name)
        if field.is_repeated or field.type != FieldDescriptor.TYPE_BOOL:
            raise ContractFault(f"{full_method(method)}: taken_if {name!r} is no bool")
    return name


def _named_event(method: MethodDescriptor, name: str) -> FieldDescriptor | None:
    if not name:
        return None
    field = _top_level(method, method.output_type, "events.named_field", name)
    if field.message_type is None or field.is_repeated:
        raise ContractFault(f"{full_method(method)}: events.named_field {name!r} is no message")
    return field


def _told_in_a_header(method: MethodDescriptor, option: str, field: FieldDescriptor) -> None:
    if field.is_repeated or (field.type not in INTEGER_RANGES and field.type != _STRING):
        raise ContractFault(
            f"{full_method(method)}: {option} {field.name!r} is no text or whole number"
        )


def _top_level(
    method: MethodDescriptor, message: Descriptor, option: str, name: str
) -> FieldDescriptor:
    if name in message.fields_by_name:
        return message.fields_by_name[name]
    raise ContractFault(
        f"{full_method(method)}: {option} names {name!r}, which {message.full_name} lacks"
    )


def _one_oneof(method: MethodDescriptor, message: Descriptor) -> None:
    declared = [oneof for oneof in message.oneofs if real_oneof(oneof.fields[0]) is not None]
    if len(declared) != 1:
        raise ContractFault(
            f"{full_method(method)}: this framing needs {message.full_name} to hold one oneof"
        )
    for member in declared[0].fields:
        if member.message_type is None or is_map(member):
            raise ContractFault(f"{full_method(method)}: {member.full_name} is not a message")


def _success_status(method: MethodDescriptor) -> int:
    status = method_rule(method).success_status or 200
    if not 200 <= status <= 299:
        raise ContractFault(f"{full_method(method)}: success_status {status} is no success")
    return status


def _request_id_field(method: MethodDescriptor) -> str:
    name = method_rule(method).request_id_field
    if not name:
        return ""
    field = _top_level(method, method.input_type, "request_id_field", name)
    if field.type != FieldDescriptor.TYPE_STRING or field.is_repeated:
        raise ContractFault(f"{full_method(method)}: request_id_field {name!r} is no string")
    return name
