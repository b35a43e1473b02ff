"""What is done with agents: one transaction each, then what must follow its commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steward_server.agents import store
from steward_server.agents.agent import Agent, DesiredState, RunState
from steward_server.agents.directory import Directory
from steward_server.agents.needs import People, Projects, Providers, Purse, Requests, Tokens
from steward_server.agents.status import Status, status_of
from steward_server.audit import Change, record
from steward_server.balance import Balance
from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import FailedPrecondition, InvalidArgument
from steward_server.events.store import NewEntry, append, head
from steward_server.ids import new_id
from steward_server.principals import Principal
from steward_server.versions import AGENTS


@dataclass(frozen=True, slots=True)
class Seen:
    """An agent as it is shown: with its money and what it is doing."""

    agent: Agent
    balance: Balance
    status: Status


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update gives; None leaves it."""

    name: str | None
    budget_nanousd: int | None
    provider: str | None
    project_id: str | None = None
    period: str | None = None
    budget_reason: str = ""
    """Why the budget changes, for its history."""


@dataclass(frozen=True, slots=True)
class AgentRoom:
    """Agents, their money and their credentials together."""

    database: Database
    directory: Directory
    purse: Purse
    tokens: Tokens
    providers: Providers
    people: People
    projects: Projects
    requests: Requests
    on_stopped: Sequence[Callable[[str], None]]
    """Told, after the commit, of an agent that is to stop."""
    vanished_after_us: int
    clock: Callable[[], int]

    async def create(
        self,
        caller: Principal,
        *,
        name: str,
        budget_nanousd: int,
        provider: str,
        owner_id: str,
        project_id: str,
        period: str,
    ) -> Seen:
        """Create an agent with its budget; an empty `owner_id` is the caller.

        Raises:
            InvalidArgument: there is no such provider, owner or project.
        """
        now_us = self.clock()
        agent = Agent(
            agent_id=new_id("agent"),
            name=name,
            owner_id=owner_id or caller.subject,
            project_id=project_id,
            provider=provider,
            desired_state=DesiredState.RUNNING,
            stop_reason="",
            run_state=RunState.NONE,
            runtime_id="",
            started_at_us=None,
            stopped_at_us=None,
            exit_code=None,
            last_seen_at_us=None,
            created_at_us=now_us,
            updated_at_us=now_us,
        )

        async def work(transaction: Transaction) -> Seen:
            await self._check_references(transaction, provider, agent.owner_id, project_id)
            await store.insert(transaction, agent)
            await self.purse.open_account(
                transaction,
                agent_id=agent.agent_id,
                allocated_nanousd=budget_nanousd,
                now_us=now_us,
                project_id=project_id,
                period=period,
            )
            body = {
                "name": name,
                "owner_id": agent.owner_id,
                "project_id": project_id,
                "provider": provider,
                "budget_nanousd": budget_nanousd,
                "budget_period": period,
            }
            await _journal(transaction, now_us, "agent.created", agent.agent_id, body)
            change = Change("agent.created", agent.agent_id, after=body)
            await record(transaction, now_us, caller, change)
            return await self._seen(transaction, agent, now_us)

        async def create_and_note() -> Seen:
            seen = await self.database.run(work)
            self.directory.note_created(agent.agent_id, agent.owner_id)
            self.directory.note_project(agent.agent_id, project_id)
            return seen

        return await complete(create_and_note())

    async def page(
        self,
        caller: Principal,
        *,
        owner_id: str,
        project_id: str,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Seen]:
        """Agents the caller may see, the newest first."""
        only = (owner_id or None) if caller.is_admin else caller.subject
        agents = await store.page(
            self.database,
            owner_id=only,
            project_id=project_id or None,
            before=before,
            limit=limit,
        )
        return await self._all_seen(self.database, agents, self.clock())

    async def get(self, caller: Principal, agent_id: str) -> Seen:
        """One agent.

        Raises:
            NotFound: there is none that the caller may see.
        """
        agent = await self._owned(self.database, caller, agent_id)
        return await self._seen(self.database, agent, self.clock())

    async def get_with_commit(self, caller: Principal, agent_id: str) -> tuple[Seen, int]:
        """One agent, and the number of a commit that what is shown is not older than.

        Raises:
            NotFound: there is none that the caller may see.
        """
        lsn, _ = await head(self.database)
        return await self.get(caller, agent_id), lsn

    async def update(
        self,
        caller: Principal,
        agent_id: str,
        changes: Changes,
        *,
        expected_version: int | None = None,
    ) -> Seen:
        """Change what is given.

        Raises:
            NotFound: there is no such agent.
            Aborted: it has another version than expected.
            InvalidArgument: there is no such provider or project.
            FailedPrecondition: the new budget is below what is spent and leased, or the agent is to
                move while money is lent to it.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Seen:
            before = await self._owned(transaction, caller, agent_id)
            version = await AGENTS.advance(transaction, agent_id, expected_version)
            await self._check_references(
                transaction, changes.provider or "", None, changes.project_id or ""
            )
            after = replace(
                before,
                name=before.name if changes.name is None else changes.name,
                provider=before.provider if changes.provider is None else changes.provider,
                project_id=before.project_id if changes.project_id is None else changes.project_id,
                updated_at_us=now_us,
                version=version,
            )
            await store.save(transaction, after)
            given = {
                "name": changes.name,
                "provider": changes.provider,
                "budget_nanousd": changes.budget_nanousd,
                "project_id": changes.project_id,
                "budget_period": changes.period,
            }
            body = {field: value for field, value in given.items() if value is not None}
            await _journal(transaction, now_us, "agent.updated", agent_id, body)
            balance = (await self.purse.balances(transaction, [agent_id], now_us))[agent_id]
            old: dict[str, Any] = {
                "name": before.name,
                "provider": before.provider,
                "budget_nanousd": balance.allocated_nanousd,
                "project_id": before.project_id,
                "budget_period": balance.period,
            }
            if after.project_id != before.project_id:
                await self._must_hold_nothing(transaction, agent_id, now_us)
                await self.purse.move(transaction, agent_id=agent_id, project_id=after.project_id)
            if changes.period is not None:
                await self.purse.set_period(
                    transaction,
                    agent_id=agent_id,
                    period=changes.period,
                    allocated_nanousd=changes.budget_nanousd,
                    now_us=now_us,
                    by=caller.subject,
                    reason=changes.budget_reason,
                )
            elif changes.budget_nanousd is not None:
                await self.purse.reallocate(
                    transaction,
                    agent_id=agent_id,
                    allocated_nanousd=changes.budget_nanousd,
                    now_us=now_us,
                    by=caller.subject,
                    reason=changes.budget_reason,
                )
            change = Change("agent.updated", agent_id, {name: old[name] for name in body}, body)
            await record(transaction, now_us, caller, change)
            return await self._seen(transaction, after, now_us)

        async def update_and_note() -> Seen:
            seen = await self.database.run(work)
            self.directory.note_project(agent_id, seen.agent.project_id)
            return seen

        return await complete(update_and_note())

    async def delete(
        self, caller: Principal, agent_id: str, *, expected_version: int | None = None
    ) -> None:
        """Delete an agent, revoke its token and cancel what was asked for it.

        Raises:
            NotFound: there is no such agent.
            Aborted: it has another version than expected.
            FailedPrecondition: money is lent to it.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> list[str]:
            agent = await self._owned(transaction, caller, agent_id)
            await AGENTS.advance(transaction, agent_id, expected_version)
            await self._must_hold_nothing(transaction, agent_id, now_us)
            balance = (await self.purse.balances(transaction, [agent_id], now_us))[agent_id]
            await store.delete(transaction, agent_id, now_us)
            await self.purse.retire(transaction, scope=f"agent:{agent_id}")
            revoked = await self.tokens.revoke_of(
                transaction, agent_id=agent_id, why="agent_deleted", now_us=now_us
            )
            await self.requests.cancel_of(
                transaction,
                agent_id=agent_id,
                caller=caller,
                why="the agent was deleted",
                now_us=now_us,
            )
            await _journal(transaction, now_us, "agent.deleted", agent_id, {})
            gone = {
                "name": agent.name,
                "owner_id": agent.owner_id,
                "provider": agent.provider,
                "budget_nanousd": balance.allocated_nanousd,
            }
            why = "agent_deleted"
            await record(
                transaction,
                now_us,
                caller,
                Change("agent.deleted", agent_id, before=gone),
                *(Change("token.revoked", token_id, reason=why) for token_id in revoked),
            )
            return revoked

        async def delete_and_drop() -> None:
            revoked = await self.database.run(work)
            self.directory.note_deleted(agent_id)
            self.tokens.drop(revoked)

        await complete(delete_and_drop())

    async def stop(self, caller: Principal, agent_id: str, reason: str) -> None:
        """Want an agent stopped, and let its leases end. Its runtimes are told from the journal.

        Raises:
            NotFound: there is none that the caller may see.
        """
        now_us = self.clock()

        async def stop_and_tell() -> None:
            await self.database.run(work)
            for tell in self.on_stopped:
                tell(agent_id)

        async def work(transaction: Transaction) -> None:
            before = await self._owned(transaction, caller, agent_id)
            after = before.stop(reason, now_us)
            if after is before:
                return
            await AGENTS.advance(transaction, agent_id)
            await store.save(transaction, after)
            body = {"reason": reason}
            await _journal(transaction, now_us, "agent.stopping", agent_id, body)
            await record(transaction, now_us, caller, _turned(before, after, reason))
            await self.purse.drain(
                transaction, agent_id=agent_id, why="agent_stopped", now_us=now_us
            )

        await complete(stop_and_tell())

    async def start(self, caller: Principal, agent_id: str) -> Seen:
        """Let a stopped agent run again.

        Raises:
            NotFound: there is none that the caller may see.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Seen:
            before = await self._owned(transaction, caller, agent_id)
            after = before.start(now_us)
            if after is not before:
                await AGENTS.advance(transaction, agent_id)
                await store.save(transaction, after)
                await _journal(transaction, now_us, "agent.starting", agent_id, {})
                await record(transaction, now_us, caller, _turned(before, after))
            return await self._seen(transaction, after, now_us)

        return await self.database.run(work)

    async def _owned(self, reader: Reader, caller: Principal, agent_id: str) -> Agent:
        agent = await store.get(reader, agent_id)
        caller.must_own("agent", agent_id, agent.owner_id)
        return agent

    async def _must_hold_nothing(self, reader: Reader, agent_id: str, now_us: int) -> None:
        balance = (await self.purse.balances(reader, [agent_id], now_us))[agent_id]
        if balance.open_leases:
            raise FailedPrecondition(
                f"agent {agent_id!r} holds {balance.open_leases} open leases; stop it with "
                f"POST /api/agents/{agent_id}/stop and wait until they have ended",
                reason="AGENT_HAS_LEASES",
                facts={"agent_id": agent_id, "open_leases": str(balance.open_leases)},
            )

    async def _check_references(
        self, reader: Reader, provider: str, owner_id: str | None, project_id: str
    ) -> None:
        wrong = {}
        if provider and not await self.providers.exists(reader, provider):
            wrong["provider"] = f"is {provider!r}; there is no provider of this name"
        if owner_id is not None and not await self.people.exists(reader, owner_id):
            wrong["owner_id"] = f"is {owner_id!r}; there is no user with this id"
        if project_id and not await self.projects.exists(reader, project_id):
            wrong["project_id"] = f"is {project_id!r}; there is no project with this id"
        if wrong:
            raise InvalidArgument.of(wrong)

    async def _seen(self, reader: Reader, agent: Agent, now_us: int) -> Seen:
        return (await self._all_seen(reader, [agent], now_us))[0]

    async def _all_seen(self, reader: Reader, agents: Sequence[Agent], now_us: int) -> list[Seen]:
        if not agents:
            return []
        balances = await self.purse.balances(reader, [agent.agent_id for agent in agents], now_us)
        seen = []
        for agent in agents:
            balance = balances[agent.agent_id]
            status = status_of(
                agent,
                open_leases=balance.open_leases,
                now_us=now_us,
                vanished_after_us=self.vanished_after_us,
            )
            seen.append(Seen(agent, balance, status))
        return seen


def _turned(before: Agent, after: Agent, reason: str = "") -> Change:
    """An agent that is to run, or to stop."""
    return Change(
        "agent.stopped" if after.stop_wanted else "agent.started",
        after.agent_id,
        {"desired_state": before.desired_state.value},
        {"desired_state": after.desired_state.value},
        reason,
    )


async def _journal(
    transaction: Transaction, now_us: int, kind: str, agent_id: str, body: dict[str, Any]
) -> None:
    await append(transaction, now_us, NewEntry(kind, body, agent_id, agent_id))
