"""What the protos say in words: the comments of a descriptor set, by full name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pb2

_PARAGRAPH = re.compile(r"\n\s*\n")

# Numbers of the fields that hold declarations, and below them: see descriptor.proto.
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED, _NESTED_ENUM, _ONEOF = 2, 3, 4, 8
_VALUE, _METHOD = 2, 2


def read_comments(descriptor_set: bytes) -> Mapping[str, str]:
    """The comments of every declaration that has one; its lines joined, paragraphs kept.

    A set without source information has none.
    """
    comments: dict[str, str] = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        texts = {
            tuple(location.path): location.leading_comments or location.trailing_comments
            for location in file.source_code_info.location
            if location.leading_comments or location.trailing_comments
        }
        for path, name in _declarations(file):
            if path in texts:
                comments[name] = _joined(texts[path])
    return comments


def _joined(text: str) -> str:
    paragraphs = _PARAGRAPH.split(text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


Path = tuple[int, ...]


def _declarations(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[Path, str]]:
    package = f"{file.package}." if file.package else ""
    yield from _messages(file.message_type, (_MESSAGE,), package)
    yield from _enums(file.enum_type, (_ENUM,), package)
    for index, service in enumerate(file.service):
        path, name = (_SERVICE, index), package + service.name
        yield path, name
        yield from _named(service.method, (*path, _METHOD), name)


def _messages(
    messages: Iterable[descriptor_pb2.DescriptorProto], root: Path, scope: str
) -> Iterator[tuple[Path, str]]:
    for index, message in enumerate(messages):
        path, name = (*root, index), scope + message.name
        yield path, name
        yield from _named(message.field, (*path, _FIELD), name)
        yield from _named(message.oneof_decl, (*path, _ONEOF), name)
        yield from _messages(message.nested_type, (*path, _NESTED), f"{name}.")
        yield from _enums(message.enum_type, (*path, _NESTED_ENUM), f"{name}.")


def _enums(
    enums: Iterable[descriptor_pb2.EnumDescriptorProto], root: Path, scope: str
) -> Iterator[tuple[Path, str]]:
    for index, enum in enumerate(enums):
        path, name = (*root, index), scope + enum.name
        yield path, name
        yield from _named(enum.value, (*path, _VALUE), name)


def _named(declared: Iterable[Any], root: Path, scope: str) -> Iterator[tuple[Path, str]]:
    """Under the full name of what they stand in, values of enums too: names are unique so."""
    for index, each in enumerate(declared):
        yield (*root, index), f"{scope}.{each.name}"
