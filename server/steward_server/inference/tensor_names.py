"""Gives tensors of an ONNX model other names, without the package that wrote it.

A model is a protobuf message. Of its schema
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) only what names tensors is described here;
the rest passes through unread, as fields that are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

_SCHEMA: dict[str, list[tuple[str, int, str]]] = {
    "Model": [("graph", 7, "Graph")],
    "Graph": [
        ("node", 1, "Node[]"),
        ("initializer", 5, "Tensor[]"),
        ("input", 11, "Value[]"),
        ("output", 12, "Value[]"),
        ("value_info", 13, "Value[]"),
    ],
    "Node": [("input", 1, "[]"), ("output", 2, "[]"), ("attribute", 5, "Attribute[]")],
    "Attribute": [("g", 6, "Graph"), ("graphs", 11, "Graph[]")],
    "Value": [("name", 1, "")],
    "Tensor": [("name", 8, "")],
}
"""Fields of messages: their names, numbers, and what they are; nothing is a text."""


def renamed(model: bytes, names: Mapping[str, str]) -> bytes:
    """The model with some tensors called otherwise: `names` are those there are, and the new ones.

    Another tensor that has a new name already gets one that nobody has.

    Raises:
        ValueError: it is no model.
    """
    if not names:
        return model
    try:
        read = _MODEL.FromString(model)
    except DecodeError:
        raise ValueError("it is no ONNX model") from None
    taken = {name for graph in _graphs(read.graph) for name in _names(graph)}
    new = dict(names)
    for each in sorted(taken.intersection(names.values()) - names.keys()):
        free = f"{each}_"
        while free in taken:
            free += "_"
        taken.add(free)
        new[each] = free
    for graph in _graphs(read.graph):
        for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
            named.name = new.get(named.name, named.name)
        for node in graph.node:
            node.input[:] = [new.get(each, each) for each in node.input]
            node.output[:] = [new.get(each, each) for each in node.output]
    written: bytes = read.SerializeToString(deterministic=True)
    return written


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph, and those within its nodes: the branches of a condition, the body of a loop."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for each in inner:
                yield from _graphs(each)


def _names(graph: Any) -> Iterator[str]:
    for named in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        yield named.name
    for node in graph.node:
        yield from node.input
        yield from node.output


def _model_class() -> Any:
    package = "steward_tensor_names"
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto2"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, kind in fields:
            item = kind.removesuffix("[]")
            described.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if kind.endswith("[]") else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if item else kinds.TYPE_STRING,
                type_name=f".{package}.{item}" if item else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))


_MODEL = _model_class()
