"""Every change of an environment: the row, the journal and the audit log, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from steward_server import clock as clock_text
from steward_server.audit import Change, record
from steward_server.db import Database, Transaction
from steward_server.environments import store
from steward_server.environments.driver import Exit, LogRecord
from steward_server.environments.environment import Environment, State
from steward_server.environments.quantities import bytes_text, cpu_text
from steward_server.events.store import NewEntry, append
from steward_server.principals import Principal

KINDS = {
    State.RUNNING: "environment.started",
    State.TERMINATING: "environment.stopping",
    State.TERMINATED: "environment.stopped",
    State.FAILED: "environment.failed",
}
"""What is written down of a transition, unless its cause has a word of its own."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an environment goes into another state."""

    reason: str = ""
    """In words for people."""
    kind: str = ""
    """Of the entry, if it is not the state's usual one."""
    caller: Principal | None = None
    """None: the server itself."""
    facts: tuple[tuple[str, str], ...] = ()
    """For the journal."""


class Missed(Exception):
    """It is not in a state from which this was to happen, or not there any more."""


@dataclass(frozen=True, slots=True)
class Transitions:
    """Moves environments from state to state."""

    database: Database
    clock: Callable[[], int]

    async def move(
        self,
        environment_id: str,
        state: State,
        cause: Cause,
        *,
        come_from: Collection[State],
        exit_: Exit | None = None,
        last_log: Sequence[LogRecord] = (),
        delete: bool = False,
    ) -> Environment:
        """Put it into a state; hidden with its end where that was wanted.

        `delete` says that its end is wanted by somebody.

        Raises:
            Missed: it is not in one of the states it should come from.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Environment:
            stored = await store.find(transaction, environment_id)
            if stored is None or stored.environment.state not in come_from:
                raise Missed(environment_id)
            before = stored.environment
            after = before.to(state, now_us, reason=cause.reason)
            if exit_ is not None:
                after = replace(after, exit_code=exit_.code)
            await store.save(transaction, after)
            if last_log:
                await store.save_last_log(transaction, environment_id, last_log)
            if delete:
                await store.want_deletion(transaction, environment_id)
            if state.is_over and stored.delete_wanted:
                await store.hide(transaction, environment_id, now_us)
            await write_down(
                transaction,
                now_us,
                cause.kind or KINDS[state],
                after,
                cause.caller,
                before={"status": before.state.value},
                after={"status": state.value, "reason": after.reason},
                facts=dict(cause.facts),
            )
            return after

        return await self.database.run(work)

    async def want_deletion(self, environment_id: str, cause: Cause) -> None:
        """Let one that ends already be hidden with its end.

        Raises:
            Missed: it does not end, or is over.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            stored = await store.find(transaction, environment_id)
            if stored is None or stored.environment.state is not State.TERMINATING:
                raise Missed(environment_id)
            if not stored.delete_wanted:
                await store.want_deletion(transaction, environment_id)
                kind = cause.kind or KINDS[State.TERMINATING]
                await write_down(transaction, now_us, kind, stored.environment, cause.caller)

        await self.database.run(work)


async def write_down(
    transaction: Transaction,
    now_us: int,
    kind: str,
    environment: Environment,
    caller: Principal | None,
    *,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    facts: dict[str, Any] | None = None,
) -> None:
    """Journal and audit what became of an environment; its variables never stand there."""
    body: dict[str, Any] = {
        "name": environment.name,
        "image": environment.spec.image,
        "owner_id": environment.owner_id,
        "status": environment.state.value,
        "reason": environment.reason,
        "exit_code": environment.exit_code,
        "by": caller.subject if caller else "",
        **(facts or {}),
    }
    await append(transaction, now_us, NewEntry(kind, body, subject=environment.environment_id))
    change = Change(kind, environment.environment_id, before, after, environment.reason)
    await record(transaction, now_us, caller, change)


def audited(environment: Environment) -> dict[str, Any]:
    """What the audit log says of an environment; of its variables the names only."""
    spec = environment.spec
    resources = spec.resources
    return {
        "name": environment.name,
        "image": spec.image,
        "owner_id": environment.owner_id,
        "resources": {
            "cpu": cpu_text(resources.cpu_millicores),
            "memory": bytes_text(resources.memory_bytes),
            "storage": bytes_text(resources.storage_bytes),
        },
        "env": sorted(spec.env),
        "labels": dict(environment.labels),
        "runtime_class": spec.runtime_class,
        "network": {
            "allow_internet": spec.network.allow_internet,
            "allowed_egress": [str(each) for each in spec.network.allowed_egress],
            "allowed_ingress_ports": list(spec.network.allowed_ingress_ports),
            "allow_cluster_internal": spec.network.allow_cluster_internal,
        },
        "security": asdict(spec.security),
        "expires_at": clock_text.text(environment.expires_at_us or 0),
        "idle_timeout_s": environment.idle_timeout_s,
    }
