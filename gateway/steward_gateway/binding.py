"""Path, query and body to the request message, as a `google.api.http` rule binds them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import field_mask_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from steward_gateway.codec import MAX_NESTING, Codec, Codecs, FieldErrors
from steward_gateway.encoding import WRAPPERS
from steward_gateway.names import Style, accepted_names, is_map, is_money, json_name

MAX_QUERY_PARAMETERS = 1000
HTTP_BODY = "google.api.HttpBody"

# In JSON it is a character like others, which a terminal may be sent; in a path or query it is
# meant to end somebody's string.
NUL = "holds the control character U+0000"

TextReader = Callable[[str], Any]
"""Turns the text of a path or query into a JSON value; raises `ValueError` with the fault."""

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")
_TEXT_IN_JSON = {
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
}
_NULL_IN_JSON = {*WRAPPERS, "google.protobuf.Value"}
_REAL = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_WHOLE = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
}


class Binding:
    """Builds the request message of one route.

    Args:
        request: the type that path, query and body fill.
        variables: the fields behind each variable of the path.
        body: "*", the name of a field, or "".
        patches: whether the method is PATCH, whose body says by what it holds what is to change:
            an `update_mask` that nobody set names the fields of the body (AIP-134).
    """

    def __init__(
        self,
        codecs: Codecs,
        request: Descriptor,
        variables: tuple[tuple[FieldDescriptor, ...], ...],
        body: str,
        *,
        patches: bool = False,
    ) -> None:
        self._codecs = codecs
        self.codec: Codec = codecs.of(request)
        self._request = request
        self._variables = tuple(
            (tuple(json_name(field, codecs.style) for field in fields), _text_reader(fields[-1]))
            for fields in variables
        )
        self._bound = {names for names, _ in self._variables}
        self._body_field = request.fields_by_name[body] if body not in ("", "*") else None
        self._body_name = json_name(self._body_field, codecs.style) if self._body_field else ""
        self.takes_body = bool(body)
        holder = request if self._body_field is None else self._body_field.message_type
        self.takes_raw_body = bool(body) and holder is not None and holder.full_name == HTTP_BODY
        """Whether the body is bytes of any type instead of JSON."""
        self._body_may_be_null = holder is not None and holder.full_name in _NULL_IN_JSON
        self._takes_query = body != "*"
        mask = request.fields_by_name.get("update_mask")
        is_mask = mask is not None and mask.message_type is field_mask_pb2.FieldMask.DESCRIPTOR
        self._masked = holder if patches and self._body_field is not None and is_mask else None

    def bind(
        self, path_values: list[str], query: str, body: bytes, content_type: str = ""
    ) -> Message:
        """Build the message; an empty body is an empty object.

        Raises:
            BadJson: the body is not JSON.
            FieldErrors: something does not fit its field, or no field at all.
        """
        tree, raw = self._read_body(body, content_type)
        # Before the path is set into the tree: what it names is not changed.
        masked = self._masked
        paths = _paths(tree.get(self._body_name), masked, self._codecs.style) if masked else []
        faults: dict[str, str] = {}
        if query:
            self._read_query(query, tree, faults)
        for (names, read), text in zip(self._variables, path_values, strict=True):
            if "\0" in text:
                faults[".".join(names)] = NUL
            said = _found(tree, names) if body else None
            _set(tree, names, read, text, faults)
            if said is not None and said != _found(tree, names):
                faults[self._in_body(".".join(names))] = "must be as the path says, or left out"
        if faults:
            raise FieldErrors(faults)
        if not self._body_name:
            message = self.codec.decode(tree)
        else:
            try:
                message = self.codec.decode(tree)
            except FieldErrors as errors:
                raise FieldErrors(self._as_written(errors.fields), errors.more) from None
        if paths and not message.HasField("update_mask"):
            patched: Any = message
            patched.update_mask.paths.extend(paths)
        if raw is not None:
            holder: Any = (
                message if self._body_field is None else getattr(message, self._body_field.name)
            )
            holder.data, holder.content_type = raw
        return message

    def _read_body(
        self, body: bytes, content_type: str
    ) -> tuple[dict[str, Any], tuple[bytes, str] | None]:
        if not self.takes_body or (not body and not self.takes_raw_body):
            return {}, None
        if self.takes_raw_body:
            return {}, (body, content_type or "application/octet-stream")
        value = self.codec.parse(body)
        if self._body_name:
            if value is None and not self._body_may_be_null:
                raise FieldErrors({"": "must not be null"})
            return {self._body_name: value}, None
        if type(value) is not dict:
            raise FieldErrors({"": "must be an object"})
        return value, None

    def _as_written(self, fields: dict[str, str]) -> dict[str, str]:
        """Name fields inside the body as the body does."""
        return {self._in_body(path): text for path, text in fields.items()}

    def _in_body(self, path: str) -> str:
        if not self._body_name:
            return path
        return "" if path == self._body_name else path.removeprefix(f"{self._body_name}.")

    def _read_query(self, query: str, tree: dict[str, Any], faults: dict[str, str]) -> None:
        try:
            pairs = parse_qsl(
                query,
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MAX_QUERY_PARAMETERS,
            )
        except UnicodeDecodeError:
            raise FieldErrors({"": "has a query that does not decode to UTF-8"}) from None
        except ValueError:
            raise FieldErrors(
                {"": f"has more than {MAX_QUERY_PARAMETERS} parameters in its query"}
            ) from None
        seen: set[tuple[str, ...]] = set()
        for name, text in pairs:
            fields = self._resolve(name) if self._takes_query else None
            if fields is None:
                faults[name] = "unknown parameter"
                continue
            if "\0" in text:
                faults[name] = NUL
                continue
            names = tuple(json_name(field, self._codecs.style) for field in fields)
            if names in self._bound:
                faults[name] = "is given by the path"
                continue
            read = _text_reader(fields[-1])
            if fields[-1].is_repeated:
                _append(tree, names, read, text, faults)
                continue
            if names in seen:
                faults[name] = "is given twice"
                continue
            seen.add(names)
            _set(tree, names, read, text, faults)

    def _resolve(self, dotted: str) -> tuple[FieldDescriptor, ...] | None:
        """The fields a parameter's name leads to, if the last can be given as text."""
        message: Descriptor | None = self._request
        fields: list[FieldDescriptor] = []
        for name in dotted.split("."):
            if message is None or (fields and fields[-1].is_repeated):
                return None
            field = next(
                (
                    field
                    for field in message.fields
                    if name in accepted_names(field, self._codecs.style)
                ),
                None,
            )
            if field is None or (not fields and field is self._body_field):
                return None
            fields.append(field)
            message = field.message_type
        return tuple(fields) if may_be_text(fields[-1]) else None


