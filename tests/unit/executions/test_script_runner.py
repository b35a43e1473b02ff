"""What runs a script inside of its environment, here without one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steward_server.executions.steps import script_runner


def run(script: str, **variables: Any) -> dict[str, Any]:
    return script_runner._run({"script": script, "inputs": {}, "variables": variables})


@pytest.mark.parametrize(
    ("script", "line", "message"),
    [
        ("def f():\n    return {}['a']\n\n\nf()", 2, "KeyError: 'a'"),
        ("x = 1\nif x\n    pass", 2, "SyntaxError: expected ':'"),
        ("import json\n\njson.loads('{')", 3, "json.decoder.JSONDecodeError: Expecting property"),
        ("import sys\nsys.exit('enough')", 2, "SystemExit: enough"),
        ("raise KeyboardInterrupt", 1, "KeyboardInterrupt"),
        ("def f():\n    f()\nf()", 2, "RecursionError: maximum recursion depth"),
        ("set_variable('x', {1, 2})", 1, "TypeError: variable 'x' is no value of JSON: Object"),
        ("set_variable('', 1)", 1, "TypeError: the name of a variable is a text of 1 to 255"),
        ("set_variable(5, 1)", 1, "TypeError: the name of a variable is a text of 1 to 255"),
        ("result = {'a': float('nan')}", None, "result['a'] is no value of JSON: Out of range"),
        ("result = {}\nresult['a'] = result", None, "result['a'] is no value of JSON: Circular"),
    ],
)
def test_what_goes_wrong_is_told_with_the_line(script: str, line: int | None, message: str) -> None:
    report = run(script)
    assert report["error"]["message"].startswith(message)
    assert (report["error"]["line"], report["outputs"]) == (line, {})


@pytest.mark.parametrize("end", ["sys.exit()", "sys.exit(0)", "raise SystemExit"])
def test_a_script_may_end_early_and_well(end: str) -> None:
    report = run(f"import sys\nresult = {{'a': 1}}\n{end}\nresult = {{}}")
    assert report == {"outputs": {"a": 1}, "variables": {}, "error": None}


def test_a_value_is_as_it_was_when_it_was_set() -> None:
    report = run("rows = [1]\nset_variable('rows', rows)\nrows.append(2)\nresult = {1: (1,)}")
    assert (report["variables"], report["outputs"]) == ({"rows": [1]}, {"1": [1]})


def test_what_was_set_can_be_read_and_only_that_is_told() -> None:
    script = "set_variable('a', 2)\nresult = {'a': get_variable('a'), 'b': get_variable('b')}"
    report = run(script, a=1, b=5)
    assert (report["variables"], report["outputs"]) == ({"a": 2}, {"a": 2, "b": 5})


def test_of_what_is_printed_the_beginning_is_kept() -> None:
    kept: Any = script_runner._Kept(5)
    text = io.TextIOWrapper(kept, "utf-8", write_through=True)
    text.write("abc")
    assert (bytes(kept.data), kept.was_cut) == (b"abc", False)
    text.write("defg")
    text.write("h")
    assert (bytes(kept.data), kept.was_cut) == (b"abcde", True)


def test_a_report_that_is_too_large_becomes_an_error() -> None:
    given = {
        "script": "result = {'a': 'x' * 2_000}",
        "inputs": {},
        "variables": {},
        "most_printed": 100,
        "most_reported": 1_000,
    }
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(script_runner.__file__))],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=True,
    )
    error = json.loads(ran.stdout)["error"]
    assert error["message"].endswith("bytes as JSON; at most 1000 are taken")


def test_text_that_is_no_unicode_is_told_all_the_same() -> None:
    given = {
        "script": "print('\\udcff')\nresult = {'a': '\\ud800'}",
        "inputs": {},
        "variables": {},
        "most_printed": 100,
        "most_reported": 1_000,
    }
    ran = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(script_runner.__file__))],
        input=json.dumps(given).encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    report = json.loads(ran.stdout)
    assert (report["printed"], report["outputs"]) == ("?\n", {"a": "?"})
