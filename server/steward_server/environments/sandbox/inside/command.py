"""What a fork of the supervisor does to become a command: give everything up, then run it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import resource
import signal
import termios
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from steward_server.environments.sandbox.inside import linux, seccomp

FILTER = seccomp.program(platform.machine())
FILTER_ALONE = seccomp.program(platform.machine(), is_alone=True)
"""For commands that have their supervisor's own user."""

_OPEN_FILES = (1_024, 16_384)
"""Soft and hard. Programs that select() break above the first; databases want the second."""

_CORE_BYTES = 1
"""Not none: of one byte a crash makes no file, and does not call the host's handler of crashes."""

_MEMORY_KILLER_LIKES = b"500"
"""The host's own processes, and the supervisor, are spared for longer."""

IGNORED_BY_OURS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGALRM,
    signal.SIGTSTP,
)
"""By supervisors and keepers, whom no terminal and no careless command is to end."""

_IGNORED = {
    number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN
}.union(IGNORED_BY_OURS)
"""With what is ignored when this is loaded: new programs would ignore them all, too.

Found ahead: in a fork each object that is looked at costs a copy of its page.
"""

_STATUS = 3


def run(request: dict[str, Any], stdio: Sequence[int], status_fd: int, join_fd: int) -> NoReturn:
    """Become the command of a request; never returns.

    The status descriptor closes when the command runs, or tells first why it does not.
    """
    stage, status = "prepare", status_fd
    try:
        os.setsid()
        _take_descriptors(stdio, status_fd, join_fd)
        status = _STATUS
        if request.get("tty"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        become(request)
        stage = "working directory"
        os.chdir(request["cwd"])
        stage = "program"
        _execute(request["argv"], request["env"])
    except OSError as error:
        fault = {"stage": stage, "errno": error.errno, "text": error.strerror}
        os.write(status, json.dumps(fault).encode())
    except BaseException as error:  # noqa: BLE001 - this process must not go on as a supervisor
        os.write(status, json.dumps({"stage": stage, "errno": 0, "text": repr(error)}).encode())
    finally:
        os._exit(127)


def leave_no_core() -> None:
    """Have a crash write no file and call nobody; under the filter of calls it is too late."""
    limit(resource.RLIMIT_CORE, _CORE_BYTES, _CORE_BYTES)


def limit(name: int, soft: int, hard: int) -> None:
    """Set a limit of this process, as far as it has no lower one already."""
    _, most = resource.getrlimit(name)
    top = hard if most == resource.RLIM_INFINITY else min(hard, most)
    resource.setrlimit(name, (min(soft, top), top))


def become(
    request: dict[str, Any],
    *,
    enter: Callable[[], None] | None = None,
    is_ours: bool = False,
) -> None:
    """Give up every right that the supervisor has, for good; before that, `enter` if need be.

    `is_ours`: it goes on to work for the server, and no command may ever trace it.
    """
    user, group = request["user"], request["group"]
    if not is_ours:
        let_memory_killer_take_this()
    if enter is not None:
        enter()
    leave_no_core()
    limit(resource.RLIMIT_NOFILE, *_OPEN_FILES)
    for number in _IGNORED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    is_alone = bool(request.get("is_alone"))
    if not is_alone:  # a namespace that was made without root lets nobody change them
        os.setgroups([group])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    linux.drop_capabilities()
    linux.forbid_new_privileges()
    linux.filter_calls(FILTER_ALONE if is_alone else FILTER)


def _take_descriptors(stdio: Sequence[int], status_fd: int, join_fd: int) -> None:
    """Keep 0 to 2, and the status until the command runs."""
    if join_fd >= 0:
        os.write(join_fd, b"0")
    status_fd = fcntl.fcntl(status_fd, fcntl.F_DUPFD, 64)  # out of the way of what comes now
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in stdio]
    for number, fd in enumerate(sources):
        os.dup2(fd, number, inheritable=True)
    os.dup2(status_fd, _STATUS, inheritable=False)
    linux.close_from(_STATUS + 1)


def let_memory_killer_take_this() -> None:
    """Let this process be killed for want of memory before the host's own."""
    linux.set_dumpable(yes=True)  # else /proc shows this process as somebody else's
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, _MEMORY_KILLER_LIKES)
    finally:
        os.close(fd)
        linux.set_dumpable(yes=False)


def _execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """Run a program, found along PATH if its name has no slash."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)  # noqa: S606 - what it is for
    denied: OSError | None = None
    for directory in env.get("PATH", "").split(":"):
        try:
            os.execve(f"{directory or '.'}/{argv[0]}", argv, env)  # noqa: S606
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                denied = denied or error
    raise denied or OSError(errno.ENOENT, "not found along PATH", argv[0])
