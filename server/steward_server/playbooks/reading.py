"""A playbook's text to the playbook, and every fault of its form at once. Pure.

What a step's parameters mean is not looked at here: see checking.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from steward_server.playbooks.conditions import BadCondition, Condition, parse_condition
from steward_server.playbooks.document import read_document
from steward_server.playbooks.faults import Fault, Path, Source, nearest
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
    Parameter,
    ParameterType,
    Playbook,
    Retry,
    Step,
)
from steward_server.playbooks.references import is_name

PLAYBOOK_KEYS = (
    "name",
    "version",
    "description",
    "domain",
    "group",
    "verified",
    "metadata",
    "parameters",
    "timeout",
    "steps",
    "finally",
)
PARAMETER_KEYS = ("name", "type", "required", "default", "description")
STEP_KEYS = (
    "id",
    "name",
    "type",
    "parameters",
    "when",
    "timeout",
    "retry_count",
    "retry_delay",
    "retry",
    "on_failure",
    "undo",
)
RETRY_KEYS = ("attempts", "delay", "backoff", "factor", "jitter", "most")
MAX_TEXT_CHARACTERS = 10_000

_MISSPELT_KEYS = {
    "title": "name",
    "category": "domain",
    "inputs": "parameters",
    "params": "parameters",
    "vars": "parameters",
    "args": "parameters",
    "with": "parameters",
    "tasks": "steps",
    "if": "when",
    "condition": "when",
    "uses": "type",
    "action": "type",
    "retries": "retry_count",
    "delay": "retry_delay",
    "on_error": "on_failure",
    "rollback": "undo",
    "always": "finally",
    "max_attempts": "attempts",
    "initial": "delay",
    "max_interval": "most",
    "max": "most",
    "timeout_seconds": "timeout",
}
"""What others call them."""
_MISSPELT_WORDS = {
    "int": "integer",
    "number": "float",
    "double": "float",
    "str": "string",
    "text": "string",
    "bool": "boolean",
    "array": "list",
    "object": "dict",
    "map": "dict",
    "path": "file",
    "secret": "credential",
    "password": "credential",
    "skip": "continue",
    "ignore": "continue",
    "stop": "abort",
    "fail": "abort",
    "undo": "rollback",
    "constant": "fixed",
    "linear": "fixed",
}

_Word = TypeVar("_Word", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Reading:
    """What could be read.

    Attributes:
        playbook: with what is wrong left out or replaced; None if there was nothing to read.
        faults: of the form; a playbook may be used only if there are none, and none of its
            meaning either.
    """

    playbook: Playbook | None
    faults: tuple[Fault, ...]


def read(text: str | bytes) -> Reading:
    """Read a playbook's text; nothing is raised, whatever is given."""
    document = read_document(text)
    if not document.is_whole:
        return Reading(None, document.faults)
    if not isinstance(document.value, dict):
        fault = document.source.at((), "a playbook is a map, beginning with `name: …`")
        return Reading(None, (*document.faults, fault))
    reading = _Reading(document.source)
    playbook = reading.playbook(document.value)
    return Reading(playbook, first_there(document.faults, reading.faults))


def first_there(causes: Iterable[Fault], others: Iterable[Fault]) -> tuple[Fault, ...]:
    """All faults in the order of the text; of others, none where a cause of it is told already."""
    causes = set(causes)
    places = {(each.line, each.column) for each in causes}
    others = {each for each in others if (each.line, each.column) not in places}
    return tuple(sorted(causes | others))


