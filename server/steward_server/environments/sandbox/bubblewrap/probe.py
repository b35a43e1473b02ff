"""Finds out whether bwrap can make namespaces here, and what is to be done where it cannot."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from steward_server.environments.sandbox.probe import NotHere, NotNow, check_kernel

PATH = "/usr/local/bin:/usr/bin:/bin"
_SYSCTLS = Path("/proc/sys")
NAMESPACES = (
    "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
    "--unshare-cgroup",
)  # fmt: skip
OWN_RIGHTS = ("--cap-add", "ALL", "--as-pid-1")
"""Over the new namespaces alone: what is started in them mounts its own root, and gives them up."""
_SYS_ADMIN = 21
_ANSWER_S = 10
_ASK = "print(open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
_SWITCHES = (
    ("user/max_user_namespaces", "0", "user.max_user_namespaces=10000"),
    ("user/max_net_namespaces", "0", "user.max_net_namespaces=10000"),
    ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
"""What forbids user namespaces, and what allows them."""


def find() -> str:
    """The path of bwrap.

    Raises:
        NotHere: it is not here, or not for us.
    """
    check_kernel()
    if os.geteuid() == 0:
        raise NotHere(
            "bwrap that is run by root makes the user of an environment root on this host; give "
            "the server what the back end native needs, or run it as an ordinary user"
        )
    program = shutil.which("bwrap", path=PATH)
    if program is None:
        raise NotHere("the program bwrap is not here; install the package bubblewrap")
    if Path(program).stat().st_mode & stat.S_ISUID:
        raise NotHere(
            f"{program} is installed setuid root, and gives nobody rights over what it makes; let "
            f"the kernel allow user namespaces and take the bit away: chmod u-s {program}"
        )
    return program


def try_out(program: str) -> None:
    """Have bwrap make namespaces.

    Raises:
        NotHere: it cannot; the message says why and what to do.
        NotNow: it took too long.
    """
    command = [program, *NAMESPACES, *OWN_RIGHTS, "--dev-bind", "/", "/", "--",
               sys.executable, "-I", "-S", "-c", _ASK]  # fmt: skip
    try:
        ran = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_ANSWER_S,
            env={},
            cwd="/",
            check=False,
        )
    except OSError as error:
        raise NotHere(f"{program} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise NotNow(f"{program} has not answered within {_ANSWER_S} s") from None
    said = " ".join(ran.stderr.split())[:300]
    if ran.returncode != 0:
        if "execvp" in said:
            raise NotHere(_unreachable())
        raise NotHere(f"bwrap cannot make namespaces here ({said}); {_advice()}")
    if not int(ran.stdout, 16) >> _SYS_ADMIN & 1:
        raise NotHere(f"bwrap gives no rights over the namespaces that it makes here; {_advice()}")


def _unreachable() -> str:
    who = f"user {os.geteuid()}"
    shut = _first_shut(Path(sys.executable))
    why = f"{shut} is shut to it" if shut else "it is not where it was"
    return (
        f"{who} cannot run the server's own Python, {sys.executable}: {why}; install Python where "
        "everybody may run it, or run the server as its owner"
    )


def _first_shut(path: Path) -> Path | None:
    """The first folder on the way to a path that we may not enter."""
    way = [*reversed(path.resolve().parents), path.resolve()]
    return next((folder for folder in way if not os.access(folder, os.X_OK)), None)


def _advice() -> str:
    for name, forbids, allows in _SWITCHES:
        try:
            value = (_SYSCTLS / name).read_text().strip()
        except OSError:
            continue
        if value == forbids:
            return f"the kernel forbids it: sysctl -w {allows}"
    return (
        "let the kernel allow user namespaces; in a container give it --security-opt "
        "seccomp=unconfined --security-opt systempaths=unconfined, and where AppArmor is on a "
        "profile for bwrap that allows userns"
    )
