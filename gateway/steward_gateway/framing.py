"""Frames of a WebSocket to messages of a stream, and back, as a route's framing says. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from steward.gateway.v1 import options_pb2
from steward_gateway.codec import Codec, Codecs, FieldErrors
from steward_gateway.contracts import ContractFault
from steward_gateway.names import field_rule, json_name, real_oneof

TYPE = "type"
DATA = "data"


@dataclass(frozen=True, slots=True)
class Member:
    """One message that a tagged frame may hold.

    Attributes:
        key: its field's name in JSON outside of frames.
        tag: what `type` says.
        flat: whether its fields stand beside `type`.
    """

    name: str
    key: str
    tag: str
    flat: bool


@dataclass(frozen=True, slots=True)
class Framing:
    """How one route reads and writes frames.

    Attributes:
        read: the text of a frame to a message of the request stream; raises `BadJson` or
            `FieldErrors`. None where callers send nothing.
        write: a message of the response stream to the text of a frame; raises `ValueError` for a
            value that has no form in JSON.
    """

    read: Callable[[str], Message] | None
    write: Callable[[Message], str]


def build_framing(
    codecs: Codecs,
    framing: options_pb2.Framing.ValueType,
    *,
    request: Descriptor | None,
    response: Descriptor,
    response_body: str,
) -> Framing:
    """Compile the framing of a route.

    Raises:
        ContractFault: two members would have one tag, or a field stands in the way of the tag.
    """
    shown = response
    if response_body:
        shown = response.fields_by_name[response_body].message_type or response
    encode = codecs.of(shown).encode
    if framing in (options_pb2.FRAMING_TAGGED, options_pb2.FRAMING_FLAT):
        flat = framing == options_pb2.FRAMING_FLAT
        encode = _tagged_writer(codecs, shown, flat=flat)
        read = _tagged_reader(codecs, request, flat=flat) if request is not None else None
    else:
        read = codecs.of(request).from_json if request is not None else None

    def write(message: Message) -> str:
        body = getattr(message, response_body) if response_body else message
        return orjson.dumps(encode(body)).decode()

    return Framing(read, write)


def members_of(codecs: Codecs, message: Descriptor, *, flat: bool) -> tuple[str, list[Member]]:
    """The oneof of a tagged frame: its name, and what it may hold.

    Raises:
        ContractFault: two members would have one tag, or a field stands in the way of the tag.
    """
    oneof = next(oneof for oneof in message.oneofs if real_oneof(oneof.fields[0]) is not None)
    members = [
        Member(
            name=field.name,
            key=json_name(field, codecs.style),
            tag=_tag(field),
            flat=flat or field_rule(field).flat,
        )
        for field in oneof.fields
    ]
    others = _outer_names(codecs, message, members)
    tags = [member.tag for member in members]
    if len(set(tags)) < len(tags):
        raise ContractFault(f"{message.full_name}: two members of {oneof.name!r} have one tag")
    for taken in (TYPE, DATA):
        if taken in others:
            raise ContractFault(f"{message.full_name}: {taken!r} is the frame's own name")
    for field, member in zip(oneof.fields, members, strict=True):
        inner = field.message_type
        if member.flat and inner is not None:
            inside = {json_name(item, codecs.style) for item in inner.fields}
            if clash := inside & (others | {TYPE}):
                raise ContractFault(f"{field.full_name} cannot be flat: {sorted(clash)} is taken")
    return oneof.name, members


def _outer_names(codecs: Codecs, message: Descriptor, members: list[Member]) -> set[str]:
    keys = {member.key for member in members}
    return {json_name(field, codecs.style) for field in message.fields} - keys


def _tag(field: FieldDescriptor) -> str:
    if name := field_rule(field).json_name:
        return name
    return field.message_type.name if field.message_type is not None else field.name


def _tagged_writer(
    codecs: Codecs, message: Descriptor, *, flat: bool
) -> Callable[[Message], dict[str, Any]]:
    oneof, listed = members_of(codecs, message, flat=flat)
    members = {member.name: member for member in listed}
    encode = codecs.of(message).encode

    def write(value: Message) -> dict[str, Any]:
        outer: dict[str, Any] = encode(value)
        which = value.WhichOneof(oneof)
        if which is None:
            return {TYPE: None, **outer} if flat else {TYPE: None, **outer, DATA: None}
        member = members[which]
        data = outer.pop(member.key)
        if member.flat:
            return {TYPE: member.tag, **outer, **data}
        return {TYPE: member.tag, **outer, DATA: data}

    return write


def _tagged_reader(codecs: Codecs, message: Descriptor, *, flat: bool) -> Callable[[str], Message]:
    _, listed = members_of(codecs, message, flat=flat)
    members = {member.tag: member for member in listed}
    allowed = ", ".join(members)
    outer_names = _outer_names(codecs, message, listed)
    codec = codecs.of(message)

    def read(text: str) -> Message:
        frame = codec.parse(text)
        if type(frame) is not dict:
            raise FieldErrors({"": "must be an object"})
        tag = frame.pop(TYPE, None)
        member = members.get(tag) if type(tag) is str else None
        if member is None:
            raise FieldErrors({TYPE: f"must be one of: {allowed}"})
        if DATA in frame and not member.flat:
            data = frame.pop(DATA)
            tree, prefix = {**frame, member.key: {} if data is None else data}, DATA
        else:
            data = {name: value for name, value in frame.items() if name not in outer_names}
            tree = {name: value for name, value in frame.items() if name in outer_names}
            tree[member.key], prefix = data, ""
        return _decode(codec, tree, member.key, prefix)

    return read


def _decode(codec: Codec, tree: Mapping[str, Any], key: str, prefix: str) -> Message:
    try:
        return codec.decode(tree)
    except FieldErrors as errors:
        raise FieldErrors(
            {_as_written(path, key, prefix): text for path, text in errors.fields.items()},
            errors.more,
        ) from None


def _as_written(path: str, key: str, prefix: str) -> str:
    """Name a field as the frame does: its member's name never stands in it."""
    if path == key:
        return prefix
    if not path.startswith(f"{key}."):
        return path
    inside = path.removeprefix(f"{key}.")
    return f"{prefix}.{inside}" if prefix else inside
