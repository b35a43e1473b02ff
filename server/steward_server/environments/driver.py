"""What makes the machines: the protocol that every driver of environments fulfils.

A driver knows machines by the id of their environment and keeps nothing that it could not find
again after a restart: what it made is marked as its own, and `list_owned` finds it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from steward_server.environments.environment import NetworkPolicy, Spec


class Feature(StrEnum):
    """What not every driver can do."""

    ATTACH = "attach"
    FILES = "files"
    PAUSE = "pause"
    SNAPSHOT = "snapshot"
    NETWORK = "network"
    NETWORK_CHANGE = "network_change"
    INGRESS = "ingress"
    TUNNEL = "tunnel"
    SIGNAL = "signal"
    WARM_POOL = "warm_pool"
    PRIVILEGE_ESCALATION = "privilege_escalation"


class Hold(StrEnum):
    """How well a limit holds."""

    ENFORCED = "enforced"
    ADVISORY = "advisory"
    """Wished for, but a process that means to can go beyond."""
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a driver can do on this host."""

    driver: str
    backend: str
    """How it does it, such as `native` or `bubblewrap`; empty if it cannot."""
    features: frozenset[Feature] = frozenset()
    limits: Mapping[str, Hold] = field(default_factory=dict, hash=False)
    """Of `cpu`, `memory`, `storage`, `inodes`, `processes`, `network`."""
    runtime_classes: tuple[str, ...] = ()
    unusable: str = ""
    """Why it can make no machine, and what to do about it; empty if it can."""
    promise: str = ""
    """In words what its isolation is good for."""
    warnings: tuple[str, ...] = ()
    """What keeps machines from what they are promised, and what to do about it."""
    may_come: bool = False
    """Whether what makes it unusable may pass by itself, as where an engine is away: whoever has
    opened the driver opens it again."""
    missing_classes: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The runtime classes that it could have had on this host, and why it has not."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What there is to make machines of."""

    node_count: int = 1
    millicores: int = 0
    memory_bytes: int = 0
    """All there is, promised to machines or not."""
    free_millicores: int = 0
    free_memory_bytes: int = 0
    """What nothing that the driver knows of has taken."""
    cluster_version: str = ""
    """Of Kubernetes; empty where the machines are not in a cluster."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something to run in a machine."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Added to the environment's."""
    working_dir: str = ""
    """Empty: the image's, else `/workspace` or `/`."""
    user: int | None = None
    """None: the environment's."""
    tty: tuple[int, int] | None = None
    """Columns and rows of a terminal; None: three pipes."""


class Stream(StrEnum):
    """Where a command wrote. A terminal has stdout only."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a command ended."""

    code: int
    """Its own, or 128 and the number of the signal that ended it."""
    signal: int | None = None


