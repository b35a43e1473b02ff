"""Message types to compiled JSON codecs. Pure: text in, messages out, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

import orjson
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from steward_gateway import json_text, names
from steward_gateway.contracts import message_class
from steward_gateway.decoding import Decoders, construct
from steward_gateway.encoding import Encoders, Unencodable
from steward_gateway.filling import FAULTS, Filler, Fillers
from steward_gateway.json_text import BadJson
from steward_gateway.names import Style

MAX_NESTING = 30
"""How deep JSON for a message type that contains itself may nest.

A level of JSON is up to three levels of protobuf, whose decoders stop at 100.
"""

MAX_FAULTS = 20
"""As many wrong fields are told at once."""
MAX_PATH_CHARS = 200

__all__ = ["BadJson", "Codec", "Codecs", "FieldErrors", "Style", "Unencodable", "codecs_of"]


class FieldErrors(ValueError):
    """JSON that is no such message: what is wrong, by the path of the field.

    A path is as the caller wrote it: `usages[3].cost_usd`; "" is the whole value. Of many faults
    the first are told, and the number of the others, `more`: an answer must not grow with what a
    caller gets wrong.
    """

    def __init__(self, fields: Mapping[str, str], more: int = 0) -> None:
        told = dict(islice(fields.items(), MAX_FAULTS))
        self.more = more + len(fields) - len(told)
        self.fields = {_shortened(path): text for path, text in told.items()}
        texts = [f"{path or 'the body'} {text}" for path, text in self.fields.items()]
        super().__init__("; ".join([*texts, f"and {self.more} more"] if self.more else texts))


def _shortened(path: str) -> str:
    return path if len(path) <= MAX_PATH_CHARS else f"{path[:MAX_PATH_CHARS]}…"


@dataclass(frozen=True, slots=True)
class Codec:
    """The codec of one message type.

    Attributes:
        encode: turns a message into what orjson prints; raises `ValueError` for a value that has no
            form in JSON.
        parse: turns JSON text into a value that `decode` takes without loss; raises `BadJson`.
    """

    descriptor: Descriptor
    message: type[Message]
    encode: Callable[[Message], Any]
    parse: Callable[[bytes | str], Any]
    _recursive: bool
    _fill: Filler
    _arguments: Callable[[Any], Any]
    _faults: Callable[[Descriptor, Any], dict[str, str]]

    def decode(self, value: Any) -> Message:
        """Turn a JSON value into a message.

        Raises:
            FieldErrors: everything that is wrong with it.
        """
        if self._recursive:
            _check_depth(value)
        message = self.message()
        try:
            self._fill(message, value)
        except FAULTS:
            return self._decode_any(value)
        return message

    def _decode_any(self, value: Any) -> Message:
        """As `decode`, for what is not of the plain form: nulls, other names, and all faults."""
        try:
            return construct(self.descriptor, self._arguments(value))
        except ValueError as fault:
            raise FieldErrors(self._faults(self.descriptor, value) or {"": str(fault)}) from None

    def from_json(self, text: bytes | str) -> Message:
        """Turn JSON text into a message.

        Raises:
            BadJson: it is not JSON.
            FieldErrors: it is JSON, but no such message.
        """
        return self.decode(self.parse(text))

    def to_json(self, message: Message) -> bytes:
        """Turn a message into JSON text.

        Raises:
            Unencodable: it holds a value that JSON has no form for.
        """
        try:
            return orjson.dumps(self.encode(message))
        except ValueError as error:
            raise Unencodable(f"{self.descriptor.full_name}: {error}") from error


@cache
def codecs_of(style: Style) -> Codecs:
    """The codecs of one style: of the pool there is, so the same for the whole process."""
    return Codecs(style)


class Codecs:
    """Makes and keeps the codecs of one style over the default pool."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self.pool = descriptor_pool.Default()
        self._encoders = Encoders(style, self.pool)
        self._decoders = Decoders(style, self.pool)
        self._fillers = Fillers(style)
        self._made: dict[str, Codec] = {}

    def of(self, descriptor: Descriptor) -> Codec:
        """The codec of a message type, made at the first call."""
        made = self._made.get(descriptor.full_name)
        if made is None:
            made = self._made[descriptor.full_name] = Codec(
                descriptor=descriptor,
                message=message_class(descriptor),
                encode=self._encoders.of(descriptor),
                parse=(
                    json_text.parse_exactly
                    if self.style is Style.HOUSE and _holds_money(descriptor)
                    else json_text.parse
                ),
                _recursive=_is_recursive(descriptor),
                _fill=self._fillers.of(descriptor),
                _arguments=self._decoders.of(descriptor),
                _faults=self._decoders.faults,
            )
        return made


@cache
def _reachable(descriptor: Descriptor) -> frozenset[Descriptor]:
    """The message types that can stand inside a message, itself only if it can contain itself."""
    found: set[Descriptor] = set()
    waiting = [descriptor]
    while waiting:
        for field in waiting.pop().fields:
            inner = field.message_type
            if inner is not None and inner not in found:
                found.add(inner)
                waiting.append(inner)
    return frozenset(found)


def _holds_money(descriptor: Descriptor) -> bool:
    inside = {descriptor} | _reachable(descriptor)
    return any(names.is_money(field) for message in inside for field in message.fields)


def _is_recursive(descriptor: Descriptor) -> bool:
    inside = {descriptor} | _reachable(descriptor)
    return any(
        message in _reachable(message) or message.full_name == "google.protobuf.Any"
        for message in inside
    )


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_NESTING + 1):
        containers = [item for item in level if type(item) in (dict, list)]
        if not containers:
            return
        level = []
        for container in containers:
            level += container.values() if type(container) is dict else container
    raise FieldErrors({"": f"is nested deeper than {MAX_NESTING} levels"})
