from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import Resources
from steward_server.environments.sandbox.gvisor.limits import with_a_kernel
from steward_server.environments.sandbox.inside import oci, seen, sentry
from steward_server.environments.sandbox.limits import MEBIBYTE, limits

_PLAN = {"hostname": "m1", "read_only": True, "shared_memory_bytes": 4 * MEBIBYTE}
_REQUEST = {
    "argv": ["sh", "-c", "true"], "env": {"A": "b"}, "cwd": "/workspace", "user": 7, "group": 8,
    "tty": None,
}  # fmt: skip


def _bundle() -> dict[str, Any]:
    places = {"/tmp": "/tmp/root/tmp", "/workspace": "/tmp/root/workspace"}
    return oci.bundle(root="/tmp/root", tool="/tmp/tool", places=places, plan=_PLAN, keeper=65_535)


def test_a_machine_has_the_name_the_memory_and_the_places_of_its_plan() -> None:
    told = _bundle()

    assert told["hostname"] == "m1"
    assert told["root"]["path"] == "/tmp/root"
    mounts = {each["destination"]: each for each in told["mounts"]}
    assert mounts["/workspace"]["source"] == "/tmp/root/workspace"
    assert mounts["/tmp"]["type"] == "bind"  # one in memory would be beyond the disk
    assert f"size={4 * MEBIBYTE}" in mounts["/dev/shm"]["options"]
    assert "ro" in mounts["/dev/steward"]["options"]


def test_a_machine_keeps_the_users_and_the_network_that_it_is_started_in() -> None:
    kinds = {each["type"] for each in _bundle()["linux"]["namespaces"]}

    assert kinds == {"pid", "ipc", "uts", "mount"}


def test_its_first_process_is_nobodys_else() -> None:
    process = _bundle()["process"]

    assert process["user"] == {"uid": 65_535, "gid": 65_535}
    assert process["args"] == [oci.TOOL]


def test_a_command_has_its_user_folder_and_variables_and_no_rights() -> None:
    told = oci.command(_REQUEST, "mark")

    assert told["args"] == ["sh", "-c", "true"]
    assert told["user"] == {"uid": 7, "gid": 8}
    assert told["cwd"] == "/workspace"
    assert told["env"] == ["A=b", "STEWARD_COMMAND=mark"]
    assert told["noNewPrivileges"] is True
    assert told["terminal"] is False
    assert set(map(tuple, told["capabilities"].values())) == {()}
    assert oci.command(_REQUEST | {"tty": [80, 24]}, "mark")["terminal"] is True


def test_what_ends_commands_may_do_nothing_else() -> None:
    assert set(map(tuple, oci.killer("mark")["capabilities"].values())) == {("CAP_KILL",)}
    assert oci.pairs([3, 4], 9) == struct.pack("=iiii", 3, 9, 4, 9)


def test_the_program_is_an_elf_file_of_one_segment() -> None:
    tool = oci.tool()
    offset, _, _, in_file, in_memory, _ = struct.unpack_from("<QQQQQQ", tool, 64 + 8)

    assert tool.startswith(b"\x7fELF")
    assert (offset, in_file, in_memory) == (0, len(tool), len(tool))


def _told(pid: int, parent: int, mark: str, born_ns: int, **more: Any) -> str:
    return json.dumps(
        {
            "args": ["sleep", "9"],
            "env": [f"STEWARD_COMMAND={mark}"] if mark else [],
            "clone_ts": born_ns,
            "status": {"pid": pid, "ppid": parent, "uid": {"effective": 5}, "vm_size": 9,
                       "vm_rss": 4, **more},
        }
    )  # fmt: skip


def test_what_runs_is_read_from_what_runsc_tells() -> None:
    dump = f"PROCFS DUMP\n\n{_told(2, 0, 'a', 10)}\n\n{_told(3, 2, 'a', 11, vm_size=0)}\n"

    assert seen.parse(dump) == [seen.Seen(2, 0, 5, "sleep 9", "a", 10, 4)]


