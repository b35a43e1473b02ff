"""What is asked of an engine for an environment. Pure."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steward_server.environments.asked import DEFAULT_ID, must_be_runnable, must_not_be_root
from steward_server.environments.container.images import EngineImage
from steward_server.environments.driver import Command, Unusable
from steward_server.environments.environment import KEEP_ALIVE, Spec
from steward_server.environments.sandbox.limits import CPU_PERIOD_US, Limits

OWNER, ENVIRONMENT = "steward.owner", "steward.environment"
_PORTS, _NOT_ROOT = "steward.ports", "steward.must-not-be-root"
_NETWORK, _STORAGE = "steward.network", "steward.storage-bytes"
"""Labels: what a restarted server reads again."""

WORKSPACE = "/workspace"
_ENGINES_OWN = frozenset(("HOME", "HOSTNAME", "PATH", "TERM", "container"))
"""Variables that an engine sets where nobody does."""
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MOST_ID = 65_534
_OPEN_FILES = (1_024, 16_384)
"""Soft and hard. Programs that select() break above the first; databases want the second."""
_MOST_PROCESSES_OF_USER = 32_768
"""Counted over all machines whose commands have the same user id; each has its own limit beside.

Podman has lowered its own to this, and passes on no more."""
_TAR_BLOCK_BYTES = 512
"""One for the folder, two of nothing for the end."""
_OWN_PROCESSES = 1
"""The engine's pid 1."""
_MASKED = (
    *(f"/proc/{name}" for name in (
        "acpi", "asound", "cmdline", "config.gz", "diskstats", "iomem", "ioports", "kallsyms",
        "kcore", "keys", "kmsg", "latency_stats", "modules", "partitions", "sched_debug", "scsi",
        "timer_list", "timer_stats",
    )),
    *(f"/sys/{name}" for name in (
        "block", "bus", "class", "dev", "devices", "firmware", "kernel", "module",
    )),
)  # fmt: skip
"""What engines hide by themselves, and more that tells of the host."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What does not come from the spec."""

    environment_id: str
    owner: str
    """`steward-` and a hash of the data folder."""
    seccomp: str
    """The profile itself for Docker, the path of a file with it for Podman."""
    log_bytes: int
    is_podman: bool
    is_disk_held: bool
    most_open_files: int
    most_processes_of_user: int
    """The server's own hard limits: an engine without CAP_SYS_RESOURCE cannot go above."""
    resolv_conf: str = ""
    """A file to be shown as /etc/resolv.conf; empty: it is to have no network."""


def name_of(owner: str, environment_id: str) -> str:
    return f"{owner}-{environment_id}"


def user_of(image: EngineImage, spec: Spec) -> str:
    """`user:group` of an environment's commands, or the image's by name.

    Raises:
        Unusable: reason RUN_AS_NON_ROOT, BAD_USER or UNKNOWN_USER.
    """
    security = spec.security
    user, _, group = image.user.partition(":")
    if security.run_as_user is not None:
        user, group = str(security.run_as_user), ""
    user = user or str(DEFAULT_ID)
    if security.run_as_group is not None:
        group = str(security.run_as_group)
    for key, value in (("run_as_user", user), ("run_as_group", group)):
        if value.isdigit() and int(value) > MOST_ID:
            raise Unusable("BAD_USER", f"{key} is {value}; a container has the ids 0 to {MOST_ID}")
    if security.run_as_non_root:
        if not user.isdigit():
            raise Unusable(
                "UNKNOWN_USER",
                f"run_as_non_root is set and the image names its user {user!r}, whose number is "
                "not known before it runs; set run_as_user to a number",
            )
        must_not_be_root(int(user), wanted=True)
    if user.isdigit():
        return f"{user}:{group or user}"
    return f"{user}:{group}" if group else user


def working_dir(image: EngineImage) -> str:
    return image.working_dir if image.working_dir.strip("/") else WORKSPACE


