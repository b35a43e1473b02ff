"""What fields and enum values are called in JSON: by the house rules or as ProtoJSON has it."""

from __future__ import annotations

import re
from enum import Enum
from functools import cache

from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    OneofDescriptor,
)

from steward.gateway.v1 import options_pb2
from steward_gateway import money
from steward_gateway.contracts import type_of

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MONEY_TYPES = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_SFIXED64,
}


class Style(Enum):
    """Two ways to show a message as JSON."""

    HOUSE = "house"
    """What Steward serves: snake_case, every field present, numbers as numbers, lower-case enum
    words, money in dollars, NaN and infinities refused."""
    PROTOJSON = "protojson"
    """The canonical mapping of protobuf: https://protobuf.dev/programming-guides/json/."""


@cache
def field_rule(field: FieldDescriptor) -> options_pb2.FieldRule:
    """What our options say of a field; empty if nothing."""
    return field.GetOptions().Extensions[options_pb2.field]


@cache
def is_bare(descriptor: Descriptor, style: Style) -> bool:
    """Whether the message is shown as the value of its field."""
    if style is Style.PROTOJSON:
        return False
    rule: options_pb2.MessageRule = descriptor.GetOptions().Extensions[options_pb2.message]
    return rule.bare


def is_money(field: FieldDescriptor) -> bool:
    """Whether the field, or each value of the map, counts nano-dollars and is shown in dollars."""
    if not field.name.endswith(money.FIELD_SUFFIX):
        return False
    counted = map_value(field) if is_map(field) else field
    return counted.type in _MONEY_TYPES


def is_map(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is not None and message.GetOptions().map_entry


def map_key(field: FieldDescriptor) -> FieldDescriptor:
    return type_of(field).fields_by_name["key"]


def map_value(field: FieldDescriptor) -> FieldDescriptor:
    return type_of(field).fields_by_name["value"]


def real_oneof(field: FieldDescriptor) -> OneofDescriptor | None:
    """The oneof a field was declared in; None for the one that only makes a field `optional`."""
    oneof = field.containing_oneof
    if oneof is None or (len(oneof.fields) == 1 and oneof.name == f"_{field.name}"):
        return None
    return oneof


@cache
def json_name(field: FieldDescriptor, style: Style) -> str:
    """The name a field is printed under."""
    if style is Style.PROTOJSON:
        return field.json_name
    if name := field_rule(field).json_name:
        return name
    if is_money(field):
        return field.name.removesuffix(money.FIELD_SUFFIX) + money.JSON_SUFFIX
    return field.name


def accepted_names(field: FieldDescriptor, style: Style) -> tuple[str, ...]:
    """The names a field is read under."""
    name = json_name(field, style)
    return (name,) if style is Style.HOUSE or name == field.name else (name, field.name)


def enum_words(enum: EnumDescriptor) -> dict[int, str]:
    """The word of each value: lower case, without the prefix all values share by convention.

    A value 0 named `…_UNSPECIFIED` has no word: it is null.
    """
    prefix = _WORD_START.sub("_", enum.name).upper() + "_"
    return {
        number: value.name.removeprefix(prefix).lower()
        for number, value in enum.values_by_number.items()
        if not (number == 0 and value.name.endswith("_UNSPECIFIED"))
    }
