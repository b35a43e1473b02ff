"""Values of JSON in messages: `google.protobuf.Struct` and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

_MAX_WHOLE = 2**53
"""From here on a double, which is what a `Struct` has, does not know every whole number."""


def struct_of(values: Mapping[str, Any]) -> Struct:
    """A map as a message."""
    return Struct(fields={name: message_of(value) for name, value in values.items()})


def message_of(value: Any) -> Value:
    """A value as a message."""
    match value:
        case None:
            return Value(null_value=NULL_VALUE)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=value)
        case str():
            return Value(string_value=value)
        case Mapping():
            return Value(struct_value=struct_of(value))
    made = Value()
    made.list_value.values.extend(message_of(each) for each in value)
    return made


def values_of(given: Struct) -> dict[str, Any]:
    """A message as a map, in which whole numbers are whole."""
    values: dict[str, Any] = _whole(MessageToDict(given))
    return values


def _whole(value: Any) -> Any:
    match value:
        case dict():
            return {name: _whole(each) for name, each in value.items()}
        case list():
            return [_whole(each) for each in value]
        case float() if value.is_integer() and abs(value) < _MAX_WHOLE:
            return int(value)
    return value
