"""YAML text to plain values with where each stands, and the faults that need no meaning. Pure.

The core schema of YAML 1.2: `yes` and dates are text. What makes YAML dangerous or ambiguous is
refused: aliases (the billion laughs), tags, duplicate keys, several documents.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from steward_server.playbooks.faults import Fault, Path, Source, Span

MAX_BYTES = 1024 * 1024
MAX_VALUES = 20_000
"""Reading so many takes a second or two."""
MAX_DEPTH = 32

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MAX_DIGITS = 19


@dataclass(frozen=True, slots=True)
class Document:
    """What a text holds.

    Attributes:
        value: mappings with text as keys, lists, text, numbers, booleans, None.
        faults: what is wrong with it as YAML; the value is then what could be read.
        is_whole: whether all of the text was read.
    """

    value: Any
    source: Source
    faults: tuple[Fault, ...] = ()
    is_whole: bool = True


def read_document(given: str | bytes) -> Document:
    """Read YAML; nothing is raised, whatever is given."""
    content = given if isinstance(given, bytes) else given.encode(errors="replace")
    size = len(content)
    if size > MAX_BYTES:
        fault = Fault(1, 1, f"the file has {size} bytes; at most {MAX_BYTES} are read")
        return Document(None, Source(), (fault,), is_whole=False)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        fault = _at(before, len(before), "the file is not UTF-8 from here on")
        return Document(None, Source(), (fault,), is_whole=False)
    return _Building(text.removeprefix("\ufeff")).document()


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come yet."""

    path: Path
    value: dict[str, Any] | list[Any]
    key: str | None = None
    is_ignored: bool = False
    """Read, and left out."""
    skips_next: bool = False
    """The value of a key that is there already, or is none."""


@dataclass(slots=True)
class _Building:
    text: str
    root: Any = None
    open: list[_Open] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    values: dict[Path, Span] = field(default_factory=dict)
    keys: dict[Path, Span] = field(default_factory=dict)
    documents: int = 0

    def document(self) -> Document:
        is_whole = False
        try:
            is_whole = self._read()
        except MarkedYAMLError as error:
            self._syntax(error)
        except ReaderError as error:
            self.faults.append(
                _at(self.text, error.position, f"character {error.character!r} cannot stand here")
            )
        except YAMLError as error:
            self.faults.append(Fault(1, 1, f"it is no YAML: {error}"))
        if self.documents == 0 and not self.faults:
            self.faults.append(Fault(1, 1, "the file is empty; a playbook begins with `name: …`"))
            is_whole = False
        source = Source(self.text, self.values, self.keys)
        return Document(self.root, source, tuple(self.faults), is_whole)

    def _read(self) -> bool:
        for event in YAML(typ="safe", pure=True).parse(self.text):
            if isinstance(event, DocumentStartEvent):
                self.documents += 1
                if self.documents > 1:
                    self._fault(event, "a second document; a file holds one playbook")
                    return False
            elif isinstance(event, CollectionEndEvent):
                self.open.pop()
            elif isinstance(event, NodeEvent):
                if len(self.values) >= MAX_VALUES:
                    self._fault(event, f"the file has more than {MAX_VALUES} values")
                    return False
                if len(self.open) >= MAX_DEPTH:
                    self._fault(event, f"values lie more than {MAX_DEPTH} deep in each other")
                    return False
                self._node(event)
        return True

    def _node(self, event: NodeEvent) -> None:
        parent = self.open[-1] if self.open else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            self._key(parent, event)
            return
        path: Path = ()
        ignored = False
        if parent is not None:
            last = len(parent.value) if isinstance(parent.value, list) else parent.key
            path = (*parent.path, last if last is not None else "")
            ignored = parent.is_ignored or parent.skips_next
            parent.skips_next = False
        value = self._value(event)
        if not ignored:
            self.values[path] = _span(event)
        if parent is None:
            self.root = value
        elif isinstance(parent.value, list):
            parent.value.append(value)
        else:
            if not ignored:
                parent.value[path[-1]] = value  # type: ignore[index]
            parent.key = None
        if isinstance(event, CollectionStartEvent):
            self.open.append(_Open(path, value, is_ignored=ignored))

    def _key(self, parent: _Open, event: NodeEvent) -> None:
        if not isinstance(event, ScalarEvent):
            in_braces = isinstance(event, MappingStartEvent) and event.flow_style
            quotes = '; a reference stands in quotes: "{{ … }}"' if in_braces else ""
            self._fault(event, f"a key must be a word{quotes}")
            if isinstance(event, CollectionStartEvent):
                # Read to its end, as the key of nothing.
                self.open.append(_Open((), [] if _is_list(event) else {}, is_ignored=True))
            parent.key, parent.skips_next = "", True
            return
        parent.key = event.value
        path = (*parent.path, event.value)
        if event.value in parent.value:
            first = self.keys.get(path)
            where = f"; it is in line {first.line} already" if first else ""
            self._fault(event, f"the key {event.value!r} is there twice{where}")
            parent.skips_next = True
        elif not parent.is_ignored:
            self.keys[path] = _span(event)
            self._tag(event)

    def _value(self, event: NodeEvent) -> Any:
        if isinstance(event, AliasEvent):
            self._fault(event, f"'*{event.anchor}' stands for another place; write the value out")
            return None
        self._tag(event)
        if isinstance(event, CollectionStartEvent):
            return [] if _is_list(event) else {}
        if not isinstance(event, ScalarEvent) or event.style is not None or event.tag is not None:
            return getattr(event, "value", None)
        return self._plain(event)

    def _plain(self, event: ScalarEvent) -> Any:
        text: str = event.value
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        if _WHOLE.fullmatch(text):
            if len(text) <= _MAX_DIGITS and -(2**63) <= int(text) < 2**63:
                return int(text)
            self._fault(event, f"{text[:40]} is beyond what 64 bits hold")
            return 0
        if _REAL.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return number
            self._fault(event, f"{text[:40]} is beyond what a number can be")
            return 0.0
        return text

    def _tag(self, event: NodeEvent) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in ("!", "tag:yaml.org,2002:str"):
            shown = str(tag).replace("tag:yaml.org,2002:", "!!")
            self._fault(event, f"the tag {shown!r} is not taken; write the plain value")

    def _fault(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.faults.append(Fault(mark.line + 1, mark.column + 1, message))

    def _syntax(self, error: MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        problem = str(error.problem or error.context)
        if "'\\t'" in problem:
            message = "a tab; YAML is indented with spaces"
        elif "mapping values are not allowed" in problem:
            message = (
                "a colon that cannot stand here: the line is indented too far, or its text needs "
                "quotes"
            )
        else:
            began = f" {error.context}" if error.context and error.context != problem else ""
            message = f"it is no YAML:{began} {problem}"
        self.faults.append(Fault(line + 1, column + 1, message))


def _is_list(event: CollectionStartEvent) -> bool:
    return not isinstance(event, MappingStartEvent)


def _span(event: NodeEvent) -> Span:
    begins, ends = event.start_mark, event.end_mark
    return Span(begins.index, ends.index, begins.line + 1, begins.column + 1)


def _at(text: str, index: int, message: str) -> Fault:
    line = text.count("\n", 0, index) + 1
    return Fault(line, index - text.rfind("\n", 0, index), message)
