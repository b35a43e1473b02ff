"""The API's published schema, as the client library carries it: a model for each definition.

What is sent is held against it strictly, which no server does for everything: a field that the
schema does not have is dropped in silence, and a wall that was meant stands nowhere.
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

import jsonschema
from kubernetes_asyncio.client import models

MODELS = {
    "Namespace": "V1Namespace",
    "ResourceQuota": "V1ResourceQuota",
    "NetworkPolicy": "V1NetworkPolicy",
    "Pod": "V1Pod",
    "DeleteOptions": "V1DeleteOptions",
    "SelfSubjectAccessReview": "V1SelfSubjectAccessReview",
}
_SIMPLE: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
    "object": {"type": ["integer", "string"]},  # IntOrString, in all that is sent
}
_REQUIRED = re.compile(r"Invalid value for `_?(\w+)`, must not be `None`")


def faults(sent: dict[str, Any], model: str | None = None) -> list[str]:
    """What of an object is not as the schema has it; by itself one of those that a driver sends."""
    model = model or MODELS.get(sent.get("kind", ""))
    if model is None:
        return [f"kind {sent.get('kind')!r} is not one that is sent"]
    schema = {"$ref": f"#/$defs/{model}", "$defs": definitions(model)}
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{each.json_path}: {each.message}" for each in validator.iter_errors(sent)]


@cache
def definitions(root: str) -> dict[str, Any]:
    """The definition of a model and of all it is made of."""
    found: dict[str, Any] = {}
    left = [root]
    while left:
        name = left.pop()
        if name in found:
            continue
        model = getattr(models, name)
        required = {model.attribute_map[_attribute(model, each)] for each in _required(model)}
        found[name] = {
            "type": "object",
            "additionalProperties": False,
            "required": sorted(required),
            "properties": {
                model.attribute_map[attribute]: _of_type(kind, left)
                for attribute, kind in model.openapi_types.items()
            },
        }
    return found


def _required(model: Any) -> list[str]:
    return sorted(set(_REQUIRED.findall(inspect.getsource(model))))


def _attribute(model: Any, name: str) -> str:
    return name if name in model.attribute_map else f"_{name}"


def _of_type(kind: str, left: list[str]) -> dict[str, Any]:
    if (simple := _SIMPLE.get(kind)) is not None:
        return simple
    if kind.startswith("list["):
        return {"type": "array", "items": _of_type(kind[5:-1], left)}
    if kind.startswith(("dict[", "dict(")):
        inner = kind[5:-1].partition(",")[2].strip()
        return {"type": "object", "additionalProperties": _of_type(inner, left)}
    left.append(kind)
    return {"$ref": f"#/$defs/{kind}"}
