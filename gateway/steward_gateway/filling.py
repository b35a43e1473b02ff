"""JSON objects into messages, quickly: one straight-line function is written per message type.

These take what nearly every request is: objects of known fields, each under its own name and of
the plain JSON type. Anything else, right or wrong, is `NotPlain`, and left to decoding.py, which
also says what is wrong. What both take, both read alike.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from steward_gateway import money
from steward_gateway.decoding import null_of
from steward_gateway.names import (
    Style,
    enum_words,
    is_bare,
    is_map,
    is_money,
    json_name,
    map_key,
    map_value,
    real_oneof,
)
from steward_gateway.scalars import INTEGER_RANGES, MAX_FLOAT32
from steward_gateway.wellknown import read_base64, read_duration, read_minute, read_timestamp

Filler = Callable[[Any, Any], None]
"""Sets the fields of an empty message from a JSON value.

It raises `NotPlain`, or whatever a value of the wrong kind leads to: one of `FAULTS`. The message
is then of no use.
"""


class NotPlain(ValueError):
    """The value is not of the plain form; it may be right all the same."""


FAULTS = (ValueError, TypeError, LookupError, AttributeError)

_WIDE = {kind for kind, (_, high) in INTEGER_RANGES.items() if high >= 2**32}
_MAX = repr(MAX_FLOAT32)
_PLAIN_TYPES = {
    FieldDescriptor.TYPE_STRING: "str",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_DOUBLE: "float",
    **dict.fromkeys(INTEGER_RANGES, "int"),
}


_SECOND = {f"{second:02d}Z": second for second in range(60)}


def _fill_time(message: Any, value: Any) -> None:
    if len(value) == 20:  # 2026-11-21T09:30:00Z
        message.seconds = read_minute(value[:17]) + _SECOND[value[17:]]
        return
    read = read_timestamp(value)
    message.seconds, message.nanos = read["seconds"], read["nanos"]


def _fill_duration(message: Any, value: Any) -> None:
    read = read_duration(value)
    message.seconds, message.nanos = read["seconds"], read["nanos"]


def _refuse(_message: Any, _value: Any = None) -> Any:
    raise NotPlain


def _nulls(value: dict[str, Any], known: frozenset[str]) -> int:
    """How many fields, of those that null leaves alone, are null."""
    return sum(item is None and key in known for key, item in value.items())


class Fillers:
    """Makes and keeps the fillers of one style."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, Descriptor]] = []
        self._scope: dict[str, Any] = {
            "NotPlain": NotPlain,
            "_NUMBERS": frozenset({float, int}),
            "_b64": read_base64,
            "_nanousd": money.nanousd,
            "_nulls": _nulls,
            "_refuse": _refuse,
        }

    def of(self, descriptor: Descriptor) -> Filler:
        """The function that fills messages of the type."""
        name = self._name_of(descriptor)
        while self._waiting:
            function, waiting = self._waiting.pop()
            source = "\n".join(self._lines(function, waiting))
            code = compile(source, f"<filler of {waiting.full_name}>", "exec")
            exec(code, self._scope)  # noqa: S102 - from nothing but descriptors, as in encoding.py
        filler: Filler = self._scope[name]
        return filler

    def _name_of(self, descriptor: Descriptor) -> str:
        full_name = descriptor.full_name
        if full_name in self._names:
            return self._names[full_name]
        name = self._names[full_name] = f"_fill_{len(self._names)}"
        if full_name == "google.protobuf.Timestamp":
            self._scope[name] = _fill_time
        elif full_name == "google.protobuf.Duration":
            self._scope[name] = _fill_duration
        elif full_name.startswith("google.protobuf."):
            self._scope[name] = _refuse
        else:
            self._waiting.append((name, descriptor))
        return name

    def _lines(self, function: str, descriptor: Descriptor) -> list[str]:
        if is_bare(descriptor, self._style):
            return [f"def {function}(m, v):", *(f" {line}" for line in self._bare(descriptor))]
        lines = [
            f"def {function}(m, value):",
            " if type(value) is not dict: raise NotPlain",
            " get = value.get",
            f" n = {len(descriptor.fields)}",
        ]
        oneofs = [oneof for oneof in descriptor.oneofs if real_oneof(oneof.fields[0]) is not None]
        lines += [f" o{oneof.index} = 0" for oneof in oneofs]
        for field in descriptor.fields:
            lines += [
                f" v = get({json_name(field, self._style)!r})",
                " if v is None: n -= 1",
                " else:",
            ]
            lines += [f"  {line}" for line in self._set(field)]
            if (oneof := real_oneof(field)) is not None:
                lines.append(f"  o{oneof.index} += 1")
        # Names that are not known, or not the first choice: both make the count differ.
        known = f"_known{function}"
        self._scope[known] = frozenset(
            json_name(field, self._style) for field in descriptor.fields if null_of(field) is None
        )
        wrong = f"n != len(value) and n + _nulls(value, {known}) != len(value)"
        several = "".join(f" or o{oneof.index} > 1" for oneof in oneofs)
        lines.append(f" if {wrong}{several}: raise NotPlain")
        lines.append(" if not n: m.SetInParent()")
        return lines

    def _bare(self, descriptor: Descriptor) -> list[str]:
        if len(descriptor.fields) > 1:
            return ["_refuse(m)"]
        return [*self._set(descriptor.fields[0]), "m.SetInParent()"]

    def _set(self, field: FieldDescriptor) -> list[str]:
        target = f"m.{field.name}"
        if keyword.iskeyword(field.name):
            return ["_refuse(m)"]
        if is_map(field):
            return self._set_map(field, target)
        if field.is_repeated:
            return self._set_list(field, target)
        if field.message_type is not None:
            return [f"{self._name_of(field.message_type)}({target}, v)"]
        return [*self._check(field, "v"), f"{target} = {self._value(field, 'v')}"]

    def _set_map(self, field: FieldDescriptor, target: str) -> list[str]:
        if map_key(field).type != FieldDescriptor.TYPE_STRING:
            return ["_refuse(m)"]
        value = map_value(field)
        lines = [
            "if type(v) is not dict: raise NotPlain",
            f"t = {target}",
            "for k, i in v.items():",
        ]
        if value.message_type is not None:
            return [*lines, f" {self._name_of(value.message_type)}(t[k], i)"]
        in_dollars = is_money(field) and self._style is Style.HOUSE
        read = "_nanousd(i)" if in_dollars else self._value(value, "i")
        checks = [] if in_dollars else self._check(value, "i")
        return [*lines, *(f" {check}" for check in checks), f" t[k] = {read}"]

    def _set_list(self, field: FieldDescriptor, target: str) -> list[str]:
        lines = ["if type(v) is not list: raise NotPlain"]
        if field.message_type is not None:
            name = self._name_of(field.message_type)
            return [*lines, f"t = {target}.add", f"for i in v: {name}(t(), i)"]
        check = self._check(field, "i")
        value = self._value(field, "i")
        if field.type == FieldDescriptor.TYPE_FLOAT:
            wrong = f"not {{*map(type, v)}} <= _NUMBERS or max(v) > {_MAX} or min(v) < -{_MAX}"
            return [*lines, f"if v and ({wrong}): raise NotPlain", f"{target}.extend(v)"]
        if value == "i":
            kind = _PLAIN_TYPES[field.type]
            return [
                *lines,
                f"if v and {{*map(type, v)}} != {{{kind}}}: raise NotPlain",
                f"{target}.extend(v)",
            ]
        return [
            *lines,
            f"t = {target}.append",
            "for i in v:",
            *(f" {c}" for c in check),
            f" t({value})",
        ]

    def _check(self, field: FieldDescriptor, name: str) -> list[str]:
        """A line that refuses what the value, set as it is, would not be checked for."""
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return [
                f"if type({name}) not in _NUMBERS or not -{_MAX} <= {name} <= {_MAX}: _refuse(m)"
            ]
        if self._value(field, name) != name:
            return []
        return [f"if type({name}) is not {_PLAIN_TYPES[field.type]}: raise NotPlain"]

    def _value(self, field: FieldDescriptor, name: str) -> str:
        if field.enum_type is not None:
            return f"{self._words_of(field.enum_type)}[{name}]"
        if field.type == FieldDescriptor.TYPE_BYTES:
            return f"_b64({name})"
        if is_money(field) and self._style is Style.HOUSE:
            return f"_nanousd({name})"
        if field.type in _WIDE and self._style is Style.PROTOJSON:
            return f"int({name}) if {name}.isdigit() and {name}.isascii() else _refuse(m)"
        if field.type in _PLAIN_TYPES or field.type == FieldDescriptor.TYPE_FLOAT:
            return name
        return "_refuse(m)"

    def _words_of(self, enum: EnumDescriptor) -> str:
        name = f"_words_{enum.full_name.replace('.', '_')}"
        if name not in self._scope:
            self._scope[name] = (
                {word: number for number, word in enum_words(enum).items()}
                if self._style is Style.HOUSE
                else {value.name: value.number for value in enum.values}
            )
        return name