class Running(Protocol):
    """A command that runs. Whoever has started it must close it."""

    async def read(self) -> tuple[Stream, bytes] | None:
        """What it wrote next; None once it has ended and what it wrote before was read.

        A child it left behind may hold its output open: a short while after its end nobody waits
        for more.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Give it input; returns once there is room for more. Ignored if it reads no more."""
        ...

    async def close_input(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None:
        """Tell its terminal's size; nothing without one."""
        ...

    async def signal(self, number: int) -> None:
        """Send a signal to it and its children; nothing if it has ended."""
        ...

    async def wait(self) -> Exit:
        """How it ended, once it has."""
        ...

    async def aclose(self) -> None:
        """End it, with every process it started, wherever those went."""
        ...


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A line that the main command or another one wrote."""

    sequence: int
    """From 1, without holes; what is no longer kept is missing at the front only."""
    at_us: int
    stream: str
    """`stdout`, `stderr`, or `system` for what the driver has to say."""
    message: str
    """Without its line end; bytes that are not UTF-8 are replaced."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What a machine uses now."""

    cpu_millicores: int
    """Over the last seconds."""
    memory_bytes: int
    storage_bytes: int | None
    process_count: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a machine, by the numbers it has inside."""

    pid: int
    parent_pid: int
    user: int
    command: str
    started_at_us: int
    memory_bytes: int


_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999


def in_calendar(at_us: int) -> int:
    """A time that was told inside, or the nearest between the years 1 and 9999.

    Whoever has a file may give it any time, and no later one can be passed on.
    """
    return min(max(at_us, _FIRST_US), _LAST_US)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a machine."""

    path: str
    kind: str
    """`file`, `directory`, `link` or `other`."""
    size_bytes: int
    mode: int
    """Permission bits only."""
    user: int
    group: int
    modified_at_us: int
    target: str = ""
    """Of a link."""


MOST_LISTED = 10_000
"""Entries of a directory that a caller is shown."""


class Files(Protocol):
    """The files of a machine, as its own user sees them. Paths are absolute.

    A link is followed inside the machine and never out of it.

    Raises:
        FileFault: there is no such file, it may not be touched, the disk is full, …
    """

    async def stat(self, environment_id: str, path: str) -> FileInfo: ...

    async def list(self, environment_id: str, path: str) -> Sequence[FileInfo]:
        """What is in a directory, by its path; more than MOST_LISTED if there is more.

        Of what is beyond that, no more than one entry is needed.
        """
        ...

    def read(self, environment_id: str, path: str, *, offset: int = 0) -> AsyncIterator[bytes]: ...

    async def write(
        self, environment_id: str, path: str, content: AsyncIterator[bytes], *, mode: int = 0o644
    ) -> FileInfo:
        """Make or replace a file; half of one is never seen."""
        ...

    async def make_directory(self, environment_id: str, path: str) -> FileInfo:
        """Make it with its parents; nothing if it is there."""
        ...

    async def remove(self, environment_id: str, path: str, *, recursive: bool) -> None: ...

    async def move(self, environment_id: str, path: str, to: str) -> None: ...

    def watch(self, environment_id: str, path: str) -> AsyncIterator[tuple[str, str]]:
        """`created`, `changed` or `removed` and the path, for what happens below one."""
        ...


class FileFault(Exception):
    """A file could not be used. `kind` is the errno's name, such as ENOENT."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Owned:
    """A machine that a driver finds to be its own."""

    environment_id: str
    is_alive: bool
    exit: Exit | None = None
    """Of its main command, if that has ended and it is known how."""


class Unusable(Exception):
    """The driver cannot make this machine; the message says why, and what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        """Machine-readable, such as UNKNOWN_IMAGE or NO_ISOLATION."""


def port_closed(environment_id: str, port: int, allowed: Collection[int]) -> Unusable:
    """The refusal of a port that is not among those that may be reached."""
    return Unusable(
        "PORT_CLOSED",
        f"port {port} of environment {environment_id!r} may not be reached; it allows "
        f"{', '.join(map(str, allowed)) or 'none'}: add it to allowed_ingress_ports",
    )


class Away(Unusable):
    """Who makes the machines does not answer now; the same may work later."""


class Gone(Exception):
    """There is no such machine, or none any more."""


class Driver(Protocol):
    """Makes, runs and ends machines.

    Every method that names a machine raises Gone if there is none.
    """

    files: Files

    def capabilities(self) -> Capabilities: ...

    async def open(self) -> None:
        """Find out what this host can do; before anything else.

        It may be asked again as long as what is missing `may_come`.
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything; the machines live on."""
        ...

    async def capacity(self) -> Capacity:
        """What there is to make machines of, and what of it is free.

        Raises:
            Unusable, errors.Unavailable: nobody says; the message says why.
        """
        ...

    async def create(self, environment_id: str, spec: Spec) -> None:
        """Make a machine. Nothing of it is left if this fails.

        Raises:
            Unusable: it cannot be made as it is wanted; it is never made weaker.
        """
        ...

    async def start(self, environment_id: str) -> None:
        """Run the main command, once.

        Raises:
            Unusable: reason NOT_EXECUTABLE or NO_SUCH_DIRECTORY.
        """
        ...

    async def wait(self, environment_id: str) -> Exit:
        """How the main command ended, once it has."""
        ...

    async def exec(self, environment_id: str, command: Command) -> Running:
        """Run something in a machine.

        Raises:
            Unusable: reason NOT_EXECUTABLE or NO_SUCH_DIRECTORY; or TOO_MANY_PROCESSES.
        """
        ...

    def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        """What was written, in order, beginning after a sequence or with the last `tail` lines.

        With `follow` what is written from now on too, until the machine is gone.
        """
        ...

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        """Write lines of a command beside those of the main one."""
        ...

    async def stats(self, environment_id: str) -> Stats: ...

    async def processes(self, environment_id: str) -> Sequence[Process]: ...

    async def signal(self, environment_id: str, pid: int, number: int) -> None: ...

    async def pause(self, environment_id: str) -> None:
        """Let everything in a machine stand still; once it does, this returns.

        Raises:
            Unusable: reason CANNOT_PAUSE; something in it waits for the kernel.
        """
        ...

    async def resume(self, environment_id: str) -> None: ...

    async def change_network(self, environment_id: str, policy: NetworkPolicy) -> None:
        """Let a machine reach, and be reached by, something else; what is closed is cut at once.

        Again with the same policy: nothing.

        Raises:
            Unusable: it cannot reach that; it reaches what it did before.
        """
        ...

    async def connect(self, environment_id: str, port: int) -> Connection:
        """Open a connection to a port that is allowed to be reached.

        Raises:
            Unusable: reason PORT_CLOSED, it is not allowed; or PORT_REFUSED, nobody answers there.
        """
        ...

    async def listen(self, environment_id: str, port: int) -> Listener:
        """Listen on a port of the machine's own loopback; 0: any that is free.

        Raises:
            Unusable: reason PORT_IN_USE, or PORT_REFUSED; its user may not listen there.
        """
        ...

    async def snapshot(self, environment_id: str, name: str) -> int:
        """Keep what the machine has written as an image of this name; its size in bytes."""
        ...

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        """End a machine: its main command is asked, and after the time everything is killed.

        Nothing of it is left: processes, files, network, limits. Its logs go too.
        """
        ...

    async def list_owned(self) -> Sequence[Owned]:
        """Every machine of this driver that exists, whoever made it."""
        ...


class Sink(Protocol):
    """The writing half of a connection."""

    async def write(self, data: bytes) -> None:
        """Send something; returns once there is room for more.

        Raises:
            ConnectionError: it was broken off.
        """
        ...

    async def close(self) -> None:
        """There is no more. What comes is still to be read, where a driver keeps the two apart."""
        ...


Connection = tuple[AsyncIterator[bytes], Sink]
"""What comes, and where to write. Whoever is given one reads to the end and closes the sink; or
closes both halves, the reading one with `aclose`, whenever they like."""


class Listener(Protocol):
    """A port of a machine that is listened on; ends with the machine."""

    @property
    def port(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[Connection]: ...

    async def aclose(self) -> None:
        """Listen no more; what came by it goes on."""
        ...
