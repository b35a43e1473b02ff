"""Runs tests as an ordinary user, where those that ask for it run as root.

A process of that user is started once, in a mount namespace where everybody can read the server's
Python, this tree and the packages. It has pytest collect the tests of its folder, and forks for
each that it is asked for; what pytest reports of it comes back and is reported here.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

ROOT = Path(__file__).parents[4]
USER = 61_184 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
"""Nobody's, on this host, and no other worker's: each counts what its own user leaves behind."""

INSIDE = "STEWARD_TEST_ELSEWHERE"
"""A variable that is set in such a process."""
_MODULE = "tests.integration.environments.bubblewrap.elsewhere"


class Elsewhere:
    """A process of the ordinary user."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="steward-elsewhere-", dir="/tmp"))
        self._folder.chmod(0o755)
        home = self._folder / "home"
        home.mkdir()
        os.chown(home, USER, USER)
        python = Path(sys.base_prefix)
        needed = [python, ROOT, Path(sysconfig.get_path("purelib"))]
        script = [*self._show(needed), f"cd {ROOT}"]
        program = f"{python}/bin/python3.{sys.version_info.minor}"
        drop = f"setpriv --reuid {USER} --regid {USER} --clear-groups "
        script.append(f"exec {drop}{program} -m {_MODULE}")
        library = sysconfig.get_path("stdlib")
        paths = [each for each in sys.path if each and not each.startswith(library)]
        self._process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", "\n".join(script)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
                "PYTHONPATH": ":".join([str(ROOT), needed[2].as_posix(), *paths]),
                "HOME": str(home), "TMPDIR": str(home), "USER": "ordinary", "LANG": "C.UTF-8",
                INSIDE: "1",
                "HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis",
                **{name: value for name, value in os.environ.items() if name == "CI"},
            },
        )  # fmt: skip

    def _show(self, needed: list[Path]) -> list[str]:
        """Commands that let the user reach what it needs where it is, and nothing beside it."""
        before, after = [], []
        shut = {each: first for each in needed if (first := _first_shut(each))}
        for number, each in enumerate(shut):
            aside = self._folder / str(number)
            aside.mkdir()
            before.append(f"mount --bind {each} {aside}")
            after.append(f"mkdir -p {each}; mount --bind {aside} {each}")
        hidden = [f"mount -t tmpfs -o mode=755 none {each}" for each in sorted(set(shut.values()))]
        return before + hidden + after

    def run(self, node_id: str) -> list[dict[str, Any]]:
        """What pytest reports of one test."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{node_id}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            text = f"the process that runs it has ended ({self._process.wait()})"
            return [{"when": "call", "outcome": "failed", "text": text, "duration": 0.0}]
        found: list[dict[str, Any]] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.communicate()
        shutil.rmtree(self._folder)


def _first_shut(path: Path) -> Path | None:
    """The first folder on the way to a path that strangers may not enter."""
    way = [*reversed(path.parents), path]
    return next((each for each in way if not each.stat().st_mode & stat.S_IXOTH), None)


class Loop:
    """A plugin of pytest that runs what it is asked for, each test in a process of its own."""

    def __init__(self, asked: TextIO, answers: TextIO) -> None:
        self._asked = asked
        self._answers = answers
        self._reports: list[dict[str, Any]] = []

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for line in self._asked:
            print(_in_a_fork(self._run, items[line.strip()]), file=self._answers, flush=True)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        text = report.longreprtext
        if report.skipped and isinstance(report.longrepr, tuple):
            text = report.longrepr[2]
        self._reports.append(
            {
                "when": report.when,
                "outcome": report.outcome,
                "text": text,
                "duration": report.duration,
            }
        )

    def _run(self, item: pytest.Item) -> list[dict[str, Any]]:
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._reports


def _in_a_fork(run: Callable[[pytest.Item], list[dict[str, Any]]], item: pytest.Item) -> str:
    """What a function gives in a process of its own, as JSON."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            with os.fdopen(write, "w") as file:
                json.dump(run(item), file)
        except BaseException:  # noqa: BLE001 - what it was is to be seen
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as file:
        told = file.read()
    os.waitpid(pid, 0)
    lost = [{"when": "call", "outcome": "failed", "text": "it has died", "duration": 0.0}]
    return told or json.dumps(lost)


def main() -> None:
    with os.fdopen(os.dup(0)) as asked, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # standard output is for the answers alone
        folder = str(Path(__file__).parent)
        options = ["-qq", "-pno:cacheprovider", "-pno:xdist", f"--confcutdir={folder}", folder]
        pytest.main(options, plugins=[Loop(asked, answers)])


if __name__ == "__main__":
    main()
