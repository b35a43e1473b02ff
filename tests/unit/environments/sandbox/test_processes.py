"""A process is meant, and not a number: that may be another's a moment later."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from steward_server.environments.sandbox import making, processes
from steward_server.environments.sandbox.cgroups import Cgroups
from steward_server.environments.sandbox.inside import linux
from steward_server.environments.sandbox.making import Body


class _Group:
    """What it tells of its processes, one time after the other."""

    def __init__(self, *told: list[int]) -> None:
        self._told = list(told)

    def pids(self, name: str, command: str = "") -> list[int]:
        return self._told.pop(0)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_signal_for_a_command_hits_nobody_who_has_got_its_number(
    stranger: subprocess.Popen[bytes],
) -> None:
    group = cast("Cgroups", _Group([stranger.pid, 1 << 22], []))

    processes.send_all(group, "m", "x1", 15)

    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.05)
    group = cast("Cgroups", _Group([stranger.pid], [stranger.pid]))
    processes.send_all(group, "m", "x1", 15)
    assert stranger.wait(5) == -15


def test_a_machine_that_has_ended_names_no_other_host(
    stranger: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    monkeypatch.setattr(socket, "sethostname", named.append)
    monkeypatch.setattr(linux, "setns", lambda *_: None)
    with subprocess.Popen(["true"]) as dead:
        pidfd = os.pidfd_open(dead.pid)
    shape: Any = None
    body = Body(shape, Path(), "m", 0, stranger.pid, pidfd)

    with pytest.raises(ProcessLookupError):
        making.name_host(body, "mine")

    os.close(pidfd)
    assert named == []