@dataclass(slots=True)
class _Reading:
    source: Source
    faults: list[Fault] = field(default_factory=list)
    _steps: dict[str, Path] = field(default_factory=dict)

    def playbook(self, told: Mapping[str, Any]) -> Playbook:
        self._keys((), told, PLAYBOOK_KEYS, ("name", "version", "steps"), "a playbook")
        return Playbook(
            name=self._text((), told, "name", MAX_NAME_CHARACTERS, is_needed=True),
            version=self._version(told),
            description=self._text((), told, "description"),
            domain=self._text((), told, "domain", MAX_NAME_CHARACTERS),
            group=self._text((), told, "group", MAX_NAME_CHARACTERS),
            verified=self._flag((), told, "verified", default=False),
            metadata=self._map((), told, "metadata"),
            timeout_s=self._number(
                (), told, "timeout", DEFAULT_RUN_TIMEOUT_S, 0.001, MAX_TIMEOUT_S
            ),
            parameters=self._parameters(told),
            steps=self._step_list((), told, "steps", is_needed=True),
            finally_=self._step_list((), told, "finally"),
            source=self.source,
        )

    def _parameters(self, told: Mapping[str, Any]) -> tuple[Parameter, ...]:
        given = self._list((), told, "parameters")
        if len(given) > MAX_PARAMETERS:
            self._fault(("parameters",), f"{len(given)} parameters; at most {MAX_PARAMETERS}")
        read: list[Parameter] = []
        for index, each in enumerate(given[:MAX_PARAMETERS]):
            path: Path = ("parameters", index)
            if not isinstance(each, Mapping):
                self._fault(path, "a parameter is a map, such as {name: url, type: string}")
                continue
            self._keys(path, each, PARAMETER_KEYS, ("name", "type"), "a parameter")
            name = self._identifier(path, each, "name", "a parameter")
            if name and any(name == one.name for one in read):
                self._fault((*path, "name"), f"there are two parameters {name!r}")
            read.append(
                Parameter(
                    name,
                    self._word(path, each, "type", ParameterType, ParameterType.STRING),
                    self._flag(path, each, "required", default=True),
                    each.get("default"),
                    self._text(path, each, "description"),
                )
            )
        return tuple(read)

    def _step_list(
        self,
        at: Path,
        told: Mapping[str, Any],
        key: str,
        *,
        is_needed: bool = False,
    ) -> tuple[Step, ...]:
        given = self._list(at, told, key)
        if is_needed and not given and isinstance(told.get(key), list):
            self._fault((*at, key), "a playbook has at least one step")
        if len(given) > MAX_STEPS:
            self._fault((*at, key), f"{len(given)} steps; at most {MAX_STEPS}")
        read = []
        for index, each in enumerate(given[:MAX_STEPS]):
            path = (*at, key, index)
            if isinstance(each, Mapping):
                read.append(self._step(path, each, is_main=key == "steps"))
            else:
                self._fault(
                    path, "a step is a map, such as {id: ping, name: …, type: gateway.ping}"
                )
        return tuple(read)

    def _step(self, path: Path, told: Mapping[str, Any], *, is_main: bool) -> Step:
        self._keys(path, told, STEP_KEYS, ("id", "name", "type"), "a step")
        step_id = self._identifier(path, told, "id", "a step")
        if step_id in self._steps:
            first = self.source.values[self._steps[step_id]].line
            self._fault(
                (*path, "id"),
                f"there are two steps with the id {step_id!r}; the first in line {first}",
            )
        elif step_id:
            self._steps[step_id] = (*path, "id")
        if "undo" in told and not is_main:
            self._fault_of_key((*path, "undo"), "only steps in `steps` can be undone")
        on_failure = self._word(path, told, "on_failure", OnFailure, OnFailure.ABORT)
        if on_failure is OnFailure.ROLLBACK and not is_main:
            self._fault((*path, "on_failure"), "only steps in `steps` can begin a rollback")
        return Step(
            id=step_id,
            name=self._text(path, told, "name", MAX_NAME_CHARACTERS, is_needed=True),
            type=self._text(path, told, "type", MAX_NAME_CHARACTERS, is_needed=True),
            parameters=self._map(path, told, "parameters"),
            on_failure=on_failure,
            timeout_s=(
                self._number(path, told, "timeout", DEFAULT_STEP_TIMEOUT_S, 0.001, MAX_TIMEOUT_S)
                if "timeout" in told
                else None
            ),
            retry=self._retry(path, told),
            when=self._when(path, told),
            undo=self._step_list(path, told, "undo") if is_main else (),
            path=path,
        )

    def _retry(self, path: Path, told: Mapping[str, Any]) -> Retry:
        count = self._whole(path, told, "retry_count", 0, 0, MAX_RETRIES)
        delay_s = self._number(path, told, "retry_delay", DEFAULT_RETRY_DELAY_S, 0, MAX_TIMEOUT_S)
        if "retry" not in told:
            return Retry(count + 1, delay_s, most_s=delay_s)
        for key in ("retry_count", "retry_delay"):
            if key in told:
                self._fault_of_key((*path, key), f"{key!r} and 'retry' say the same; keep one")
        given = self._map(path, told, "retry")
        path = (*path, "retry")
        needed = ("attempts",) if isinstance(told["retry"], Mapping) else ()
        self._keys(path, given, RETRY_KEYS, needed, "retry")
        first_s = self._number(path, given, "delay", DEFAULT_RETRY_DELAY_S, 0, MAX_TIMEOUT_S)
        backoff = self._word(path, given, "backoff", Backoff, Backoff.FIXED)
        most_s = self._number(path, given, "most", max(first_s, 300.0), 0, MAX_TIMEOUT_S)
        if "most" in given and most_s < first_s:
            self._fault(
                (*path, "most"), f"'most' is {most_s:g} s, less than the delay of {first_s:g} s"
            )
        if "factor" in given and backoff is Backoff.FIXED:
            self._fault_of_key((*path, "factor"), "'factor' needs backoff: exponential")
        return Retry(
            attempts=self._whole(path, given, "attempts", 1, 1, MAX_RETRIES + 1),
            delay_s=first_s,
            backoff=backoff,
            factor=self._number(path, given, "factor", 2.0, 1, 100),
            jitter=self._number(path, given, "jitter", 0.0, 0, 1),
            most_s=most_s,
        )

    def _when(self, path: Path, told: Mapping[str, Any]) -> Condition | None:
        if "when" not in told:
            return None
        path, given = (*path, "when"), told["when"]
        if isinstance(given, bool):
            given = "true" if given else "false"
        if not isinstance(given, str):
            self._fault(path, "'when' must be a condition, such as: parameter.count > 0")
            return None
        try:
            return parse_condition(given)
        except BadCondition as error:
            self.faults.append(
                self.source.within(path, given, error.offset, f"when: {error}", error.hint)
            )
            return None

    def _version(self, told: Mapping[str, Any]) -> str:
        given = told.get("version")
        if isinstance(given, bool) or not isinstance(given, str | int | float):
            if "version" in told:
                self._fault(("version",), "'version' must be text, such as \"1.0\"")
            return ""
        return given if isinstance(given, str) else self.source.raw(("version",))

    def _identifier(self, path: Path, told: Mapping[str, Any], key: str, what: str) -> str:
        given = self._text(path, told, key, MAX_NAME_CHARACTERS, is_needed=True)
        if given and not is_name(given):
            self._fault(
                (*path, key),
                f"{given!r} cannot name {what}: a letter or _, then letters, digits, _ and -",
            )
            return ""
        return given

    def _text(
        self,
        path: Path,
        told: Mapping[str, Any],
        key: str,
        most: int = MAX_TEXT_CHARACTERS,
        *,
        is_needed: bool = False,
    ) -> str:
        given = told.get(key, "")
        if given is None and not is_needed:
            return ""
        if not isinstance(given, str):
            how = "; put it in quotes" if isinstance(given, int | float) else ""
            self._fault((*path, key), f"{key!r} must be text{how}")
            return ""
        if is_needed and key in told and not given.strip():
            self._fault((*path, key), f"{key!r} is empty")
        if len(given) > most:
            self._fault((*path, key), f"{key!r} has {len(given)} characters; at most {most}")
            return given[:most]
        return given

    def _flag(self, path: Path, told: Mapping[str, Any], key: str, *, default: bool) -> bool:
        given = told.get(key, default)
        if isinstance(given, bool):
            return given
        words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
        hint = words.get(given.lower(), "") if isinstance(given, str) else ""
        self._fault((*path, key), f"{key!r} must be true or false", hint)
        return default

    def _number(
        self,
        path: Path,
        told: Mapping[str, Any],
        key: str,
        default: float,
        least: float,
        most: float,
    ) -> float:
        given = told.get(key, default)
        if isinstance(given, int | float) and not isinstance(given, bool):
            if least <= given <= most:
                return float(given)
            self._fault((*path, key), f"{key!r} must be from {least:g} to {most:g}, not {given}")
        else:
            self._fault((*path, key), f"{key!r} must be a number")
        return default

    def _whole(
        self, path: Path, told: Mapping[str, Any], key: str, default: int, least: int, most: int
    ) -> int:
        given = told.get(key, default)
        if isinstance(given, float):
            self._fault((*path, key), f"{key!r} must be a whole number")
            return default
        return int(self._number(path, told, key, default, least, most))

    def _word(
        self, path: Path, told: Mapping[str, Any], key: str, words: type[_Word], default: _Word
    ) -> _Word:
        given = told.get(key, default)
        if isinstance(given, str) and given in [*words]:
            return words(given)
        known = [*words]
        hint = ""
        if isinstance(given, str):
            meant = _MISSPELT_WORDS.get(given.lower(), "")
            hint = meant if meant in known else nearest(given.lower(), known)
        shown = repr(given) if isinstance(given, str) else "this"
        self._fault((*path, key), f"{key!r} must be one of {', '.join(known)}, not {shown}", hint)
        return default

    def _map(self, path: Path, told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        given = told.get(key)
        if given is None:
            return {}
        if isinstance(given, Mapping):
            return given
        self._fault((*path, key), f"{key!r} must be a map of names and values")
        return {}

    def _list(self, path: Path, told: Mapping[str, Any], key: str) -> list[Any]:
        given = told.get(key)
        if isinstance(given, list):
            return given
        if given is not None or (key in told and key == "steps"):
            self._fault((*path, key), f"{key!r} must be a list")
        return []

    def _keys(
        self,
        path: Path,
        told: Mapping[str, Any],
        known: Iterable[str],
        needed: Iterable[str],
        what: str,
    ) -> None:
        known, meant = [*known], set()
        for key in told:
            if key in known:
                continue
            hint = _MISSPELT_KEYS.get(key.lower(), "")
            hint = hint if hint in known else nearest(key, known)
            meant.add(hint)
            self._fault_of_key((*path, key), f"unknown key {key!r} of {what}", hint)
        for key in needed:
            if key not in told and key not in meant:
                self._fault(path, f"{what} needs the key {key!r}")

    def _fault(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(self.source.at(path, message, hint))

    def _fault_of_key(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(self.source.at_key(path, message, hint))
