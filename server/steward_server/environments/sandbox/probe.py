"""Finds out whether this host can isolate machines, and what is to be done where it cannot."""

from __future__ import annotations

import errno
import os
import platform
import sys
from pathlib import Path

from steward_server.environments.sandbox.cgroups import Cgroups, Version1, Version2
from steward_server.environments.sandbox.inside.syscalls import AUDIT_ARCH

_CONTROLLERS = ("memory", "cpu", "pids", "freezer", "cpuacct")
_NEEDED_V2 = ("memory", "cpu", "pids")
ASIDE = "steward-host"
"""The group of what was in a group that others are to be made below."""
_LEAST_KERNEL = (5, 14)
"""The first with both id-mapped mounts and `cgroup.kill`."""


class NotHere(Exception):
    """The host cannot; the message says why and what to do."""


class NotNow(NotHere):
    """The host is too busy to say whether it can."""


def check_host() -> None:
    """What root needs, as far as it can be seen without trying.

    Raises:
        NotHere: a thing that is needed is missing.
    """
    check_kernel()
    if os.geteuid() != 0:
        raise NotHere(
            f"the server runs as user {os.geteuid()}, and namespaces with limits need root; "
            "run it as root, in a container with --privileged"
        )
    effective = next(
        int(line.split()[1], 16)
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("CapEff")
    )
    for name, number in (("SYS_ADMIN", 21), ("SETUID", 7), ("NET_ADMIN", 12), ("MKNOD", 27)):
        if not effective >> number & 1:
            raise NotHere(
                f"the server is root without CAP_{name}; give its container --cap-add {name}, "
                "or --privileged"
            )


def check_kernel() -> None:
    """What every back end needs.

    Raises:
        NotHere: a thing that is needed is missing.
    """
    if sys.platform != "linux":
        raise NotHere(
            f"machines are isolated by Linux, and this is {sys.platform}; run it on Linux"
        )
    if platform.machine() not in AUDIT_ARCH:
        raise NotHere(
            f"there is no filter of system calls for {platform.machine()} yet; "
            f"use {' or '.join(sorted(AUDIT_ARCH))}"
        )
    release = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
    if release < _LEAST_KERNEL:
        raise NotHere(f"the kernel is {platform.release()}; 5.14 or later is needed")
    for name, key in (("user", "user.max_user_namespaces"), ("net", "user.max_net_namespaces")):
        path = Path("/proc/sys", *key.split("."))
        if path.exists() and int(path.read_text()) == 0:
            raise NotHere(f"{name} namespaces are switched off; sysctl -w {key}=10000")
    kinds = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    if "overlay" not in kinds:
        raise NotHere("the kernel has no overlay file system; modprobe overlay")


def find_cgroups(prefix: str) -> Cgroups:
    """The control groups of this host, with a place of ours in them.

    Raises:
        NotHere: they cannot hold the limits of a machine.
    """
    version_1, version_2 = mounts()
    if all(name in version_1 for name in _CONTROLLERS):
        try:
            return Version1({name: version_1[name] for name in _CONTROLLERS}, prefix)
        except OSError as error:
            raise NotHere(
                f"{error.filename} cannot be written ({error.strerror}); mount the control groups "
                "writable, in a container with --privileged"
            ) from None
    if version_2 is None:
        missing = ", ".join(name for name in _CONTROLLERS if name not in version_1)
        raise NotHere(
            f"the control groups {missing} are not mounted; mount -t cgroup2 none /sys/fs/cgroup"
        )
    return open_version_2(version_2, prefix)


def mounts() -> tuple[dict[str, Path], Path | None]:
    """Where the controllers of version 1 are mounted, and version 2."""
    version_1: dict[str, Path] = {}
    version_2 = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options = line.split()[:4]
        path = Path(place.encode().decode("unicode_escape"))
        if kind == "cgroup":
            for name in set(options.split(",")) & set(_CONTROLLERS):
                version_1.setdefault(name, path)
        elif kind == "cgroup2" and version_2 is None:
            version_2 = path
    return version_1, version_2


def open_version_2(mount: Path, prefix: str) -> Version2:
    offered = (mount / "cgroup.controllers").read_text().split()
    missing = [name for name in _NEEDED_V2 if name not in offered]
    if missing:
        raise NotHere(
            f"{mount} does not offer the controllers {', '.join(missing)}; mount the control "
            "groups of version 2 alone, with the kernel option systemd.unified_cgroup_hierarchy=1"
        )
    wanted = " ".join(f"+{name}" for name in _NEEDED_V2)
    try:
        try:
            (mount / "cgroup.subtree_control").write_text(wanted)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _move_aside(mount)
            (mount / "cgroup.subtree_control").write_text(wanted)
        folder = mount / prefix
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(wanted)
        return Version2(folder)
    except OSError as error:
        raise NotHere(
            f"{error.filename or mount} cannot be written ({error.strerror}); give the server a "
            "delegated group: Delegate=yes in its systemd unit, --privileged in a container"
        ) from None


def _move_aside(mount: Path) -> None:
    """Move the processes of a container's top group into one below.

    There it is a group like any other: it may hold processes or limit groups below it, not both.
    """
    aside = mount / ASIDE
    aside.mkdir(exist_ok=True)
    for pid in (mount / "cgroup.procs").read_text().split():
        try:
            (aside / "cgroup.procs").write_text(pid)
        except OSError:  # ended meanwhile
            continue
