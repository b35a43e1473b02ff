"""JSON values to scalars: readers that say what a value must be when it is not. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from steward_gateway.wellknown import Unreadable

Reader = Callable[[Any], Any]
"""Turns a JSON value into what a constructor takes; raises `ValueError` with the fault."""

MAX_FLOAT32 = 3.4028235677973362e38
"""The largest double that still rounds to a finite 32-bit float: 3.4028235e38 is how it prints."""
MAX_EXACT_INTEGER = 2**53
MAX_INTEGER_DIGITS = 20
INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}


def read_text(value: Any) -> str:
    if type(value) is not str:
        raise Unreadable("must be text")
    return value


def read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise Unreadable("must be true or false")
    return value


def _is_integer(text: str) -> bool:
    """Whether the text is what JSON writes for an integer; `int` alone takes "1_0" and more."""
    digits = text.removeprefix("-")
    return digits.isdigit() and digits.isascii() and len(digits) <= MAX_INTEGER_DIGITS


def integer_reader(low: int, high: int, *, texts: bool) -> Reader:
    fault = f"must be an integer from {low} to {high}"

    def read(value: Any) -> int:
        if type(value) is int:
            number = value
        elif type(value) is str and texts and _is_integer(value):
            number = int(value)
        elif (
            type(value) in (float, Decimal)
            and -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER
            and value == int(value)
        ):
            number = int(value)  # 5.0 is an integer; beyond 2^53 a double may not be the one meant
        else:
            raise Unreadable(fault)
        if low <= number <= high:
            return number
        raise Unreadable(fault)

    return read


_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?")


def number_reader(limit: float, *, texts: bool) -> Reader:
    def read(value: Any) -> float:
        if type(value) is str and texts:
            if value in _SPECIAL:
                return _SPECIAL[value]
            if len(value) > 400 or not _DECIMAL.fullmatch(value):
                raise Unreadable("must be a number")
        elif type(value) not in (int, float, Decimal):
            raise Unreadable("must be a number")
        number = float(value)
        if -limit <= number <= limit and number - number == 0:
            return number
        raise Unreadable("must be a number that fits the field")

    return read


def key_reader(field: FieldDescriptor) -> Reader:
    if field.type == FieldDescriptor.TYPE_STRING:
        return read_text
    if field.type == FieldDescriptor.TYPE_BOOL:

        def read_truth(key: str) -> bool:
            if key in ("true", "false"):
                return key == "true"
            raise Unreadable("must be true or false")

        return read_truth
    low, high = INTEGER_RANGES[field.type]
    return integer_reader(low, high, texts=True)


# A constructor takes what a Struct or ListValue holds as it is, not as `fields` or `values`.


def read_struct(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Unreadable("must be an object")
    return {key: _plain(item) for key, item in value.items()}


def read_list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise Unreadable("must be a list")
    return [_plain(item) for item in value]


def _plain(value: Any) -> Any:
    if type(value) is dict:
        return read_struct(value)
    if type(value) is list:
        return read_list(value)
    return float(value) if type(value) in (int, Decimal) else value


def read_json_value(value: Any) -> dict[str, Any]:
    if value is None:
        return {"null_value": 0}
    if type(value) is str:
        return {"string_value": value}
    if type(value) is bool:
        return {"bool_value": value}
    if type(value) is dict:
        return {"struct_value": read_struct(value)}
    if type(value) is list:
        return {"list_value": read_list(value)}
    return {"number_value": float(value)}