def may_be_text(field: FieldDescriptor) -> bool:
    if is_map(field):
        return False
    message = field.message_type
    return message is None or message.full_name in _TEXT_IN_JSON or message.full_name in WRAPPERS


def _text_reader(field: FieldDescriptor) -> TextReader:
    """How the text of a path or query becomes what JSON would hold for the field."""
    message = field.message_type
    if message is not None:
        if message.full_name in WRAPPERS:
            return _text_reader(message.fields_by_name["value"])
        return _same
    if is_money(field):
        return _same
    if field.cpp_type in _WHOLE:
        return _whole
    if field.cpp_type in _REAL:
        return _real
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _truth
    return _same


def _same(text: str) -> str:
    return text


def _whole(text: str) -> int:
    if _INTEGER.fullmatch(text):
        return int(text)
    raise ValueError("must be an integer")


def _real(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a number")
    number = float(text)
    if math.isinf(number):
        raise ValueError("must be a number that fits the field")
    return number


def _truth(text: str) -> bool:
    # Python's clients print True, form fields 1.
    match text.lower():
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise ValueError("must be true or false")


def _paths(value: Any, message: Descriptor, style: Style, levels: int = MAX_NESTING) -> list[str]:
    """The fields that a JSON object gives, by their names in the proto; inner ones with dots."""
    paths: list[str] = []
    if type(value) is not dict or not levels:  # what is deeper is refused when it is read
        return paths
    fields = {name: field for field in message.fields for name in accepted_names(field, style)}
    for name, item in value.items():
        field = fields.get(name)
        if field is None:  # refused when it is read
            continue
        inner = None if field.is_repeated else field.message_type
        if inner is not None and item and not inner.full_name.startswith("google.protobuf."):
            paths += [f"{field.name}.{path}" for path in _paths(item, inner, style, levels - 1)]
        else:
            paths.append(field.name)
    return paths


def _set(
    tree: dict[str, Any],
    names: tuple[str, ...],
    read: TextReader,
    text: str,
    faults: dict[str, str],
) -> None:
    try:
        value = read(text)
    except ValueError as fault:
        faults[".".join(names)] = str(fault)
        return
    holder = _holder(tree, names)
    if holder is not None:
        holder[names[-1]] = value


def _append(
    tree: dict[str, Any],
    names: tuple[str, ...],
    read: TextReader,
    text: str,
    faults: dict[str, str],
) -> None:
    try:
        value = read(text)
    except ValueError as fault:
        faults[".".join(names)] = str(fault)
        return
    holder = _holder(tree, names)
    if holder is not None:
        holder.setdefault(names[-1], []).append(value)


def _found(tree: dict[str, Any], names: tuple[str, ...]) -> Any:
    """What stands at a name; None if nothing does."""
    value: Any = tree
    for name in names:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value


def _holder(tree: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any] | None:
    """The object the last name stands in; None if the body put something else there."""
    for name in names[:-1]:
        inner = tree.get(name)
        if inner is None:
            inner = tree[name] = {}
        if type(inner) is not dict:
            return None  # the decoder will say that it must be an object
        tree = inner
    return tree
