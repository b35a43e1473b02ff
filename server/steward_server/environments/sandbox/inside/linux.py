"""The system calls that Python's own library does not have.

Every function raises OSError, with the path or the name of the call, when the kernel refuses.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123
from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
import time

# PyDLL keeps the interpreter's lock: these processes have one thread, and a fork that let go of
# the lock would leave the child without it.
_libc = ctypes.PyDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_PIDFD = 0x00001000
_CLONE_INTO_CGROUP = 0x200000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_NOATIME, MS_BIND, MS_REC, MS_PRIVATE = 1024, 4096, 16384, 1 << 18
_MNT_DETACH = 2

_OPEN_TREE_CLONE = 1
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
ATTR_IDMAP = 0x00100000

RESOLVE_NO_MAGICLINKS, RESOLVE_IN_ROOT = 0x02, 0x10

_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_CAPBSET_DROP = 4, 15, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_PF_EXITING = 0x4

_NUMBER = {
    # Calls without a function in the C library. From 424 on they are the same everywhere.
    "pivot_root": {"x86_64": 155, "aarch64": 41},
    "keyctl": {"x86_64": 250, "aarch64": 219},
}
_OPEN_TREE, _MOVE_MOUNT, _CLONE3, _CLOSE_RANGE = 428, 429, 435, 436
_OPENAT2, _MOUNT_SETATTR = 437, 442


class _CloneArguments(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in [
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        ]
    ]


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def _call(number: int, what: str, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def fork(flags: int = 0, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork into new namespaces, and on version 2 into a control group: (pid, pidfd), or (0, -1)."""
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArguments()
    arguments.flags = flags | _CLONE_PIDFD
    arguments.pidfd = ctypes.addressof(pidfd)
    arguments.exit_signal = signal.SIGCHLD
    if cgroup_fd >= 0:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = _libc.syscall(
        ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, os.strerror(number), "clone3")
    return pid, pidfd.value


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source),
            os.fsencode(target),
            kind.encode(),
            ctypes.c_ulong(flags),
            os.fsencode(options),
        ),
        f"mount {kind or source}",
    )


def detach(target: str) -> None:
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), "umount2")


def pivot_root(new: str, old: str) -> None:
    number = _NUMBER["pivot_root"][platform.machine()]
    _call(number, "pivot_root", os.fsencode(new), os.fsencode(old))


def new_session_keyring() -> None:
    """Let go of the keys of whoever has started this; nothing where the kernel has none."""
    try:
        _call(_NUMBER["keyctl"][platform.machine()], "keyctl", 1, None)  # KEYCTL_JOIN_SESSION_…
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise


def open_tree(fd: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount at a descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _call(_OPEN_TREE, "open_tree", fd, b"", ctypes.c_uint(flags))


def set_mount(fd: int, attributes: int, *, userns_fd: int = -1, recursive: bool = False) -> None:
    """Add attributes to a mount, and with a user namespace its id map."""
    if userns_fd >= 0:
        attributes |= ATTR_IDMAP
    values = struct.pack("=QQQQ", attributes, 0, 0, max(0, userns_fd))
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _call(_MOUNT_SETATTR, "mount_setattr", fd, b"", flags, values, ctypes.c_size_t(len(values)))


def move_mount(fd: int, target_fd: int) -> None:
    flags = _MOVE_MOUNT_F_EMPTY_PATH | 0x40  # MOVE_MOUNT_T_EMPTY_PATH
    _call(_MOVE_MOUNT, "move_mount", fd, b"", target_fd, b"", ctypes.c_uint(flags))


def openat2(directory_fd: int, path: str, flags: int, mode: int = 0, *, resolve: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _check(
        _libc.syscall(
            ctypes.c_long(_OPENAT2),
            directory_fd,
            os.fsencode(path),
            how,
            ctypes.c_size_t(len(how)),
        ),
        path,
    )


def close_from(first: int) -> None:
    """Close every descriptor from a number on."""
    _call(_CLOSE_RANGE, "close_range", ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), 0)


def _prctl(option: int, *values: int) -> None:
    padded = (*values, 0, 0, 0, 0)[:4]
    _check(_libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)), f"prctl {option}")


def set_dumpable(*, yes: bool) -> None:
    _prctl(_PR_SET_DUMPABLE, int(yes))


def adopt_orphans() -> None:
    """Become the parent of what descendants leave behind."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """No program that is run from now on gains a capability, whoever runs it."""
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError:  # EINVAL: beyond the kernel's last
            return


def drop_capabilities() -> None:
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, b"\0" * 24), "capset")


def filter_calls(program: bytes) -> None:
    """Put a seccomp program on this process and all it starts; for good."""
    argument = _FilterProgram(len(program) // 8, program)
    _check(
        _libc.prctl(
            _PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(argument), 0, 0
        ),
        "seccomp",
    )


def set_name(name: str) -> None:
    """What `ps` shows. The arguments, which any process may read, are wiped with it."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0), "prctl name")
    fields = _stat("self")
    start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, of 52 in all
    if start < end:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, name.encode()[: end - start - 1], min(len(name), end - start - 1))


def is_ending(pid: int) -> bool:
    """Whether a child of ours has begun to end: its files are closed before it can be buried."""
    return bool(int(_stat(pid)[6]) & _PF_EXITING)


def _stat(pid: int | str) -> list[bytes]:
    """What the kernel tells of a process in a line, from its state on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def loopback_up() -> None:
    """Switch on `lo` in the present network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
        fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS


def timer() -> int:
    """A descriptor that can be read once the time has come that `ring_in` sets."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK
    return _check(_libc.timerfd_create(time.CLOCK_MONOTONIC, flags), "timerfd_create")


def ring_in(timer_fd: int, delay_s: float) -> None:
    """Set a timer to ring once; it may not be at once."""
    value = struct.pack("=qqqq", 0, 0, *divmod(max(1, int(delay_s * 1e9)), 10**9))
    _check(_libc.timerfd_settime(timer_fd, 0, value, None), "timerfd_settime")


def inotify() -> int:
    return _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")


def inotify_watch(fd: int, path: str, mask: int) -> int:
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint(mask)), path)


def inotify_unwatch(fd: int, watch: int) -> None:
    _check(_libc.inotify_rm_watch(fd, watch), "inotify_rm_watch")
