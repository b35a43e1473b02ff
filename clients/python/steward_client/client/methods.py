"""Any method of the contracts by its name, with what the contract says of it. Pure."""

from __future__ import annotations

import secrets
from importlib import import_module
from typing import Any, TypeVar

from google.api import annotations_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from steward.gateway.v1 import options_pb2
from steward_client.client.calls import Call, first

M = TypeVar("M", bound=Message)


def call_of(name: str, request: Message, *, timeout_s: float | None = None) -> Call[Any]:
    """The call of a method, such as "steward.budget.v1.BudgetService/Handshake".

    Where the method takes an identity of the caller's own and the request has none, one is made
    up: so whatever happens on the way, the call may be made again.

    Raises:
        LookupError: there is no such method, or its contract is not imported.
        TypeError: the request is no message of that method.
    """
    method = _method(name)
    wanted = method.input_type.full_name
    given = request.DESCRIPTOR.full_name if isinstance(request, Message) else repr(request)
    if given != wanted:
        raise TypeError(f"{name} takes a {wanted}, not {given}")
    rule = method.GetOptions().Extensions[options_pb2.method]
    request = _identified(request, rule.request_id_field)
    reads_only = bool(method.GetOptions().Extensions[annotations_pb2.http].get)
    return Call(
        _stub(method),
        method.name,
        request,
        read=first(lambda answer: answer),
        repeatable=reads_only or bool(rule.request_id_field),
        public=rule.access == options_pb2.ACCESS_PUBLIC,
        streams=method.server_streaming,
        within_s=timeout_s,
    )


def _method(name: str) -> MethodDescriptor:
    service_name, _, method_name = name.partition("/")
    try:
        service = descriptor_pool.Default().FindServiceByName(service_name)
        return service.methods_by_name[method_name]
    except KeyError:
        raise LookupError(f"there is no method {name!r}; write package.Service/Method") from None


def _identified(request: M, field: str) -> M:
    if not field or getattr(request, field):
        return request
    identified = type(request)()
    identified.CopyFrom(request)
    setattr(identified, field, secrets.token_hex(16))
    return identified


def _stub(method: MethodDescriptor) -> type[Any]:
    service = method.containing_service
    module = service.file.name.removesuffix(".proto").replace("/", ".") + "_pb2_grpc"
    stub: type[Any] = getattr(import_module(module), f"{service.name}Stub")
    return stub
