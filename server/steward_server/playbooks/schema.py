"""The format as JSON Schema, for editors and other programs, and the page of all steps.

`python -m steward_server.playbooks.schema --write docs` writes `playbook.schema.json` and
`steps.md` there, `--check` tells whether they are true.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.forms import Field, Kind, StepType
from steward_server.playbooks.playbook import (
    DEFAULT_RETRY_DELAY_S,
    DEFAULT_RUN_TIMEOUT_S,
    DEFAULT_STEP_TIMEOUT_S,
    MAX_NAME_CHARACTERS,
    MAX_PARAMETERS,
    MAX_RETRIES,
    MAX_STEPS,
    MAX_TIMEOUT_S,
    Backoff,
    OnFailure,
    ParameterType,
    Retry,
)
from steward_server.playbooks.reading import MAX_TEXT_CHARACTERS

Schema = dict[str, Any]

_IDENTIFIER = {
    "type": "string",
    "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$",
    "maxLength": MAX_NAME_CHARACTERS,
}
_NAME = {"type": "string", "pattern": "\\S", "maxLength": MAX_NAME_CHARACTERS}
_DESCRIPTION = {"type": "string", "maxLength": MAX_TEXT_CHARACTERS}
_REFERENCE = {"type": "string", "pattern": "\\{\\{"}
"""Text with a reference in it may become anything; checking knows what."""
_TYPES = {
    Kind.STRING: "string",
    Kind.FILE: "string",
    Kind.CREDENTIAL: "string",
    Kind.CODE: "string",
    Kind.INTEGER: "integer",
    Kind.NUMBER: "number",
    Kind.BOOLEAN: "boolean",
    Kind.LIST: "array",
    Kind.MAP: "object",
}
_BOUNDS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
}


def schema() -> Schema:
    """The JSON Schema, 2020-12, of a playbook."""
    retry = Retry()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Playbook",
        "description": "A procedure that Steward runs. What references, conditions and nested "
        "playbooks mean is checked by `steward playbook check`.",
        **_object(
            {
                "name": _NAME,
                "version": {"type": ["string", "number"]},
                "description": _or_null(_DESCRIPTION),
                "domain": _or_null(_short_text()),
                "group": _or_null(_short_text()),
                "verified": {"type": "boolean"},
                "metadata": _or_null({"type": "object"}),
                "parameters": _or_null(
                    {
                        "type": "array",
                        "maxItems": MAX_PARAMETERS,
                        "items": {"$ref": "#/$defs/parameter"},
                    }
                ),
                "timeout": {**_seconds(0.001), "default": DEFAULT_RUN_TIMEOUT_S},
                "steps": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_STEPS,
                    "items": {"$ref": "#/$defs/step"},
                },
                "finally": _or_null(_step_list("final")),
            },
            ("name", "version", "steps"),
        ),
        "$defs": {
            "parameter": _object(
                {
                    "name": _IDENTIFIER,
                    "type": {"enum": [*ParameterType]},
                    "required": {"type": "boolean", "default": True},
                    "default": {},
                    "description": _or_null(_DESCRIPTION),
                },
                ("name", "type"),
            ),
            "step": _step(is_main=True),
            "final": _step(is_main=False),
            "retry": _object(
                {
                    "attempts": {"type": "integer", "minimum": 1, "maximum": MAX_RETRIES + 1},
                    "delay": {**_seconds(0), "default": retry.delay_s},
                    "backoff": {"enum": [*Backoff], "default": retry.backoff},
                    "factor": {
                        "type": "number",
                        "minimum": 1,
                        "maximum": 100,
                        "default": retry.factor,
                    },
                    "jitter": {
                        "type": "number",
                        "minimum": 0,
                        "maximum": 1,
                        "default": retry.jitter,
                    },
                    "most": _seconds(0),
                },
                ("attempts",),
            ),
            "values": {each.name: _values(each) for each in CATALOGUE.values()},
        },
    }


def _step(*, is_main: bool) -> Schema:
    properties: Schema = {
        "id": _IDENTIFIER,
        "name": _NAME,
        "type": {"enum": [*CATALOGUE]},
        "parameters": _or_null({"type": "object"}),
        "when": {"type": ["string", "boolean"]},
        "timeout": {**_seconds(0.001), "default": DEFAULT_STEP_TIMEOUT_S},
        "retry_count": {"type": "integer", "minimum": 0, "maximum": MAX_RETRIES, "default": 0},
        "retry_delay": {**_seconds(0), "default": DEFAULT_RETRY_DELAY_S},
        "retry": _or_null({"$ref": "#/$defs/retry"}),
        "on_failure": {
            "enum": [each for each in OnFailure if is_main or each is not OnFailure.ROLLBACK],
            "default": OnFailure.ABORT,
        },
    }
    if is_main:
        properties["undo"] = _or_null(_step_list("final"))
    return {
        **_object(properties, ("id", "name", "type")),
        "allOf": [{"not": {"required": ["retry", key]}} for key in ("retry_count", "retry_delay")]
        + [_of_type(each) for each in CATALOGUE.values()],
    }


def _of_type(step_type: StepType) -> Schema:
    then: Schema = {"properties": {"parameters": {"$ref": f"#/$defs/values/{step_type.name}"}}}
    if step_type.must_choose or any(each.required for each in step_type.parameters):
        then["required"] = ["parameters"]
    return {
        "if": {"required": ["type"], "properties": {"type": {"const": step_type.name}}},
        "then": then,
    }


def _values(step_type: StepType) -> Schema:
    values: Schema = {"description": step_type.doc, **_fields(step_type.parameters)}
    values["type"] = "object" if values.get("required") or step_type.must_choose else _NULLABLE_MAP
    if step_type.takes_more:
        values["additionalProperties"] = True
    groups = step_type.alternatives
    if groups:
        names = sorted({name for group in groups for name in group})
        choices: list[Schema] = [
            {
                "required": list(group),
                "not": {"anyOf": [{"required": [each]} for each in names if each not in group]},
            }
            if len(group) < len(names)
            else {"required": list(group)}
            for group in groups
        ]
        if not step_type.must_choose:
            choices.append({"not": {"anyOf": [{"required": [each]} for each in names]}})
        values["anyOf"] = choices
    return values


_NULLABLE_MAP = ["object", "null"]


def _fields(fields: Iterable[Field]) -> Schema:
    fields = [*fields]
    made = _object({each.name: _value(each) for each in fields}, ())
    if required := [each.name for each in fields if each.required]:
        made["required"] = required
    return made


def _value(declared: Field) -> Schema:
    plain: Schema = {}
    name = _TYPES.get(declared.kind)
    if name is not None:
        plain["type"] = name
        bounds = zip(_BOUNDS.get(name, ()), (declared.least, declared.most), strict=False)
        plain |= {key: bound for key, bound in bounds if bound is not None}
    if declared.shape is not None:
        plain["pattern"] = f"^{declared.shape.pattern}$"
    if declared.choices:
        plain["enum"] = list(declared.choices)
    if declared.kind is Kind.LIST and declared.item is not None:
        plain["items"] = _value(declared.item)
    elif declared.kind is Kind.MAP and declared.fields:
        plain |= _fields(declared.fields)
    elif declared.kind is Kind.MAP and declared.item is not None:
        plain["additionalProperties"] = _value(declared.item)
    choices = [plain]
    if name is not None and not declared.literal and declared.kind is not Kind.CODE:
        choices.append(_REFERENCE)
    if declared.nullable and name is not None:
        choices.append({"type": "null"})
    made = plain if len(choices) == 1 else {"anyOf": choices}
    told = {"description": _told(declared)}
    if declared.default is not None:
        told["default"] = declared.default
    return {**told, **made}


def _object(properties: Schema, required: Sequence[str]) -> Schema:
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": list(required)} if required else made


def _or_null(given: Schema) -> Schema:
    return {"anyOf": [given, {"type": "null"}]}


def _short_text() -> Schema:
    return {"type": "string", "maxLength": MAX_NAME_CHARACTERS}


def _step_list(of: str) -> Schema:
    return {"type": "array", "maxItems": MAX_STEPS, "items": {"$ref": f"#/$defs/{of}"}}


def _seconds(least: float) -> Schema:
    return {"type": "number", "minimum": least, "maximum": MAX_TIMEOUT_S, "description": "Seconds."}


def _told(declared: Field) -> str:
    unit = {"s": " In seconds.", "ms": " In milliseconds."}.get(declared.unit, "")
    return f"{declared.doc}{unit}"


def page() -> str:
    """The documentation of every type of step, as Markdown."""
    parts = [
        "# Steps\n",
        (
            "Every type of step that a [playbook](playbooks.md) can have. A parameter that is "
            "neither required nor has a default can be left out. What a step gives is read by the "
            "steps after it as `{{ step.<id>.<output> }}`. *Reads only*: it changes nothing "
            "outside of the run. *Repeatable*: after a crash in the middle of it, it can be done "
            "again.\n"
        ),
    ]
    rooms: dict[str, list[StepType]] = {}
    for each in CATALOGUE.values():
        rooms.setdefault(each.name.partition(".")[0], []).append(each)
    for room, step_types in rooms.items():
        parts.append(f"## {room}\n")
        for step_type in step_types:
            parts.append(f"### `{step_type.name}`\n")
            parts.append(f"{step_type.doc}\n")
            if notes := _notes(step_type):
                parts.append(f"{notes}\n")
            if step_type.parameters:
                parts.append("| parameter | type | default | meaning |\n|---|---|---|---|")
                parts += [_row(each) for each in step_type.parameters]
                parts.append("")
            parts.append("| output | type | meaning |\n|---|---|---|")
            parts += [
                f"| `{each.name}` | {_kind(each)} | {_meaning(each)} |"
                for each in step_type.outputs
            ]
            parts.append("")
    return "\n".join(parts)


def _notes(step_type: StepType) -> str:
    notes = []
    if step_type.alternatives:
        groups = [" and ".join(f"`{each}`" for each in group) for group in step_type.alternatives]
        begins = "Needs" if step_type.must_choose else "Takes"
        notes.append(f"{begins} {', or '.join(groups)}.")
    if step_type.is_read_only:
        notes.append("Reads only.")
    if step_type.is_repeatable:
        notes.append("Repeatable.")
    if step_type.needs:
        notes.append(f"Uses: {', '.join(sorted(step_type.needs))}.")
    return " ".join(notes)


def _row(declared: Field) -> str:
    default = "required" if declared.required else ""
    if declared.default is not None:
        default = f"`{json.dumps(declared.default)}`"
    return f"| `{declared.name}` | {_kind(declared)} | {default} | {_meaning(declared)} |"


def _kind(declared: Field) -> str:
    name = {Kind.GIVEN: "any"}.get(declared.kind, declared.kind)
    return f"{name}, {declared.unit}" if declared.unit else str(name)


def _meaning(declared: Field) -> str:
    said = [declared.doc]
    if declared.choices:
        said.append(f"One of {', '.join(f'`{each}`' for each in declared.choices)}.")
    inner = declared.fields or (declared.item.fields if declared.item is not None else ())
    if inner:
        said.append(f"Keys: {', '.join(f'`{each.name}`' for each in inner)}.")
    return " ".join(said).replace("|", "\\|")


def main(arguments: Sequence[str]) -> int:
    """Write or check both files; 1 if one is stale."""
    action, folder = arguments[0], Path(arguments[1])
    made = {
        "playbook.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "steps.md": page(),
    }
    stale = 0
    for name, text in made.items():
        file = folder / name
        if action == "--write":
            file.write_text(text, encoding="utf-8")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            sys.stderr.write(f"{file} is stale; run: make format\n")
            stale = 1
    return stale


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
