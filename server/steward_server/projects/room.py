"""What is done with projects and the organisation: one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from steward_server.audit import Change, record
from steward_server.balance import BudgetTerms, ScopeBalance
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import FailedPrecondition, NotFound
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.principals import Principal
from steward_server.projects import store
from steward_server.projects.needs import Agents, Purse
from steward_server.projects.project import Changes, Organisation, Project
from steward_server.versions import ORGANISATIONS, PROJECTS


@dataclass(frozen=True, slots=True)
class Seen:
    """A project as it is shown."""

    project: Project
    balance: ScopeBalance


@dataclass(frozen=True, slots=True)
class SeenOrganisation:
    """The organisation as it is shown."""

    organisation: Organisation
    balance: ScopeBalance


@dataclass(frozen=True, slots=True)
class Named:
    """The money of a scope, with the name people know it by."""

    name: str
    balance: ScopeBalance


@dataclass(frozen=True, slots=True)
class Family:
    """The money of a scope and a page of what is right below it."""

    own: Named
    children: list[Named]
    next_after: str
    """The last child looked at, if there are more; else empty."""


@dataclass(frozen=True, slots=True)
class ProjectRoom:
    """Projects, the organisation, and their money."""

    database: Database
    purse: Purse
    agents: Agents
    clock: Callable[[], int]

    async def exists(self, reader: Reader, project_id: str) -> bool:
        """Whether there is a project with this id."""
        try:
            await store.get(reader, project_id)
        except NotFound:
            return False
        return True

    async def create(self, caller: Principal, *, name: str, terms: BudgetTerms) -> Seen:
        """Create a project with its budget."""
        now_us = self.clock()
        project = Project(new_id("project"), name, now_us, now_us)

        async def work(transaction: Transaction) -> Seen:
            await store.insert(transaction, project)
            await self.purse.open_project(
                transaction, project_id=project.project_id, terms=terms, now_us=now_us
            )
            body = {"name": name, **asdict(terms)}
            await _journal(transaction, now_us, "project.created", project.project_id, caller, body)
            change = Change("project.created", project.project_id, after=body)
            await record(transaction, now_us, caller, change)
            return (await self._all_seen(transaction, [project], now_us))[0]

        return await self.database.run(work)

    async def page(
        self, caller: Principal, *, before: tuple[int, str] | None, limit: int
    ) -> list[Seen]:
        """Projects the caller may see, the newest first."""
        only = await self._seen_by(caller)
        projects = await store.page(self.database, only=only, before=before, limit=limit)
        return await self._all_seen(self.database, projects, self.clock())

    async def get(self, caller: Principal, project_id: str) -> Seen:
        """One project.

        Raises:
            NotFound: there is none that the caller may see.
        """
        project = await self._visible(caller, project_id)
        return (await self._all_seen(self.database, [project], self.clock()))[0]

    async def update(
        self,
        caller: Principal,
        project_id: str,
        changes: Changes,
        *,
        expected_version: int | None = None,
    ) -> Seen:
        """Change what is given.

        Raises:
            NotFound: there is no such project.
            Aborted: it has another version than expected.
            FailedPrecondition: the new budget is below what is spent and leased.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Seen:
            before = await store.get(transaction, project_id)
            after = replace(
                before,
                name=changes.name or before.name,
                updated_at_us=now_us,
                version=await PROJECTS.advance(transaction, project_id, expected_version),
            )
            await store.save(transaction, after)
            await self._change(transaction, now_us, caller, before, after, changes)
            return (await self._all_seen(transaction, [after], now_us))[0]

        return await self.database.run(work)

    async def delete(
        self, caller: Principal, project_id: str, *, expected_version: int | None = None
    ) -> None:
        """Delete a project.

        Raises:
            NotFound: there is no such project.
            Aborted: it has another version than expected.
            FailedPrecondition: agents belong to it.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            project = await store.get(transaction, project_id)
            await PROJECTS.advance(transaction, project_id, expected_version)
            count = await self.agents.count_in_project(transaction, project_id)
            if count:
                raise FailedPrecondition(
                    f"{count} agents belong to project {project_id!r}; move them with "
                    'PATCH /api/v1/agents/{id} {"project_id": ""}, or delete them',
                    reason="PROJECT_HAS_AGENTS",
                    facts={"project_id": project_id, "agents": str(count)},
                )
            await store.delete(transaction, project_id, now_us)
            await self.purse.retire(transaction, scope=project.scope)
            await _journal(transaction, now_us, "project.deleted", project_id, caller, {})
            change = Change("project.deleted", project_id, before={"name": project.name})
            await record(transaction, now_us, caller, change)

        await self.database.run(work)

    async def organisation(self) -> SeenOrganisation:
        """The organisation."""
        return await self._organisation(self.database)

    async def update_organisation(
        self, caller: Principal, changes: Changes, *, expected_version: int | None = None
    ) -> SeenOrganisation:
        """Change what is given.

        Raises:
            Aborted: it has another version than expected.
            FailedPrecondition: the new budget is below what is spent and leased.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> SeenOrganisation:
            before = await store.organisation(transaction)
            await ORGANISATIONS.advance(transaction, before.organisation_id, expected_version)
            after = replace(before, name=changes.name or before.name, updated_at_us=now_us)
            await store.save_organisation(transaction, after)
            await self._change(transaction, now_us, caller, before, after, changes)
            return await self._organisation(transaction)

        return await self.database.run(work)

    # How money stands.

    async def project_budget(
        self, caller: Principal, project_id: str, *, after: str, limit: int
    ) -> Family:
        """The money of a project and of its agents.

        Raises:
            NotFound: there is no such project that the caller may see.
        """
        project = await self._visible(caller, project_id)
        return await self._family(caller, project.scope, project.name, after, limit)

    async def organisation_budget(self, caller: Principal, *, after: str, limit: int) -> Family:
        """The money of the organisation, its projects and agents that belong to none."""
        organisation = await store.organisation(self.database)
        return await self._family(caller, organisation.scope, organisation.name, after, limit)

    async def agent_budget(self, caller: Principal, agent_id: str) -> tuple[list[Named], int]:
        """The budgets that limit an agent, its own first, and what could be lent to it.

        Raises:
            NotFound: there is no such agent that the caller may see.
        """
        owner_id = self.agents.owner_of(agent_id)
        if owner_id is None:
            raise NotFound.of("agent", agent_id)
        caller.must_own("agent", agent_id, owner_id)
        now_us = self.clock()
        own = f"agent:{agent_id}"
        found = await self.purse.scope_balances(self.database, [own], now_us)
        path: list[ScopeBalance] = []
        at: str | None = own
        while at is not None:
            path.append(found[at])
            at = found[at].parent
        if not caller.is_admin:
            path.pop()  # the organisation's is for administrators
        balances = await self.purse.balances(self.database, [agent_id], now_us)
        return await self._named(path), balances[agent_id].available_nanousd

    async def _family(
        self, caller: Principal, scope: str, name: str, after: str, limit: int
    ) -> Family:
        now_us = self.clock()
        own = (await self.purse.scope_balances(self.database, [scope], now_us))[scope]
        children = await self.purse.child_balances(
            self.database, scope, after=after, limit=limit + 1, now_us=now_us
        )
        next_after = children[limit - 1].scope if len(children) > limit else ""
        shown = [
            child
            for child in children[:limit]
            if caller.is_admin or self.agents.owner_of(child.id) == caller.subject
        ]
        return Family(Named(name, own), await self._named(shown), next_after)

    async def _named(self, balances: Sequence[ScopeBalance]) -> list[Named]:
        ids = [balance.id for balance in balances]
        names = {
            "organisation": (await store.organisation(self.database)).name,
            **await store.names(self.database, ids),
            **await self.agents.names(self.database, ids),
        }
        return [Named(names.get(balance.id, ""), balance) for balance in balances]

    # What several need.

    async def _change(
        self,
        transaction: Transaction,
        now_us: int,
        caller: Principal,
        before: Project | Organisation,
        after: Project | Organisation,
        changes: Changes,
    ) -> None:
        """Change the budget, and write down what was changed."""
        scope = before.scope
        old = (await self.purse.scope_balances(transaction, [scope], now_us))[scope].terms
        new = changes.terms(old)
        if new != old:
            await self.purse.set_budget(transaction, scope=scope, terms=new, now_us=now_us)
        was = {"name": before.name, **asdict(old)}
        now = {"name": after.name, **asdict(new)}
        changed = [field for field in now if now[field] != was[field]]
        kind = scope.partition(":")[0]
        name = scope.partition(":")[2] or "default"
        body = {field: now[field] for field in changed}
        await _journal(transaction, now_us, f"{kind}.updated", name, caller, body)
        change = Change(
            f"{kind}.updated", name, before={field: was[field] for field in changed}, after=body
        )
        await record(transaction, now_us, caller, change)

    async def _organisation(self, reader: Reader) -> SeenOrganisation:
        organisation = await store.organisation(reader)
        scope = organisation.scope
        balances = await self.purse.scope_balances(reader, [scope], self.clock())
        return SeenOrganisation(organisation, balances[scope])

    async def _all_seen(
        self, reader: Reader, projects: Sequence[Project], now_us: int
    ) -> list[Seen]:
        scopes = [project.scope for project in projects]
        balances = await self.purse.scope_balances(reader, scopes, now_us)
        return [Seen(project, balances[project.scope]) for project in projects]

    async def _seen_by(self, caller: Principal) -> set[str] | None:
        """The projects a caller may see; None: all."""
        if caller.is_admin:
            return None
        return await self.agents.projects_of(self.database, caller.subject)

    async def _visible(self, caller: Principal, project_id: str) -> Project:
        project = await store.get(self.database, project_id)
        only = await self._seen_by(caller)
        if only is not None and project_id not in only:
            raise NotFound.of("project", project_id)
        return project


async def _journal(
    transaction: Transaction,
    now_us: int,
    kind: str,
    subject: str,
    caller: Principal,
    body: dict[str, Any],
) -> None:
    await append(transaction, now_us, NewEntry(kind, {**body, "by": caller.subject}, "", subject))
