"""Message types to JSON schemas, as the gateway's own style prints and reads them. Pure.

A message has two: what is printed holds all its fields, what is read may leave any out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from steward_gateway.describe.limits import count_limits, number_limits, text_limits
from steward_gateway.encoding import WRAPPERS
from steward_gateway.names import (
    Style,
    enum_words,
    field_rule,
    is_bare,
    is_map,
    is_money,
    json_name,
    map_value,
    real_oneof,
)

Schema: TypeAlias = dict[str, Any]

NULL = "null"
_OWN_PACKAGE = "steward."

_INT32 = {"type": "integer", "format": "int32"}
_INT64 = {"type": "integer", "format": "int64"}
_UINT32 = {"type": "integer", "format": "uint32", "minimum": 0}
_UINT64 = {"type": "integer", "format": "uint64", "minimum": 0}
_DOUBLE = {"type": "number", "format": "double"}
_FLOAT = {"type": "number", "format": "float"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: _DOUBLE,
    FieldDescriptor.TYPE_FLOAT: _FLOAT,
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
_WELL_KNOWN: Mapping[str, Schema] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?\d{1,12}(\.\d{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
    "google.protobuf.Empty": {"type": "object"},
}
_DOLLARS = "In dollars, with at most nine decimals."


class Schemas:
    """Makes and keeps the schemas of message types, and refers to them."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.comments = comments
        self.components: dict[str, Schema] = {}
        """Every schema that was referred to, by its name."""

    def refer(self, descriptor: Descriptor, *, read: bool) -> Schema:
        """A reference to the schema of a message; `read` for one that callers send."""
        well_known = _WELL_KNOWN.get(descriptor.full_name)
        if well_known is not None:
            return dict(well_known)
        if descriptor.full_name in WRAPPERS:
            return self._value(descriptor.fields_by_name["value"], read=read)
        if is_bare(descriptor, Style.HOUSE):
            shown = [self._any_count(field, "", read=read) for field in descriptor.fields]
            return shown[0] if len(shown) == 1 else {"anyOf": shown}
        name = _component_name(descriptor, read=read)
        if name not in self.components:
            self.components[name] = {}  # before its fields: a message may hold itself
            self.components[name] = self._message(descriptor, read=read)
        return {"$ref": f"#/components/schemas/{name}"}

    def resolve(self, schema: Schema) -> Schema:
        """What a reference stands for."""
        name = schema.get("$ref", "").rpartition("/")[2]
        return self.components[name] if name else schema

    def of_field(self, field: FieldDescriptor, *, read: bool) -> Schema:
        """The schema of a field's value, with its comment and its limits."""
        comment = self.comments.get(field.full_name, "")
        schema = self._any_count(field, comment, read=read)
        if is_money(field):
            comment = f"{comment} {_DOLLARS}".strip()
        if comment:
            said = schema.get("description")
            schema["description"] = f"{comment}\n\n{said}" if said else comment
        if field.GetOptions().deprecated:
            schema["deprecated"] = True
        return schema

    def _message(self, descriptor: Descriptor, *, read: bool) -> Schema:
        schema: Schema = {"type": "object"}
        if comment := self.comments.get(descriptor.full_name):
            schema["description"] = comment
        schema["properties"] = {
            json_name(field, Style.HOUSE): self.of_field(field, read=read)
            for field in descriptor.fields
        }
        if read:
            schema["additionalProperties"] = False
            return schema
        required = [
            json_name(field, Style.HOUSE)
            for field in descriptor.fields
            if not (field_rule(field).omit_empty or real_oneof(field) is not None)
        ]
        return schema | {"required": required} if required else schema

    def _any_count(self, field: FieldDescriptor, comment: str, *, read: bool) -> Schema:
        if is_map(field):
            values = self._value(map_value(field), read=read, in_dollars=is_money(field))
            return {"type": "object", "additionalProperties": values}
        schema = self._value(field, read=read, in_dollars=is_money(field))
        if field.is_repeated:
            limits = count_limits(comment) if read else {}
            return {"type": "array", "items": schema, **limits}
        if read:
            schema |= _limits(schema, comment)
        if field.has_presence and real_oneof(field) is None and not field_rule(field).omit_empty:
            return nullable(schema)
        return schema

    def _value(self, field: FieldDescriptor, *, read: bool, in_dollars: bool = False) -> Schema:
        if field.message_type is not None:
            return self.refer(field.message_type, read=read)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if in_dollars:
            return {"type": "number"}
        schema = dict(_SCALARS[field.type])
        if field_rule(field).secret and field.type == FieldDescriptor.TYPE_STRING:
            schema["format"] = "password"
        return schema

    def _enum(self, enum: EnumDescriptor) -> Schema:
        if enum.full_name == "google.protobuf.NullValue":
            return {"type": NULL}
        words = enum_words(enum)
        schema: Schema = {"type": "string", "enum": list(words.values())}
        if 0 not in words:
            schema = nullable(schema)
        told = [
            f"- `{word}`: {comment}"
            for number, word in words.items()
            if (comment := self.comments.get(_value_name(enum, number)))
        ]
        described = [self.comments.get(enum.full_name, ""), "\n".join(told)]
        if text := "\n\n".join(filter(None, described)):
            schema["description"] = text
        return schema


def nullable(schema: Schema) -> Schema:
    """The same, or null."""
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": NULL}]}
    if "type" not in schema or schema["type"] == NULL or NULL in schema["type"]:
        return schema
    widened = {**schema, "type": [schema["type"], NULL]}
    if "enum" in schema:
        widened["enum"] = [*schema["enum"], None]
    return widened


_READERS: Mapping[str, Callable[[str], Schema]] = {
    "string": text_limits,
    "integer": number_limits,
    "number": number_limits,
}


def _limits(schema: Schema, comment: str) -> Schema:
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _READERS:
        return {}
    if "enum" in schema or "contentEncoding" in schema:
        return {}
    return _READERS[kind](comment)


def _value_name(enum: EnumDescriptor, number: int) -> str:
    return f"{enum.full_name}.{enum.values_by_number[number].name}"


def _component_name(descriptor: Descriptor, *, read: bool) -> str:
    """Requests keep their names as they are read, all else as it is printed."""
    name = descriptor.full_name.removeprefix(_OWN_PACKAGE)
    if read == descriptor.name.endswith("Request"):
        return name
    return f"{name}.{'Input' if read else 'Output'}"
