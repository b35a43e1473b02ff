"""Small playbooks for tests, written as people write them."""

from __future__ import annotations

from textwrap import dedent, indent

from steward_server.playbooks.checking import load
from steward_server.playbooks.faults import BadPlaybook
from steward_server.playbooks.playbook import Playbook

HEAD = 'name: Test\nversion: "1.0"\n'


def steps(*written: str, before: str = "") -> str:
    """A playbook with these steps, each the lines after its dash."""
    listed = "".join(
        "  - " + indent(dedent(each).strip(), "    ").lstrip() + "\n" for each in written
    )
    above = f"{dedent(before).strip()}\n" if before else ""
    return f"{HEAD}{above}steps:\n{listed}"


def step(step_id: str, step_type: str, *lines: str) -> str:
    """One step, for `steps`."""
    return "\n".join((f"id: {step_id}", f"name: {step_id}", f"type: {step_type}", *lines))


def log(message: str, step_id: str = "say") -> str:
    """A step that logs; the message as YAML has it."""
    return step(step_id, "utility.log", "parameters:", f"  message: {message}")


SLEEP = step("nap", "utility.sleep")


def faults(text: str | bytes, **around: object) -> list[str]:
    """All that is wrong with a text."""
    try:
        load(text, **around)  # type: ignore[arg-type]
    except BadPlaybook as error:
        return [str(each) for each in error.faults]
    return []


class Shelf:
    """A library of texts."""

    def __init__(self, **texts: str) -> None:
        self.texts = {f"{name}.yaml": text for name, text in texts.items()}

    def find(self, path: str) -> Playbook | None:
        return load(self.texts[path]) if path in self.texts else None

    def paths(self) -> list[str]:
        return [*self.texts]
