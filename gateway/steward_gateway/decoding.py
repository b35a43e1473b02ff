"""JSON values to messages: closures made once per message type, one constructor call per message.

The readers are quick and stop at the first fault. Only then is the value walked again, slowly, to
say all that is wrong with it and where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from steward_gateway import money
from steward_gateway.contracts import message_class
from steward_gateway.encoding import WRAPPERS
from steward_gateway.names import (
    Style,
    accepted_names,
    enum_words,
    is_bare,
    is_map,
    is_money,
    map_key,
    map_value,
    real_oneof,
)
from steward_gateway.scalars import (
    INTEGER_RANGES,
    MAX_FLOAT32,
    Reader,
    integer_reader,
    key_reader,
    number_reader,
    read_bool,
    read_json_value,
    read_list,
    read_struct,
    read_text,
)
from steward_gateway.wellknown import (
    Unreadable,
    read_base64,
    read_duration,
    read_timestamp,
    snake_case,
)

Walk = Callable[[Any, str, dict[str, str]], None]
"""Writes every fault of a value found at a path into the dictionary."""


class _NoType:
    """Never the type of a JSON value."""


@dataclass(frozen=True, slots=True)
class Slot:
    """How one field of a message is read.

    Attributes:
        taken_as_is: a value of exactly this type needs no reading: the constructor checks it.
        null: what JSON's null stands for; None leaves the field alone.
        walk: finds every fault of a value, with paths; only called when something is wrong.
    """

    name: str
    taken_as_is: type
    read: Reader
    null: Any
    walk: Walk


class Decoders:
    """Makes and keeps the readers of one style."""

    def __init__(self, style: Style, pool: DescriptorPool) -> None:
        self._style = style
        self._pool = pool
        self._slots: dict[str, dict[str, Slot]] = {}
        self._bare_slots: dict[str, Slot] = {}
        self._readers: dict[str, Reader] = {}

    def of(self, descriptor: Descriptor) -> Reader:
        """The function that turns a JSON value into the arguments of the type's constructor."""
        full_name = descriptor.full_name
        if full_name not in self._readers:
            special = self._well_known(descriptor)
            self._readers[full_name] = special or self._message(descriptor)
        return self._readers[full_name]

    def faults(self, descriptor: Descriptor, value: Any) -> dict[str, str]:
        """Everything that is wrong with a value, by the path of the field; "" is all of it."""
        found: dict[str, str] = {}
        self._walk_message(descriptor, value, "", found)
        return found

    def _message(self, descriptor: Descriptor) -> Reader:
        if is_bare(descriptor, self._style):
            return self._bare(descriptor)
        # Filled below, after it is known by name: a message type may contain itself.
        slots = self._slots[descriptor.full_name] = {}
        table: dict[str, tuple[str, type, Reader, Any]] = {}
        find = table.get
        oneofs = _oneofs(descriptor)
        aliases = self._style is Style.PROTOJSON

        def read(value: Any) -> dict[str, Any]:
            if type(value) is not dict:
                raise Unreadable("must be an object")
            arguments: dict[str, Any] = {}
            for key, item in value.items():
                slot = find(key)
                if slot is None:
                    raise Unreadable("has an unknown field")
                name, taken_as_is, read_item, null = slot
                if aliases and name in arguments:
                    raise Unreadable("has a field twice, under two names")
                if type(item) is taken_as_is:
                    arguments[name] = item
                else:
                    arguments[name] = null if item is None else read_item(item)
            for members in oneofs:
                if sum(arguments.get(member) is not None for member in members) > 1:
                    raise Unreadable("has two members of a oneof")
            return arguments

        self._readers[descriptor.full_name] = read
        for field in descriptor.fields:
            slot = self._slot(field)
            for name in accepted_names(field, self._style):
                slots[name] = slot
                table[name] = (slot.name, slot.taken_as_is, slot.read, slot.null)
        return read

    def _bare(self, descriptor: Descriptor) -> Reader:
        if len(descriptor.fields) > 1:

            def refuse(_: Any) -> Any:
                raise Unreadable("is only answered, and cannot be sent")

            return refuse
        (field,) = descriptor.fields
        slot = self._bare_slots[descriptor.full_name] = self._slot(field)

        def read(value: Any) -> dict[str, Any]:
            if value is None:
                raise Unreadable("must not be null")
            return {slot.name: slot.read(value)}

        return read

    def _slot(self, field: FieldDescriptor) -> Slot:
        if is_map(field):
            read, walk = self._map(field)
            return Slot(field.name, _NoType, read, None, walk)
        in_dollars = is_money(field) and self._style is Style.HOUSE
        read, walk = self._singular(field, in_dollars=in_dollars)
        null = null_of(field)
        taken_as_is = _NoType if in_dollars else _taken_as_is(field)
        if field.is_repeated:
            read, walk = _list(read, walk, taken_as_is, null=null)
            return Slot(field.name, _NoType, read, None, walk)
        return Slot(field.name, taken_as_is, read, null, walk)

    def _singular(self, field: FieldDescriptor, *, in_dollars: bool) -> tuple[Reader, Walk]:
        if field.message_type is not None:
            descriptor = field.message_type
            read = self.of(descriptor)

            def walk_message(value: Any, path: str, found: dict[str, str]) -> None:
                self._walk_message(descriptor, value, path, found)

            return read, walk_message
        read = self._scalar(field, in_dollars=in_dollars)

        def walk(value: Any, path: str, found: dict[str, str]) -> None:
            try:
                read(value)
            except ValueError as fault:
                found[path] = str(fault)

        return read, walk

    def _map(self, field: FieldDescriptor) -> tuple[Reader, Walk]:
        read_key = key_reader(map_key(field))
        value_field = map_value(field)
        in_dollars = is_money(field) and self._style is Style.HOUSE
        read_item, walk_item = self._singular(value_field, in_dollars=in_dollars)
        null = null_of(value_field)

        def item_of(item: Any) -> Any:
            if item is None:
                if null is None:
                    raise Unreadable("must not be null")
                return null
            return read_item(item)

        def read(value: Any) -> dict[Any, Any]:
            if type(value) is not dict:
                raise Unreadable("must be an object")
            return {read_key(key): item_of(item) for key, item in value.items()}

        def walk(value: Any, path: str, found: dict[str, str]) -> None:
            if type(value) is not dict:
                found[path] = "must be an object"
                return
            for key, item in value.items():
                try:
                    read_key(key)
                except ValueError as fault:
                    found[f"{path}[{key}]"] = f"its key {fault}"
                    continue
                if item is not None:
                    walk_item(item, f"{path}[{key}]", found)
                elif null is None:
                    found[f"{path}[{key}]"] = "must not be null"

        return read, walk

    def _walk_message(
        self, descriptor: Descriptor, value: Any, path: str, found: dict[str, str]
    ) -> None:
        if value is not None and (bare := self._bare_slots.get(descriptor.full_name)):
            bare.walk(value, path, found)
            return
        slots = self._slots.get(descriptor.full_name)
        if slots is None or type(value) is not dict:
            try:
                self.of(descriptor)(value)
            except ValueError as fault:
                found[path] = str(fault)
            return
        given: dict[str, str] = {}
        for key, item in value.items():
            here = f"{path}.{key}" if path else key
            slot = slots.get(key)
            if slot is None:
                found[here] = "unknown field"
                continue
            if slot.name in given:
                found[here] = f"is the same field as {given[slot.name]}"
            if item is not None or slot.null is not None:
                given[slot.name] = key
            if item is not None:
                slot.walk(item, here, found)
        for members in _oneofs(descriptor):
            first, *others = [given[member] for member in members if member in given] or [""]
            for other in others:
                found[f"{path}.{other}" if path else other] = f"cannot be given beside {first}"

    def _scalar(self, field: FieldDescriptor, *, in_dollars: bool) -> Reader:
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if in_dollars:
            return money.nanousd
        if field.type in INTEGER_RANGES:
            low, high = INTEGER_RANGES[field.type]
            return integer_reader(low, high, texts=self._style is Style.PROTOJSON or high >= 2**32)
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return number_reader(float("inf"), texts=self._style is Style.PROTOJSON)
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return number_reader(MAX_FLOAT32, texts=self._style is Style.PROTOJSON)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return read_bool
        if field.type == FieldDescriptor.TYPE_BYTES:
            return read_base64
        return read_text

    def _enum(self, enum: EnumDescriptor) -> Reader:
        if self._style is Style.HOUSE:
            words = {word: number for number, word in enum_words(enum).items()}
            allowed = ", ".join(words)

            def read_word(value: Any) -> int:
                if type(value) is str and value in words:
                    return words[value]
                raise Unreadable(f"must be one of: {allowed}")

            return read_word
        numbers = {value.name: value.number for value in enum.values}
        closed = enum.is_closed
        integer = integer_reader(-(2**31), 2**31 - 1, texts=True)

        def read_name(value: Any) -> int:
            if type(value) is str and value in numbers:
                return numbers[value]
            number: int = integer(value)
            if closed and number not in enum.values_by_number:
                raise Unreadable("must be a value of the enum")
            return number

        return read_name

    def _well_known(self, descriptor: Descriptor) -> Reader | None:
        full_name = descriptor.full_name
        if full_name in WRAPPERS:
            read = self._scalar(descriptor.fields_by_name["value"], in_dollars=False)
            return lambda value: {"value": read(value)}
        return {
            "google.protobuf.Timestamp": read_timestamp,
            "google.protobuf.Duration": read_duration,
            "google.protobuf.FieldMask": self._field_mask,
            "google.protobuf.Struct": read_struct,
            "google.protobuf.Value": read_json_value,
            "google.protobuf.ListValue": read_list,
            "google.protobuf.Any": self._any,
        }.get(full_name)

    def _field_mask(self, value: Any) -> dict[str, list[str]]:
        if type(value) is not str:
            raise Unreadable('must be the names of fields, such as "name,budget"')
        paths = value.split(",") if value else []
        if self._style is Style.HOUSE:
            return {"paths": paths}
        if "_" in value:
            raise Unreadable("must be names of fields in camelCase")
        return {"paths": [snake_case(path) for path in paths]}

    def _any(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Unreadable("must be an object")
        if not value:
            return {}
        type_url = value.get("@type")
        if type(type_url) is not str:
            raise Unreadable('must name its type under "@type"')
        try:
            descriptor = self._pool.FindMessageTypeByName(type_url.rpartition("/")[2])
        except KeyError:
            raise Unreadable('names a type under "@type" that is not known') from None
        fields = {key: item for key, item in value.items() if key != "@type"}
        if descriptor.full_name in WRAPPERS or self._well_known(descriptor):
            if "value" not in fields:
                raise Unreadable('must have a "value" beside its "@type"')
            arguments = self.of(descriptor)(fields["value"])
        else:
            arguments = self.of(descriptor)(fields)
        packed = construct(descriptor, arguments).SerializeToString()
        return {"type_url": type_url, "value": packed}


def _oneofs(descriptor: Descriptor) -> list[list[str]]:
    return [
        [member.name for member in oneof.fields]
        for oneof in descriptor.oneofs
        if real_oneof(oneof.fields[0]) is not None
    ]


def _taken_as_is(field: FieldDescriptor) -> type:
    if field.type in INTEGER_RANGES:
        return int
    return {
        FieldDescriptor.TYPE_STRING: str,
        FieldDescriptor.TYPE_BOOL: bool,
        FieldDescriptor.TYPE_DOUBLE: float,
    }.get(field.type, _NoType)


def null_of(field: FieldDescriptor) -> Any:
    """What JSON's null stands for in a field; None: it leaves the field alone."""
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Value":
        return {"null_value": 0}
    if field.enum_type is not None and field.enum_type.full_name == "google.protobuf.NullValue":
        return 0
    return None


def _list(
    read_item: Reader,
    walk_item: Walk,
    taken_as_is: type,
    *,
    null: Any,
) -> tuple[Reader, Walk]:
    exact = {taken_as_is}

    def read(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Unreadable("must be a list")
        if value and {*map(type, value)} == exact:
            return value
        if null is not None:
            return [null if item is None else read_item(item) for item in value]
        return [read_item(item) for item in value]

    def walk(value: Any, path: str, found: dict[str, str]) -> None:
        if type(value) is not list:
            found[path] = "must be a list"
            return
        for index, item in enumerate(value):
            if item is not None:
                walk_item(item, f"{path}[{index}]", found)
            elif null is None:
                found[f"{path}[{index}]"] = "must not be null"

    return read, walk


def construct(descriptor: Descriptor, arguments: Any) -> Message:
    """Make the message a reader gave the arguments for."""
    message: Any = message_class(descriptor)
    match descriptor.full_name:
        case "google.protobuf.Struct":
            struct = message()
            struct.update(arguments)
            return cast("Message", struct)
        case "google.protobuf.ListValue":
            values = message()
            values.extend(arguments)
            return cast("Message", values)
    return cast("Message", message(**arguments))
