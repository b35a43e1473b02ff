"""What runsc is told of a machine and of its commands, in the words of the OCI. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

NAME = "machine"
"""Of the one container there is in each network namespace, where its socket is an address."""
TOOL = "/dev/steward/init"
MARK = "STEWARD_COMMAND"
"""The variable that tells whose child a process is, once its parents are gone."""
_OPEN_FILES = {"type": "RLIMIT_NOFILE", "soft": 1_024, "hard": 16_384}
_DISPENSABLE = 500
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def bundle(
    *, root: str, tool: str, places: dict[str, str], plan: dict[str, Any], keeper: int
) -> dict[str, Any]:
    """A container that does nothing until it is told; its commands come later.

    `places` are folders of the machine's own by where they lie inside; without them a /tmp would
    be made in memory, beyond the machine's disk.
    """
    mounts: list[dict[str, Any]] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [
        {"destination": inside, "type": "bind", "source": source, "options": ["bind", "rw"]}
        for inside, source in places.items()
    ]
    mounts.append(
        {"destination": "/dev/shm", "type": "tmpfs", "source": "tmpfs",  # noqa: S108
         "options": ["nosuid", "nodev", "noexec", "mode=1777",
                     f"size={plan['shared_memory_bytes']}"]},
    )  # fmt: skip
    mounts.append(
        {"destination": TOOL.rpartition("/")[0], "type": "bind", "source": tool,
         "options": ["bind", "ro"]},
    )  # fmt: skip
    return {
        "ociVersion": "1.0.2",
        "hostname": plan["hostname"],
        # Where it is to be read only it is mounted so: runsc would do it over, and is not let.
        "root": {"path": root, "readonly": False},
        "process": _process([TOOL], {}, "/", keeper, keeper) | {"oomScoreAdj": _DISPENSABLE},
        "mounts": mounts,
        "linux": {
            # Those of users and of the network are the machine's, in which it is started.
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
        },
    }


def command(request: dict[str, Any], mark: str) -> dict[str, Any]:
    """A command of the machine's; it has no rights, and gains none."""
    env = {**request["env"], MARK: mark}
    told = _process(request["argv"], env, request["cwd"], request["user"], request["group"])
    return told | {"terminal": bool(request.get("tty"))}


def killer(mark: str) -> dict[str, Any]:
    """What sends signals to any process inside, as `pairs` tell it on its input."""
    told = _process([TOOL, "signals"], {MARK: mark}, "/", 0, 0)
    return told | {"capabilities": {name: ["CAP_KILL"] for name in _SETS}}


def trial(mark: str) -> dict[str, Any]:
    """What ends with 0 where `ls` and `stat` of coreutils 9 work."""
    return _process([TOOL, "trial", "of-stat"], {MARK: mark}, "/", 0, 0)


def pairs(pids: Iterable[int], number: int) -> bytes:
    return b"".join(struct.pack("=ii", pid, number) for pid in pids)


def _process(
    argv: list[str], env: dict[str, str], cwd: str, user: int, group: int
) -> dict[str, Any]:
    return {
        "terminal": False,
        "user": {"uid": user, "gid": group},
        "args": argv,
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": cwd,
        "capabilities": {name: [] for name in _SETS},
        "rlimits": [_OPEN_FILES],
        "noNewPrivileges": True,
    }


_CODE = bytes.fromhex(
    "48833c240274267754b80d000000bf11000000488d357600000031d241ba080000000f05"
    "b8220000000f05ebf74883ec1031c031ff4889e6ba080000000f0583f8087510b83e0000"
    "008b3c248b7424040f05ebdd31ffb83c0000000f054881ec00010000b80601000048c7c7"
    "9cffffff488d35110000004889e241ba000800000f05f7d889c7ebce2f00660f1f440000"
    "01"
) + bytes(31)
"""For x86-64:

    if (argc == 1) { signal(SIGCHLD, SIG_IGN); for (;;) pause(); }
    if (argc == 2) { while (read(0, pair, 8) == 8) kill(pair[0], pair[1]); _exit(0); }
    _exit(-fstatat(AT_FDCWD, "/", room, AT_NO_AUTOMOUNT));

An image may be without a single program, so the first process of a machine is one of ours.
"""
_ADDRESS, _HEADERS = 0x400000, 64 + 56
MACHINE = "x86_64"
"""The only one that the program is written for."""


def tool() -> bytes:
    """The program at TOOL, an ELF file."""
    size = _HEADERS + len(_CODE)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, _ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return header + segment + _CODE
