"""Playbooks in folders of this machine, looked at from the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from steward_server.playbooks.checking import examine, load
from steward_server.playbooks.document import MAX_BYTES, read_document
from steward_server.playbooks.faults import Fault
from steward_server.playbooks.paths import why_unsafe
from steward_server.playbooks.planning import Plan, plan
from steward_server.playbooks.playbook import ParameterType, Playbook

SHIPPED = Path(__file__).parent / "library"


class Folders:
    """A library of some folders; where a path is in two of them, the first has it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [each.resolve() for each in folders]

    def find(self, path: str) -> Playbook | None:
        """The playbook at a path; None if there is none.

        Raises:
            BadPlaybook: it cannot be used.
            OSError: it cannot be read.
        """
        if why_unsafe(path):
            return None
        for folder in self._folders:
            file = (folder / path).resolve()
            if file.is_relative_to(folder) and file.is_file():
                return load(_content(file))
        return None

    def paths(self) -> Iterator[str]:
        """Those beside each other and a folder further down: enough to find what was meant."""
        for folder in self._folders:
            for file in (*folder.glob("*.y*ml"), *folder.glob("*/*.y*ml")):
                yield file.relative_to(folder).as_posix()

    def path_of(self, file: Path) -> str:
        """Where a file is in the library; its name if it is not in it."""
        file = file.resolve()
        for folder in self._folders:
            if file.is_relative_to(folder):
                return file.relative_to(folder).as_posix()
        return file.name


def check_file(file: Path, library: Path | None = None) -> tuple[Fault, ...]:
    """All that is wrong with a file.

    Raises:
        OSError: it cannot be read.
    """
    folders = _around(file, library)
    return examine(_content(file), path=folders.path_of(file), library=folders)[1]


def plan_file(file: Path, given: Sequence[tuple[str, str]], library: Path | None = None) -> Plan:
    """What a file would do, given values as they are written on a command line.

    Raises:
        OSError: it cannot be read.
        BadPlaybook: it cannot be used.
        BadStart: or not with these values.
    """
    folders = _around(file, library)
    playbook = load(_content(file), path=folders.path_of(file), library=folders)
    values = {name: _value(playbook, name, text) for name, text in given}
    return plan(playbook, values, folders)


def _value(playbook: Playbook, name: str, text: str) -> Any:
    """A value as YAML has it, for a parameter that is no text: 5, true, [1, 2]."""
    parameter = playbook.parameter(name)
    if parameter is None or parameter.type in _TEXTS:
        return text
    document = read_document(text)
    return text if document.faults else document.value


def _around(file: Path, library: Path | None) -> Folders:
    """The library of a file: as named, else the folder above its own, and its own."""
    own = [library] if library is not None else [file.resolve().parent.parent, file.parent]
    return Folders([*own, SHIPPED])


def _content(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


_TEXTS = (ParameterType.STRING, ParameterType.FILE, ParameterType.CREDENTIAL)