@pytest.mark.parametrize(
    ("told", "is_its"),
    [
        (_told(9, 2, "", 0), True),  # a child of it
        (_told(9, 1, "mine", 0), True),  # without a parent, with the mark
        (_told(9, 1, "", 2_000_000_000), True),  # without both, born while it ran
        (_told(9, 1, "", 1), False),  # without both, older
        (_told(9, 1, "theirs", 2_000_000_000), False),
        (_told(9, 3, "", 2_000_000_000), False),  # a child of another
        (_told(9, 0, "", 2_000_000_000), True),  # a child of its parent's
        (_told(9, 0, "theirs", 2_000_000_000), False),  # another, which begins
        (_told(9, 0, "", 1), False),
    ],
)
def test_a_process_belongs_to_the_command_that_started_it(told: str, is_its: bool) -> None:  # noqa: FBT001
    there = seen.parse(told + _told(2, 0, "mine", 1_000_000_000) + _told(3, 0, "", 2_000_000_000))
    mine = seen.Kept(2, "mine", 1_000_000_000)
    theirs = seen.Kept(3, "theirs", 0)

    assert seen.of_command(there, mine, [theirs]) == ([2, 9] if is_its else [2])


def test_a_command_may_say_what_it_likes_and_no_more_than_a_bit_of_it() -> None:
    args = ['"}', '{"status": {"pid": 7, "vm_size": 9}}', "/dev/steward/init signals", "x" * 99_999]
    told = json.loads(_told(5, 1, "m", 3)) | {"args": args}
    found = seen.parse(f"PROCFS DUMP\n\n{json.dumps(told)}\n")

    assert [each.pid for each in found] == [5]
    assert len(found[0].command) == 4_096


def test_a_kernel_has_threads_of_its_own_and_needs_memory() -> None:
    asked = Resources(cpu_millicores=1000, memory_bytes=64 * MEBIBYTE, storage_bytes=MEBIBYTE)
    found = with_a_kernel(limits(asked, process_count=100))
    assert found.process_count == 392

    little = Resources(cpu_millicores=1000, memory_bytes=32 * MEBIBYTE, storage_bytes=MEBIBYTE)
    with pytest.raises(Unusable, match="gVisor"):
        with_a_kernel(limits(little, process_count=100))


def _supervisor(
    listener: socket.socket, logs_fd: int, *, kernel_pid: int
) -> sentry.SentrySupervisor:
    plan = {"cgroup_clone": False, "is_alone": False, "group": 8, "log_segment_bytes": 1 << 16,
            "log_segment_count": 2}  # fmt: skip
    return sentry.SentrySupervisor(
        listener, logs_fd=logs_fd, upper_fd=-1, plan=plan, runsc=sentry.Runsc("runsc", "/"),
        kernel_pid=kernel_pid, root_fd=-1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("is_killed", "ended"), [(True, "137 9\n"), (False, "128 0\n")], ids=["killed", "alive"]
)
def test_a_command_that_ends_for_want_of_its_kernel_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_killed: bool, ended: str
) -> None:
    """runsc may be buried before the kernel without which it ended."""
    monkeypatch.setattr(os, "_exit", sys.exit)  # the end of the supervisor
    kernel = subprocess.Popen(["sleep", "60"])
    logs_fd = os.open(tmp_path, os.O_RDONLY)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = _supervisor(there, logs_fd, kernel_pid=kernel.pid)
    supervisor._main_pid = 77
    supervisor._kept[77] = sentry._Kept("main", "mark", 0, -1, -1, -1, pid=2)
    if is_killed:
        kernel.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, kernel.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(SystemExit) if is_killed else nullcontext():
        supervisor._buried(77, 128 << 8)

    assert (tmp_path / "exit").read_text() == ended
    kernel.kill()
    kernel.wait()
    here.close()
    there.close()
    os.close(logs_fd)


def test_who_reports_no_more_takes_no_word_from_whoever_has_its_number_next(
    tmp_path: Path,
) -> None:
    """A command that never runs hangs up before its end is seen; then a request may come in."""
    logs_fd = os.open(tmp_path, os.O_RDONLY)
    status_read, status_write = os.pipe()
    report_read, report_write = os.pipe2(os.O_NONBLOCK)
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = _supervisor(there, logs_fd, kernel_pid=2)
    log_fd = os.memfd_create("log")
    kept = sentry._Kept("x1", "mark", 0, report_read, log_fd, status_write)
    supervisor._kept[77] = kept
    supervisor._watch(report_read, lambda: supervisor._hear(kept))

    os.close(report_write)
    supervisor._hear(kept)
    os.dup2(there.fileno(), report_read)
    supervisor._watch(report_read, lambda: None)
    here.send(b"a request")
    supervisor._buried(77, 127 << 8)

    assert os.read(report_read, 64) == b"a request"
    assert b"it did not say why" in os.read(status_read, 1024)
    assert supervisor._kept == {}
    here.close()
    there.close()
    for fd in (logs_fd, status_read, report_read):
        os.close(fd)
