"""What other rooms may ask and tell about agents."""

from __future__ import annotations

from collections.abc import Sequence

from steward_server.agents import store
from steward_server.agents.agent import Agent
from steward_server.audit import Change
from steward_server.belongings import Handover
from steward_server.db import Reader, Transaction
from steward_server.errors import NotFound
from steward_server.events.store import NewEntry, append

SEEN_INTERVAL_US = 5_000_000


class Directory:
    """Knows every agent; who owns each is kept in memory, for streams that ask often.

    So is the project it belongs to, for whoever counts by it in every booking.
    """

    def __init__(self, owners: dict[str, str], projects: dict[str, str] | None = None) -> None:
        self._owners = owners
        self._projects = projects or {}
        self._seen_us: dict[str, int] = {}

    @classmethod
    async def load(cls, reader: Reader) -> Directory:
        """The directory as the database has it at the start."""
        return cls(await store.owners(reader), await store.projects(reader))

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        return self._owners.get(agent_id)

    def project_of(self, agent_id: str) -> str:
        """The project the agent belongs to; empty for none."""
        return self._projects.get(agent_id, "")

    def note_project(self, agent_id: str, project_id: str) -> None:
        """That an agent belongs to a project, or to none, was committed."""
        if project_id:
            self._projects[agent_id] = project_id
        else:
            self._projects.pop(agent_id, None)

    def note_created(self, agent_id: str, owner_id: str) -> None:
        """An agent, or its new owner, was committed."""
        self._owners[agent_id] = owner_id

    def note_deleted(self, agent_id: str) -> None:
        """An agent's deletion was committed."""
        self._owners.pop(agent_id, None)
        self._projects.pop(agent_id, None)
        self._seen_us.pop(agent_id, None)

    async def record(self, reader: Reader, agent_id: str) -> Agent:
        """The agent.

        Raises:
            NotFound: no such agent.
        """
        return await store.get(reader, agent_id)

    async def of_owner(
        self, reader: Reader, owner_id: str | None, *, deleted_too: bool
    ) -> list[Agent]:
        """All agents of one owner, or all there are, the newest first."""
        return await store.of_owner(reader, owner_id, deleted_too=deleted_too)

    async def exists(self, reader: Reader, agent_id: str) -> bool:
        """Whether there is such an agent."""
        try:
            await store.get(reader, agent_id)
        except NotFound:
            return False
        return True

    async def count_using(self, reader: Reader, provider: str) -> int:
        """How many agents are assigned to a provider, by its name."""
        return await store.count_using(reader, provider)

    async def count_in_project(self, reader: Reader, project_id: str) -> int:
        """How many agents belong to a project."""
        return await store.count_in_project(reader, project_id)

    async def projects_of(self, reader: Reader, owner_id: str) -> set[str]:
        """The projects that agents of this owner belong to."""
        return await store.projects_of(reader, owner_id)

    async def names(self, reader: Reader, agent_ids: Sequence[str]) -> dict[str, str]:
        """The names of these agents, of deleted ones too."""
        return await store.names(reader, agent_ids)

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Give a deleted person's agents to another."""
        agent_ids = await store.reassign(transaction, user_id, heir_id, now_us)
        for agent_id in agent_ids:
            entry = NewEntry("agent.reassigned", {"owner_id": heir_id}, agent_id, agent_id)
            await append(transaction, now_us, entry)

        def note() -> None:
            for agent_id in agent_ids:
                self.note_created(agent_id, heir_id)

        changes = [
            Change("agent.reassigned", agent_id, {"owner_id": user_id}, {"owner_id": heir_id})
            for agent_id in agent_ids
        ]
        return Handover(changes, note)

    async def mark_seen(self, transaction: Transaction, *, agent_id: str, now_us: int) -> None:
        """Note that a runtime of the agent was heard; written every few seconds at most."""
        if now_us - self._seen_us.get(agent_id, 0) < SEEN_INTERVAL_US:
            return
        self._seen_us[agent_id] = now_us
        await store.save_seen(transaction, agent_id, now_us)

    def forget_seen(self, agent_id: str, now_us: int) -> bool:
        """Forget that it was heard at this time: that was undone. Whether it was known at all."""
        if self._seen_us.get(agent_id) != now_us:
            return False
        del self._seen_us[agent_id]
        return True

    async def mark_started(
        self, transaction: Transaction, *, agent_id: str, runtime_id: str, now_us: int
    ) -> None:
        """Note that a runtime began the agent's script.

        Raises:
            NotFound: no such agent.
        """
        agent = await store.get(transaction, agent_id)
        await store.save(transaction, agent.started(runtime_id, now_us))

    async def mark_stopped(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        runtime_id: str,
        exit_code: int | None,
        reason: str,
        now_us: int,
    ) -> None:
        """Note that the agent's script ended: "exited", "stopped", "killed" or "lost".

        Raises:
            NotFound: no such agent.
        """
        agent = await store.get(transaction, agent_id)
        stopped = agent.stopped(runtime_id, exit_code, reason, now_us)
        await store.save(transaction, stopped)
