from __future__ import annotations

import errno
import socket
from pathlib import Path

import pytest

from steward_server.environments.sandbox.inside import launcher, linux, packets


def test_a_machine_that_cannot_be_forked_leaves_no_descriptor_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuses(flags: int, *, cgroup_fd: int) -> tuple[int, int]:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(linux, "fork", refuses)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        serving = launcher.Launcher(listener)
        before = len(list(Path("/proc/self/fd").iterdir()))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(tmp_path / "socket"))
            packets.send(asking, {"op": "create", "cgroup_clone": False})
            assert serving._accept() is None
            assert packets.receive(asking) == ({"error": "[Errno 11] no more processes"}, [])
        assert len(list(Path("/proc/self/fd").iterdir())) == before
