"""Commands that a page shows, and what they print: run again, and compared."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<'(\w+)'$")
_END = "\x00"

_VARIES = (
    (re.compile(r"(?<=\")(eyJ|rt_|ic_[0-9a-f])[^\"]*"), "<token>"),
    (re.compile(r"\bAES256:[^\"]*"), "<sealed>"),
    (re.compile(r"(\"seal_\w+\": )\"(?!SEAL)[^\"]*"), r'\1"<bytes>'),
    (re.compile(r"(?<=[\"'])(user|agent|ip|token|lease)_[0-9a-f][^\"']*"), r"<\1>"),
    (re.compile(r"\bprices-[^\"]*"), "<prices>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"), "<time>"),
    (re.compile(r"(\"(?:commit_number|lease_duration_ms)\": )\"[^\"]*"), r'\1"<number>'),
    (re.compile(r"(?<=\"evt_)\d+(\",\s+\"sequence\": \")\d+"), r"<number>\1<number>"),
    (re.compile(r",\s+\"uptime_seconds\": \"\d+\""), ""),  # left out in the first second
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A command of a page, and what the page says it prints."""

    command: str
    output: str


def consoles(page: Path) -> list[Shown]:
    """The commands of a page's consoles, in order."""
    return [
        each for block in _BLOCK.findall(page.read_text()) for each in _commands(block.split("\n"))
    ]


def _commands(lines: list[str]) -> list[Shown]:
    shown: list[Shown] = []
    rest = lines[:]
    while rest:
        line = rest.pop(0)
        if not line.startswith("$ "):
            if shown:
                shown[-1] = Shown(shown[-1].command, f"{shown[-1].output}{line}\n")
            continue
        command = [line.removeprefix("$ ")]
        while command[-1].endswith("\\"):
            command.append(rest.pop(0))
        if here := _HERE.search(command[-1]):
            while command[-1] != here[1]:
                command.append(rest.pop(0))
        shown.append(Shown("\n".join(command), ""))
    return shown


def printed(commands: list[str], folder: Path, variables: dict[str, str]) -> list[str]:
    """What each of the commands prints, errors included, in one shell that stands in a folder."""
    script = "".join(f"{command}\nprintf '\\0'\n" for command in commands)
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stdout.split(_END)[:-1]


def steady(output: str) -> str:
    """The same output, whenever and wherever it is printed."""
    for varying, name in _VARIES:
        output = varying.sub(name, output)
    return output.strip()
