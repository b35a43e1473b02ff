"""What the server answers of environments, as frozen values; read as values.py says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from steward.environments.v1 import environments_pb2 as pb
from steward_client.client.values import PermissionWord

EnvironmentStatus = Literal[
    "unspecified", "pending", "running", "terminating", "terminated", "failed"
]
FileKind = Literal["file", "directory", "link", "other"]
LogStream = Literal["stdout", "stderr", "system"]
TicketPurpose = Literal["attach", "logs", "files"]

ENVIRONMENT_ID = re.compile(r"env-[0-9a-f]{32}")
"""What the id of one looks like."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The most an environment may use, as quantities of Kubernetes: `500m`, `512Mi`."""

    cpu: str
    memory: str
    storage: str


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What an environment may reach, and by what it may be reached; by itself nothing."""

    allow_internet: bool = False
    """Public addresses; private, link-local and metadata addresses stay closed."""
    allowed_egress_cidrs: tuple[str, ...] = ()
    allowed_ingress_ports: tuple[int, ...] = ()
    allow_cluster_internal: bool = False


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """As whom commands run; None is as the driver does by itself."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What keeps an environment and the rest of the world apart."""

    runtime_class: str = ""
    """Of the driver's: "gvisor". Empty: its own."""
    network_policy: NetworkPolicy = NetworkPolicy()
    security_context: SecurityContext = SecurityContext()


@dataclass(frozen=True, slots=True)
class Toleration:
    """Of a cluster: a taint of nodes that does not keep the environment away."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_s: int | None = None


@dataclass(frozen=True, slots=True)
class Environment:
    """An isolated machine, as lists show it."""

    id: str
    name: str
    status: EnvironmentStatus
    image: str
    created_at: datetime | None
    started_at: datetime | None
    resources: Resources
    endpoint: str
    namespace: str
    paused: bool
    reason: str
    """Why it ended or failed."""
    labels: dict[str, str]
    """Of a list; a creation does not repeat what was given."""


@dataclass(frozen=True, slots=True)
class EnvironmentMetrics:
    """What an environment uses now."""

    cpu_usage: str
    memory_usage: str
    storage_usage: str
    process_count: int


@dataclass(frozen=True, slots=True)
class EnvironmentDetails:
    """An environment with everything that is known of it."""

    id: str
    name: str
    status: EnvironmentStatus
    image: str
    created_at: datetime | None
    started_at: datetime | None
    resources: Resources
    metrics: EnvironmentMetrics | None
    """None: it does not run, or was not measured yet."""
    endpoint: str
    namespace: str
    env: dict[str, str] = field(repr=False)
    """Whoever may only read sees "***" for each value."""
    labels: dict[str, str]
    paused: bool
    reason: str
    """Why it ended or failed."""
    timeout_s: int
    """How long it lives at most, from its creation."""
    expires_at: datetime | None
    idle_timeout_s: int | None
    """After how long without use it ends; None: never for that."""
    ended_at: datetime | None
    exit_code: int | None
    """Of the main command, once that has ended."""
    command: tuple[str, ...]
    owner_id: str
    agent_id: str
    """Of the agent that created it; empty: somebody else did."""
    permission: PermissionWord
    """What the caller may do with it."""
    isolation: Isolation
    node_selector: dict[str, str]
    tolerations: tuple[Toleration, ...]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command wrote and how it ended."""

    stdout: str
    stderr: str
    exit_code: int
    """Its own, or 128 and the number of the signal that ended it."""
    duration_ms: int
    timed_out: bool
    truncated: bool
    """It wrote more than is shown: the beginning is."""
    signal: str


@dataclass(frozen=True, slots=True)
class ExecExit:
    """How a command ended."""

    exit_code: int
    """Its own, or 128 and the number of the signal that ended it."""
    signal: str
    timed_out: bool
    duration_ms: int


@dataclass(frozen=True, slots=True)
class TerminalExit:
    """How what ran in a terminal ended."""

    exit_code: int
    signal: str


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what a command wrote."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of an environment's log."""

    timestamp: datetime | None
    stream: LogStream
    message: str
    sequence: int = 0
    """Its number, from 1; 0 where it was not followed."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """The newest lines of a log, as many as go into one answer."""

    logs: tuple[LogLine, ...]
    last_sequence: int
    truncated: bool
    """Older lines were left out."""


@dataclass(frozen=True, slots=True)
class LogsEnd:
    """Why a log goes on no more."""

    reason: str
    status: EnvironmentStatus
    """"unspecified": the environment was deleted."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process, by the numbers it has inside."""

    pid: int
    parent_pid: int
    user: int
    command: str
    started_at: datetime | None
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Share:
    """What somebody beside the owner may do."""

    user_id: str
    username: str
    permission: PermissionWord
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class Ticket:
    """Stands for the caller once, within 30 seconds, where no header can be sent."""

    ticket: str = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class File:
    """What there is at a path."""

    path: str
    kind: FileKind
    size_bytes: int
    mode: str
    """Permission bits, in octal: "0644"."""
    user: int
    group: int
    modified_at: datetime | None
    target: str
    """Of a link."""


@dataclass(frozen=True, slots=True)
class Directory:
    """What is in a directory, by name."""

    files: tuple[File, ...]
    truncated: bool
    """There are more than 10,000, which are shown."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """What happened to a file."""

    kind: Literal["created", "changed", "removed"]
    path: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of an environment, kept."""

    id: str
    name: str
    image: str
    """What to give as the `image` of a new environment."""
    environment_id: str
    base_image: str
    """What that was made of."""
    size_bytes: int
    created_at: datetime | None
    owner_id: str
    agent_id: str = ""
    """The agent that made it; empty: somebody else did."""


@dataclass(frozen=True, slots=True)
class Preview:
    """A link to a port, to be opened by a browser; whoever has it may use it."""

    token: str = field(repr=False)
    path: str = field(repr=False)
    """Of the server's HTTP address."""
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Image:
    """What environments are made of."""

    name: str
    digest: str
    size_bytes: int
    created_at: datetime | None
    command: tuple[str, ...]
    working_dir: str
    user: str
    is_host: bool
    """It is the machine's own system, read-only."""


def network_message(policy: NetworkPolicy) -> pb.NetworkPolicy:
    """A network policy, to be sent."""
    return pb.NetworkPolicy(
        allow_internet=policy.allow_internet,
        allowed_egress_cidrs=policy.allowed_egress_cidrs,
        allowed_ingress_ports=policy.allowed_ingress_ports,
        allow_cluster_internal=policy.allow_cluster_internal,
    )


def isolation_message(isolation: Isolation) -> pb.Isolation:
    """The message of a value."""
    security = isolation.security_context
    return pb.Isolation(
        runtime_class=isolation.runtime_class,
        network_policy=network_message(isolation.network_policy),
        security_context=pb.SecurityContext(
            run_as_user=security.run_as_user,
            run_as_group=security.run_as_group,
            run_as_non_root=security.run_as_non_root,
            read_only_root_filesystem=security.read_only_root_filesystem,
            allow_privilege_escalation=security.allow_privilege_escalation,
        ),
    )
