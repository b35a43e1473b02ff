"""Messages to JSON values: one straight-line Python function is written per message type.

A call per field would cost more than the field itself, so the functions are generated as source
text, from nothing but descriptors: the names in them are identifiers of protobuf or quoted.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Callable
from typing import Any

from google.protobuf import any_pb2, field_mask_pb2, struct_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from steward_gateway import money
from steward_gateway.contracts import message_class
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
from steward_gateway.wellknown import (
    SECOND_TEXTS,
    base64_text,
    camel_case,
    duration_text,
    shortest_float32,
    shortest_floats32,
    timestamp_text,
)

Encoder = Callable[[Any], Any]

_INT64 = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SINT64,
}
_FLOATS = {FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}
WRAPPERS = {
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
}


class Unencodable(ValueError):
    """The message holds a value that JSON has no form for; says which."""


class _Words(dict[int, str | int | None]):
    """Words by number; a number that is not known stands for itself."""

    def __missing__(self, number: int) -> int:
        return number


def _double(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _house_float(value: float) -> float | None:
    return shortest_float32(value) if math.isfinite(value) else None


def _float(value: float) -> float | str:
    return shortest_float32(value) if math.isfinite(value) else _double(value)


def _map_key(key: Any) -> str:
    if type(key) is bool:
        return "true" if key else "false"
    return str(key)


class Encoders:
    """Makes and keeps the encoders of one style."""

    def __init__(self, style: Style, pool: DescriptorPool) -> None:
        self._style = style
        self._pool = pool
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, Descriptor]] = []
        self._scope: dict[str, Any] = {
            "_b64": base64_text,
            "_dollars": money.dollars,
            "_double": _double,
            "_float": _house_float if style is Style.HOUSE else _float,
            "_floats": shortest_floats32,
            "_key": _map_key,
            "_sign": math.copysign,
            "_seconds": SECOND_TEXTS,
            "_time": timestamp_text,
        }

    def of(self, descriptor: Descriptor) -> Encoder:
        """The function that turns messages of the type into what orjson prints.

        It raises `ValueError` for a time, duration or mask that has no form in JSON.
        """
        name = self._name_of(descriptor)
        while self._waiting:
            function, waiting = self._waiting.pop()
            source = "\n".join(self._lines(function, waiting))
            code = compile(source, f"<encoder of {waiting.full_name}>", "exec")
            exec(code, self._scope)  # noqa: S102 - see the module docstring
        encoder: Encoder = self._scope[name]
        return encoder

    def _name_of(self, descriptor: Descriptor) -> str:
        full_name = descriptor.full_name
        if full_name in self._names:
            return self._names[full_name]
        name = self._names[full_name] = f"_message_{len(self._names)}"
        if known := self._well_known(full_name):
            self._scope[name] = known
        else:
            self._waiting.append((name, descriptor))
        return name

    def _lines(self, function: str, descriptor: Descriptor) -> list[str]:
        if descriptor.full_name in WRAPPERS:
            value = self._value(descriptor.fields_by_name["value"], "m.value")
            return [f"def {function}(m):", f" return {value}"]
        if is_bare(descriptor, self._style):
            return [f"def {function}(m):", *self._bare(descriptor)]
        always, sometimes = [], []
        for field in descriptor.fields:
            key, read = repr(json_name(field, self._style)), _attribute(field)
            if not self._may_be_left_out(field):
                always.append(f"  {key}: {self._whole(field, read)},")
            elif field.has_presence:
                value = self._value(field, read)
                sometimes.append(f" if m.HasField({field.name!r}): d[{key}] = {value}")
            else:
                empty_unless = "v"
                if field.type in _FLOATS and not field.is_repeated:
                    empty_unless = "v or _sign(1.0, v) < 0"  # -0.0 is a value
                value = self._plural(field, "v")
                sometimes += [f" v = {read}", f" if {empty_unless}: d[{key}] = {value}"]
        return [f"def {function}(m):", " d = {", *always, " }", *sometimes, " return d"]

    def _bare(self, descriptor: Descriptor) -> list[str]:
        first = descriptor.fields[0]
        oneof = real_oneof(first)
        if oneof is None:
            return [f" return {self._plural(first, _attribute(first))}"]
        lines = [f" w = m.WhichOneof({oneof.name!r})"]
        return lines + [
            f" if w == {field.name!r}: return {self._value(field, _attribute(field))}"
            for field in descriptor.fields
        ]

    def _may_be_left_out(self, field: FieldDescriptor) -> bool:
        if self._style is Style.PROTOJSON:
            return True
        return field_rule(field).omit_empty or real_oneof(field) is not None

    def _whole(self, field: FieldDescriptor, read: str) -> str:
        if field.has_presence:
            return f"{self._value(field, read)} if m.HasField({field.name!r}) else None"
        return self._plural(field, read)

    def _plural(self, field: FieldDescriptor, read: str) -> str:
        if is_map(field):
            key = "k" if map_key(field).type == FieldDescriptor.TYPE_STRING else "_key(k)"
            value = self._value(map_value(field), "i", in_dollars=is_money(field))
            return f"{{{key}: {value} for k, i in {read}.items()}}"
        if field.is_repeated:
            item = self._value(field, "i")
            if field.type == FieldDescriptor.TYPE_FLOAT and self._style is Style.HOUSE:
                return f"_floats({read})"
            return f"{read}[:]" if item == "i" else f"[{item} for i in {read}]"
        return self._value(field, read)

    def _value(self, field: FieldDescriptor, read: str, *, in_dollars: bool = False) -> str:
        if field.message_type is not None:
            if field.message_type.full_name == "google.protobuf.Timestamp":
                return (
                    f"(_seconds[t.seconds] if not (t := {read}).nanos"
                    " else _time(t.seconds, t.nanos))"
                )
            return f"{self._name_of(field.message_type)}({read})"
        if field.enum_type is not None:
            return f"{self._words_of(field.enum_type)}[{read}]"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return f"_b64({read})"
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return f"_float({read})"
        if self._style is Style.PROTOJSON:
            if field.type in _INT64:
                return f"f'{{{read}}}'"
            if field.type == FieldDescriptor.TYPE_DOUBLE:
                return f"_double({read})"
        elif in_dollars or is_money(field):
            return f"(_dollars(n) if (n := {read}) else 0)"
        return read

    def _words_of(self, enum: EnumDescriptor) -> str:
        name = f"_words_{enum.full_name.replace('.', '_')}"
        if name in self._scope:
            return name
        words: dict[int, str | int | None]
        if enum.full_name == "google.protobuf.NullValue":
            words = dict.fromkeys(enum.values_by_number)
        elif self._style is Style.PROTOJSON:
            words = {number: value.name for number, value in enum.values_by_number.items()}
        else:
            known = enum_words(enum)
            words = {number: known.get(number) for number in enum.values_by_number}
        self._scope[name] = _Words(words)
        return name

    def _well_known(self, full_name: str) -> Encoder | None:
        known: dict[str, Encoder] = {
            "google.protobuf.Timestamp": lambda m: timestamp_text(m.seconds, m.nanos),
            "google.protobuf.Duration": lambda m: duration_text(m.seconds, m.nanos),
            "google.protobuf.FieldMask": self._field_mask,
            "google.protobuf.Struct": self._struct,
            "google.protobuf.Value": self._json_value,
            "google.protobuf.ListValue": self._list,
            "google.protobuf.Any": self._any,
        }
        return known.get(full_name)

    def _field_mask(self, mask: field_mask_pb2.FieldMask) -> str:
        if self._style is Style.HOUSE:
            return ",".join(mask.paths)
        return ",".join(map(camel_case, mask.paths))

    def _struct(self, struct: struct_pb2.Struct) -> dict[str, Any]:
        return {name: self._json_value(value) for name, value in struct.fields.items()}

    def _list(self, values: struct_pb2.ListValue) -> list[Any]:
        return [self._json_value(value) for value in values.values]

    def _json_value(self, value: struct_pb2.Value) -> Any:
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                number = value.number_value
                if math.isfinite(number):
                    return int(number) if number.is_integer() and abs(number) < 2**53 else number
                raise Unencodable("a google.protobuf.Value holds NaN or an infinity")
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self._struct(value.struct_value)
            case "list_value":
                return self._list(value.list_value)
        return None

    def _any(self, packed: any_pb2.Any) -> dict[str, Any]:
        if not packed.type_url and not packed.value:
            return {}
        try:
            descriptor = self._pool.FindMessageTypeByName(packed.type_url.rpartition("/")[2])
        except KeyError:
            raise Unencodable(f"no message type is known for {packed.type_url!r}") from None
        message: Message = message_class(descriptor).FromString(packed.value)
        shown = self.of(descriptor)(message)
        if descriptor.full_name in WRAPPERS or self._well_known(descriptor.full_name):
            return {"@type": packed.type_url, "value": shown}
        return {"@type": packed.type_url, **shown}


def _attribute(field: FieldDescriptor) -> str:
    if keyword.iskeyword(field.name):
        return f"getattr(m, {field.name!r})"
    return f"m.{field.name}"
