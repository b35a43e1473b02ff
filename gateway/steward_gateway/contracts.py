"""The contracts a gateway serves: services of a descriptor set, messages of generated code.

Only names come from the set. Descriptors and classes come from the default pool, so that an
in-process core and the gateway hand each other the very same message classes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.message import DecodeError, Message

from steward.gateway.v1 import options_pb2


class ContractFault(Exception):
    """The contracts cannot be served as they are written; the text says which and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Contracts:
    """The services of a descriptor set, in the order they are declared.

    Attributes:
        source: where the set is, for what only describes it: names and comments.
        statuses: what HTTP tells of which reason, where that is not what it tells of its code.
    """

    services: tuple[ServiceDescriptor, ...]
    source: Traversable | bytes = b""
    statuses: Mapping[str, int] = field(default_factory=dict)

    def methods(self) -> Iterator[MethodDescriptor]:
        for service in self.services:
            yield from service.methods

    def descriptor_set(self) -> bytes:
        """The set itself, read again: nothing that serves calls keeps it."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def load_contracts(descriptor_set: Traversable | bytes | None = None) -> Contracts:
    """Read which services there are; None reads the set that ships with the `steward` package.

    Raises:
        ContractFault: the set is missing or broken, its generated modules cannot be imported, or
            a reason has no status that can be told.
    """
    if descriptor_set is None:
        return _shipped()
    read = descriptor_set
    if not isinstance(read, bytes):
        if not read.is_file():
            raise ContractFault(f"no descriptor set at {read}; compile the protos first")
        read = read.read_bytes()
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(read).file
    except DecodeError as error:
        raise ContractFault(f"the descriptor set is not one: {error}") from error
    services = []
    for file in files:
        if not file.service:
            continue
        _import_generated(file.name)
        in_pool = descriptor_pool.Default().FindFileByName(file.name)
        services += [in_pool.services_by_name[service.name] for service in file.service]
    return Contracts(tuple(services), descriptor_set, statuses_of(files))


@cache
def _shipped() -> Contracts:
    return load_contracts(resources.files("steward") / "descriptors.binpb")


def statuses_of(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> dict[str, int]:
    """What HTTP tells of reasons, as the options of the files say.

    Raises:
        ContractFault: it is no status of a failure, or two files disagree.
    """
    statuses: dict[str, int] = {}
    for file in files:
        for rule in file.options.Extensions[options_pb2.file].reasons:
            reason, status = rule.reason, rule.http_status
            if not 400 <= status <= 599:
                raise ContractFault(f"{file.name}: {reason}: http_status {status} is no failure")
            if statuses.setdefault(reason, status) != status:
                raise ContractFault(
                    f"{file.name}: {reason}: http_status {status} is {statuses[reason]} elsewhere"
                )
    return statuses


def _import_generated(proto: str) -> None:
    module = proto.removesuffix(".proto").replace("-", "_").replace("/", ".") + "_pb2"
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ContractFault(f"{proto} has no importable generated module {module}") from error


def message_class(descriptor: Descriptor) -> type[Message]:
    """The generated class of a message type."""
    return message_factory.GetMessageClass(descriptor)


def type_of(field: FieldDescriptor) -> Descriptor:
    """The message type of a field that holds messages.

    Raises:
        TypeError: it does not.
    """
    if field.message_type is None:
        raise TypeError(f"{field.full_name} holds no message")
    return field.message_type


def full_method(method: MethodDescriptor) -> str:
    """The name a `Transport` calls a method by."""
    return f"/{method.containing_service.full_name}/{method.name}"


def method_rule(method: MethodDescriptor) -> options_pb2.MethodRule:
    """What our options say of a method; empty if nothing."""
    return method.GetOptions().Extensions[options_pb2.method]


def dialect_of(
    method: MethodDescriptor, *, is_alias: bool = False
) -> options_pb2.Dialect.ValueType:
    """The dialect of a method: its own, else its service's, else Iron.

    An additional binding may have one of its own.
    """
    rule = method_rule(method)
    if is_alias and rule.alias_dialect:
        return rule.alias_dialect
    service = method.containing_service.GetOptions().Extensions[options_pb2.service]
    return rule.dialect or service.dialect or options_pb2.DIALECT_IRON
