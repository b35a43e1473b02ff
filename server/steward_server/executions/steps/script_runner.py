"""Runs one script of a playbook, inside of an environment, under whatever Python that has.

It is given to that Python as text. On its standard input comes JSON: `script`, `inputs`,
`variables`, `most_printed` and `most_reported` (bytes). On its standard output goes JSON:
`printed`, `was_cut`, `outputs`, `variables` (those that were set), and if it failed `error`:
`message`, `line`. Whatever is no print of the script's own Python goes to the standard error.

The script can do here what it likes, and write what it likes in place of this: whoever reads it
believes nothing.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from typing import Any

NAME = "<script>"


class _Kept(io.RawIOBase):
    """Takes everything, and keeps the beginning."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.data = bytearray()
        self.was_cut = False
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        given = bytes(data)
        self.was_cut = self.was_cut or len(self.data) + len(given) > self._most
        self.data += given[: self._most - len(self.data)]
        return len(given)


def _value(name: str, value: Any) -> Any:
    """A value as JSON has it, as it is now."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{name} is no value of JSON: {error}") from None


def _run(given: dict[str, Any]) -> dict[str, Any]:
    known, changed = dict(given["variables"]), {}

    def set_variable(name: str, value: Any) -> None:
        if not isinstance(name, str) or not 1 <= len(name) <= 255:
            raise TypeError("the name of a variable is a text of 1 to 255 characters")
        known[name] = changed[name] = _value(f"variable {name!r}", value)

    def get_variable(name: str, default: Any = None) -> Any:
        return known.get(name, default)

    space = {
        "__name__": "__main__",
        "inputs": given["inputs"],
        "set_variable": set_variable,
        "get_variable": get_variable,
    }
    error = None
    try:
        exec(compile(given["script"], NAME, "exec"), space)  # noqa: S102 - what this is for
    except BaseException as raised:  # noqa: BLE001 - whatever it is, it is told
        error = _told(raised)
    outputs: dict[str, Any] = {}
    result = space.get("result")
    if error is None and isinstance(result, dict):
        try:
            outputs = {str(name): _value(f"result[{name!r}]", result[name]) for name in result}
        except TypeError as raised:
            error = {"message": str(raised), "line": None}
    return {"outputs": outputs, "variables": changed, "error": error}


def _told(error: BaseException) -> dict[str, Any] | None:
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return None
    if isinstance(error, SyntaxError) and error.filename == NAME:
        return {"message": f"{type(error).__name__}: {error.msg}", "line": error.lineno}
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == NAME]
    message = "".join(traceback.format_exception_only(type(error), error)).strip()
    return {"message": message, "line": lines[-1] if lines else None}


def main() -> None:
    given = json.loads(sys.stdin.buffer.read())
    report_to = os.dup(1)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    kept = _Kept(given["most_printed"])
    sys.stdout = io.TextIOWrapper(kept, "utf-8", "replace", write_through=True)
    report = _run(given)
    report["printed"] = kept.data.decode("utf-8", "replace")
    report["was_cut"] = kept.was_cut
    data = json.dumps(report, ensure_ascii=False).encode("utf-8", "replace")
    if len(data) > given["most_reported"]:
        what = f"its outputs, variables and lines have {len(data)} bytes as JSON"
        message = f"{what}; at most {given['most_reported']} are taken"
        data = json.dumps({"error": {"message": message, "line": None}}).encode()
    while data:
        data = data[os.write(report_to, data) :]
    os._exit(0)  # threads that the script has left behind are not waited for


if __name__ == "__main__":
    main()