def container(spec: Spec, image: EngineImage, limits: Limits, wanted: Wanted) -> dict[str, Any]:
    """The body of the request that makes a container; nothing is left to the engine's defaults."""
    is_read_only = bool(spec.security.read_only_root_filesystem)
    places = ["/tmp", "/var/tmp"]  # noqa: S108 - of the container
    if is_read_only:
        places.append(working_dir(image))
    room = f"rw,exec,nosuid,nodev,mode=1777,size={limits.storage_bytes}"
    host: dict[str, Any] = {
        "Init": True,
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": [
            "no-new-privileges",
            f"seccomp={wanted.seccomp}",
            # Podman's word for MaskedPaths; Docker refuses it.
            *([f"mask={':'.join(_MASKED)}"] if wanted.is_podman else ()),
        ],
        "MaskedPaths": list(_MASKED),
        "ReadonlyRootfs": is_read_only,
        "Ulimits": [
            _ulimit("nofile", *_OPEN_FILES, most=wanted.most_open_files),
            _ulimit("nproc", *[_MOST_PROCESSES_OF_USER] * 2, most=wanted.most_processes_of_user),
            # One byte: no file, and the host's handler of crashes is not run either.
            _ulimit("core", 1, 1, most=1),
        ],
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,  # of both together: so there is no swap
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": limits.cpu_quota_us,
        "PidsLimit": limits.process_count + _OWN_PROCESSES,
        "ShmSize": limits.shared_memory_bytes,
        "Tmpfs": dict.fromkeys(places, room),
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "k8s-file" if wanted.is_podman else "json-file",
            "Config": {"max-size": str(wanted.log_bytes)},
        },
    }
    program, *arguments = spec.command or KEEP_ALIVE
    if wanted.resolv_conf:
        # Not the engine's: to it, the container has no network.
        mount = {"Type": "bind", "Source": wanted.resolv_conf, "Target": "/etc/resolv.conf"}
        host["Mounts"] = [mount | {"ReadOnly": True}]
    if spec.runtime_class:
        host["Runtime"] = spec.runtime_class
    if wanted.is_disk_held:
        host["StorageOpt"] = {"size": str(limits.storage_bytes)}
    return {
        "Image": image.name,
        # As entry point, not as command: else the image's own would be put before it.
        "Entrypoint": [program],
        "Cmd": arguments,
        "User": user_of(image, spec),
        "WorkingDir": working_dir(image),
        "Env": [f"{key}={value}" for key, value in spec.env.items()],
        "Hostname": wanted.environment_id[:63],
        "StopSignal": "SIGTERM",
        "Tty": False,
        "OpenStdin": False,
        "Labels": {
            OWNER: wanted.owner,
            ENVIRONMENT: wanted.environment_id,
            _PORTS: ",".join(map(str, spec.network.allowed_ingress_ports)),
            _NOT_ROOT: "yes" if spec.security.run_as_non_root else "",
            _NETWORK: "yes" if wanted.resolv_conf else "",
            _STORAGE: str(limits.storage_bytes),
        },
        "HostConfig": host,
    }


def _ulimit(name: str, soft: int, hard: int, *, most: int) -> dict[str, Any]:
    top = min(hard, most)
    return {"Name": name, "Soft": min(soft, top), "Hard": top}


def command(asked: Command, *, working_dir: str) -> dict[str, Any]:
    """The body of the request that runs a command in a container.

    Raises:
        Unusable: reason NOT_EXECUTABLE or BAD_USER; it cannot be asked for.
    """
    must_be_runnable(asked)
    if asked.user is not None and not 0 <= asked.user <= MOST_ID:
        raise Unusable("BAD_USER", f"user {asked.user} is not between 0 and {MOST_ID}")
    env = dict(asked.env)
    if asked.tty:
        env.setdefault("TERM", "xterm-256color")
    body = {
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": asked.tty is None,
        "Tty": asked.tty is not None,
        "Privileged": False,
        "Cmd": list(asked.argv),
        "Env": [f"{key}={value}" for key, value in env.items()],
        "WorkingDir": asked.working_dir or working_dir,
        "User": "" if asked.user is None else f"{asked.user}:{asked.user}",
    }
    if asked.tty:
        body["ConsoleSize"] = [asked.tty[1], asked.tty[0]]
    return body


@dataclass(frozen=True, slots=True)
class Kept:
    """What the labels of a container tell."""

    environment_id: str
    ports: tuple[int, ...]
    must_not_be_root: bool
    has_network: bool
    storage_bytes: int


def kept(labels: dict[str, str]) -> Kept:
    ports = labels.get(_PORTS, "")
    return Kept(
        labels[ENVIRONMENT],
        tuple(int(port) for port in ports.split(",") if port),
        bool(labels.get(_NOT_ROOT)),
        bool(labels.get(_NETWORK)),
        int(labels[_STORAGE]),
    )


def variables(told: Sequence[str] | None) -> dict[str, str]:
    """Variables as an engine tells them."""
    pairs = (row.partition("=") for row in told or ())
    return {name: value for name, _, value in pairs}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """How an engine is told to keep the variables that an image had, and no value of others.

    Raises:
        Unusable: reason CANNOT_SNAPSHOT; one has a name that cannot be told.
    """
    differing = (name for name in now if now[name] != before.get(name))
    env = {name: before.get(name, "") for name in differing if name not in _ENGINES_OWN}
    told = []
    for name, value in env.items():
        if not _PLAIN_NAME.fullmatch(name) or "\n" in value:
            raise Unusable(
                "CANNOT_SNAPSHOT",
                f"the engine would keep the variable {name!r} in the snapshot; name it with "
                "letters, digits and '_'",
            )
        quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
        told.append(f'ENV {name}="{quoted}"')
    return told


def folder_archive(path: str, user: str) -> bytes:
    """An archive with one folder, which belongs to a user by number."""
    owner, _, group = user.partition(":")
    folder = tarfile.TarInfo(path.strip("/"))
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    if owner.isdigit():
        folder.uid, folder.gid = int(owner), int(group) if group.isdigit() else int(owner)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(folder)
    # Without the padding: Podman reads as far as the end and then calls the rest a broken pipe.
    return content.getvalue()[: _TAR_BLOCK_BYTES * 3]
