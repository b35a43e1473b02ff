"""Values that a message might hold, as JSON shows them, for people to copy. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from steward_gateway.describe.schemas import Schema, Schemas
from steward_gateway.encoding import WRAPPERS
from steward_gateway.names import (
    Style,
    enum_words,
    field_rule,
    is_bare,
    is_map,
    is_money,
    json_name,
    map_key,
    map_value,
    real_oneof,
)

MAX_DEPTH = 5

_LEFT_OUT = re.compile(r"\b(absent|empty|either|the credential|repeating)\b|\b0 (?:means|leaves)\b")
"""What a comment says of a field that callers need not give."""

_WELL_KNOWN: Mapping[str, Any] = {
    "google.protobuf.Timestamp": "2026-11-21T09:30:00Z",
    "google.protobuf.Duration": "1.500s",
    "google.protobuf.FieldMask": "name",
    "google.protobuf.Struct": {"key": "value"},
    "google.protobuf.Value": "value",
    "google.protobuf.ListValue": ["value"],
    "google.protobuf.Any": {"@type": "type.googleapis.com/google.protobuf.Empty"},
    "google.protobuf.Empty": {},
}

_NAMED_TEXTS: tuple[tuple[str, str], ...] = (
    ("email", "ada@example.com"),
    ("url", "https://example.com"),
    ("username", "ada"),
    ("password", "a long walk in the rain"),
    ("version", "1.0.0"),
    ("path", "example/path.yaml"),
    ("reason", "as agreed"),
    ("page_token", ""),
)
_NAMED_NUMBERS: tuple[tuple[str, int], ...] = (
    ("_ms", 60_000),
    ("_s", 60),
    ("_tokens", 1_200),
    ("_size", 100),
    ("limit", 100),
    ("offset", 0),
)


class Examples:
    """Makes examples of messages whose schemas are known."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    def of_message(
        self,
        descriptor: Descriptor,
        *,
        read: bool,
        without: frozenset[str] = frozenset(),
        depth: int = 0,
    ) -> Any:
        """A message: everything that is printed, or what a caller would send.

        The fields in `without` travel another way.
        """
        name = descriptor.full_name
        if name in _WELL_KNOWN:
            return _WELL_KNOWN[name]
        if name in WRAPPERS:
            return self.of_field(descriptor.fields_by_name["value"], read=read, depth=depth)
        if is_bare(descriptor, Style.HOUSE):
            return self.of_field(descriptor.fields[0], read=read, depth=depth)
        shown: dict[str, Any] = {}
        chosen: set[str] = set()
        for field in descriptor.fields:
            oneof = real_oneof(field)
            group = oneof.name if oneof is not None else self._alternatives(field)
            if field.name in without or (group and group in chosen):
                continue
            if read and self._may_be_left_out(field) and not group:
                continue
            if field_rule(field).omit_empty and not read:
                continue
            if depth >= MAX_DEPTH and field.message_type is not None:
                if not read and oneof is None:
                    shown[json_name(field, Style.HOUSE)] = [] if field.is_repeated else None
                continue
            if group:
                chosen.add(group)
            shown[json_name(field, Style.HOUSE)] = self.of_field(field, read=read, depth=depth)
        return shown

    def _comment(self, field: FieldDescriptor) -> str:
        return self._schemas.comments.get(field.full_name, "").lower()

    def _alternatives(self, field: FieldDescriptor) -> str:
        return "either" if self._comment(field).startswith("either this or") else ""

    def _may_be_left_out(self, field: FieldDescriptor) -> bool:
        return field.has_presence or bool(_LEFT_OUT.search(self._comment(field)))

    def of_field(self, field: FieldDescriptor, *, read: bool, depth: int = 0) -> Any:
        """The value of a field."""
        given = field_rule(field).example
        if given:
            return orjson.loads(given)
        if is_map(field):
            key = "true" if map_key(field).type == FieldDescriptor.TYPE_BOOL else "1"
            if map_key(field).type == FieldDescriptor.TYPE_STRING:
                key = "key"
            value = map_value(field)
            return {key: 1.25 if is_money(field) else self._one(value, {}, read, depth)}
        schema = self._schemas.of_field(field, read=read)
        if field.is_repeated:
            return [self._one(field, schema["items"], read, depth)]
        return self._one(field, schema, read, depth)

    def _one(self, field: FieldDescriptor, schema: Schema, read: bool, depth: int) -> Any:  # noqa: FBT001
        if field.message_type is not None:
            return self.of_message(field.message_type, read=read, depth=depth + 1)
        if field.enum_type is not None:
            words = enum_words(field.enum_type)
            return next(iter(words.values()), None)
        if is_money(field):
            return 1.25
        return _MAKERS[field.cpp_type](field, schema)


def _text(field: FieldDescriptor, schema: Schema) -> str:
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(b"example").decode()
    name = field.name
    text = name.replace("_", " ")
    for ending, value in _NAMED_TEXTS:
        if name.endswith(ending):
            text = value
            break
    else:
        if name == "id" or name.endswith("_id"):
            holder = field.containing_type.name if field.containing_type is not None else "thing"
            kind = name.removesuffix("id").removesuffix("_") or _first_word(holder)
            text = f"{kind}_1a2b3c"
        elif name == "name":
            text = "example"
    low: int = schema.get("minLength", 0)
    high: int = schema.get("maxLength", len(text))
    return (text + "." * max(0, low - len(text)))[:high]


def _first_word(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _whole(field: FieldDescriptor, schema: Schema) -> int:
    value = next((number for end, number in _NAMED_NUMBERS if field.name.endswith(end)), 1)
    low: int = schema.get("minimum", value)
    high: int = schema.get("maximum", value)
    return max(low, min(value, high))


def _real(field: FieldDescriptor, schema: Schema) -> float:
    del field, schema
    return 0.5


def _truth(field: FieldDescriptor, schema: Schema) -> bool:
    del field, schema
    return True


_MAKERS: Mapping[int, Callable[[FieldDescriptor, Schema], Any]] = {
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_INT32: _whole,
    FieldDescriptor.CPPTYPE_INT64: _whole,
    FieldDescriptor.CPPTYPE_UINT32: _whole,
    FieldDescriptor.CPPTYPE_UINT64: _whole,
    FieldDescriptor.CPPTYPE_DOUBLE: _real,
    FieldDescriptor.CPPTYPE_FLOAT: _real,
    FieldDescriptor.CPPTYPE_BOOL: _truth,
}
