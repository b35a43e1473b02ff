"""An environment: what was asked for, and the states it goes through. Pure.

    pending <-> running -> terminating -> terminated
       |           |            |
       '-----------'------------'-------> failed

A running one is pending again while it is put back to a snapshot. Nothing leaves `terminated` or
`failed`. A paused environment is a running one whose processes
stand still.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from steward_server.errors import FailedPrecondition

DEFAULT_TIMEOUT_S = 3_600
KEEP_ALIVE = ("/bin/sh", "-c", "while :; do sleep 3600; done")
"""For machines that live as long as a command: it does nothing until it is stopped."""


class State(StrEnum):
    """Where in its life an environment is."""

    PENDING = "pending"
    RUNNING = "running"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left to run."""
        return self in (State.TERMINATED, State.FAILED)


_NEXT = {
    State.PENDING: {State.RUNNING, State.TERMINATING, State.FAILED},
    State.RUNNING: {State.PENDING, State.TERMINATING, State.TERMINATED, State.FAILED},
    State.TERMINATING: {State.TERMINATED, State.FAILED},
    State.TERMINATED: set[State](),
    State.FAILED: set[State](),
}


@dataclass(frozen=True, slots=True)
class Resources:
    """The most an environment may use."""

    cpu_millicores: int
    memory_bytes: int
    storage_bytes: int
    """Of everything it writes, wherever."""


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Whom an environment may reach and be reached by; by itself nobody."""

    allow_internet: bool = False
    """Public addresses only: private, link-local and metadata addresses stay closed."""
    allowed_egress: tuple[IPv4Network | IPv6Network, ...] = ()
    """Reachable in any case, private or not."""
    allowed_ingress_ports: tuple[int, ...] = ()
    """Reachable through the gateway."""
    allow_cluster_internal: bool = False
    """Of a cluster: its other pods and services."""

    @property
    def needs_network(self) -> bool:
        return bool(
            self.allow_internet
            or self.allowed_egress
            or self.allowed_ingress_ports
            or self.allow_cluster_internal
        )


@dataclass(frozen=True, slots=True)
class SecurityContext:
    """As whom the commands of an environment run. None: as the driver does by itself."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    """True refuses an environment whose commands would run as user 0."""
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    """True lets setuid programs act; a driver that never does refuses it."""


@dataclass(frozen=True, slots=True)
class Toleration:
    """Of a cluster: a taint of nodes that does not keep the environment away."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_s: int | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What was asked for. Its image changes with a restore, its network where that is changed."""

    image: str
    resources: Resources
    command: tuple[str, ...] = ()
    """The main one, whose end is the environment's; none: it lives until it is ended."""
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtime_class: str = ""
    """Empty: the driver's own."""
    network: NetworkPolicy = NetworkPolicy()
    security: SecurityContext = SecurityContext()
    node_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    tolerations: tuple[Toleration, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """The environment's, for a driver whose machines can carry labels too."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, living or dead."""

    environment_id: str
    name: str
    owner_id: str
    spec: Spec
    state: State
    created_at_us: int
    expires_at_us: int | None
    """When its life ends by itself; None: never."""
    idle_timeout_s: int | None = None
    """After how long without a command, a terminal or a visit it ends; None: never."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    started_at_us: int | None = None
    ended_at_us: int | None = None
    last_used_at_us: int | None = None
    paused: bool = False
    reason: str = ""
    """Why it ended or failed, in words for people."""
    exit_code: int | None = None
    """Of the main command, once that has ended."""
    agent_id: str = ""
    """Of the agent that created it; empty: somebody else did."""
    log_start: int = 0
    """What is added to the numbers that its machine gives to lines: a machine made anew begins at 1
    again, and the numbers of a log only rise."""

    def to(self, state: State, now_us: int, *, reason: str = "") -> Environment:
        """It, in another state.

        Raises:
            FailedPrecondition: no way leads there.
        """
        if state not in _NEXT[self.state]:
            raise self.wrong_state(f"cannot become {state}")
        started_at_us = now_us if state is State.RUNNING else self.started_at_us
        return replace(
            self,
            state=state,
            started_at_us=started_at_us,
            last_used_at_us=now_us if state is State.RUNNING else self.last_used_at_us,
            ended_at_us=now_us if state.is_over else None,
            paused=self.paused and state is State.RUNNING,
            reason=reason or self.reason,
        )

    def must_live(self) -> None:
        """Refuse what only a running environment can do, be it paused or not.

        Raises:
            FailedPrecondition: it is in another state.
        """
        if self.state is not State.RUNNING:
            raise self.wrong_state("does not run")

    def must_run(self) -> None:
        """Refuse what only a running environment can do.

        Raises:
            FailedPrecondition: it is in another state, or paused.
        """
        self.must_live()
        if self.paused:
            raise FailedPrecondition(
                f"environment {self.environment_id!r} is paused; resume it first",
                reason="ENVIRONMENT_PAUSED",
                facts={"environment_id": self.environment_id},
            )

    def ends_at_us(self) -> int | None:
        """When it is to end, by age or by idleness, whichever comes first; None: never."""
        ends = [] if self.expires_at_us is None else [self.expires_at_us]
        used_us = self.last_used_at_us or self.started_at_us
        if self.idle_timeout_s is not None and used_us is not None:
            ends.append(used_us + self.idle_timeout_s * 1_000_000)
        return min(ends, default=None)

    def wrong_state(self, what: str) -> FailedPrecondition:
        """A refusal that names the state it is in."""
        why = f" ({self.reason})" if self.reason else ""
        return FailedPrecondition(
            f"environment {self.environment_id!r} is {self.state}{why} and {what}",
            reason="ENVIRONMENT_NOT_RUNNING" if what == "does not run" else "WRONG_STATE",
            facts={"environment_id": self.environment_id, "status": str(self.state)},
        )


def is_ending(environment_id: str) -> FailedPrecondition:
    """What is said of one whose machine is on its way out."""
    return FailedPrecondition(
        f"environment {environment_id!r} is ending",
        reason="ENVIRONMENT_NOT_RUNNING",
        facts={"environment_id": environment_id, "status": State.TERMINATING.value},
    )
