"""What is done with limits: shown, set, lifted; one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog

from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database, Reader, T, Transaction
from steward_server.errors import InvalidArgument, NotFound
from steward_server.events.store import NewEntry, append
from steward_server.limits import store
from steward_server.limits.book import LimitBook
from steward_server.limits.needs import People, Projects, Purse
from steward_server.limits.scopes import (
    AGENT,
    PROJECT,
    USER,
    WINDOW_US,
    Limit,
    Use,
    day_of,
    month_of,
    scopes_with,
)
from steward_server.principals import Principal
from steward_server.versions import LIMITS

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A limit and how far it is used."""

    limit: Limit
    requests_last_minute: int
    requests_shared: int
    tokens_today: int
    tokens_allotted: int
    cost_this_month_nanousd: int
    leased_nanousd: int


@dataclass(frozen=True, slots=True)
class LimitRoom:
    """Limits, as people see and set them."""

    database: Database
    book: LimitBook
    purse: Purse
    people: People
    projects: Projects
    clock: Callable[[], int]

    async def start(self) -> None:
        """Read what the book needs to know before anything is booked."""
        self._note(await store.limits(self.database))

    async def page(self, caller: Principal, *, after: str, limit: int) -> list[Shown]:
        """Limits the caller may see, by scope."""
        limits = (await store.limits(self.database)).values()
        projects = await self._projects_of(caller)
        seen = [
            each
            for each in limits
            if each.scope > after and self._may_see(caller, each.scope, projects)
        ]
        return await self._shown(self.database, seen[:limit])

    async def get(self, caller: Principal, scope: str) -> Shown:
        """The limits of one scope.

        Raises:
            NotFound: it has none that the caller may see.
        """
        found = await store.limits_of(self.database, [scope])
        if scope not in found or not self._may_see(caller, scope, await self._projects_of(caller)):
            raise NotFound.of("limit", scope)
        return (await self._shown(self.database, [found[scope]]))[0]

    async def set(
        self, caller: Principal, wanted: Limit, *, expected_version: int | None = None
    ) -> Shown:
        """Set the limits of a scope, in place of those it had.

        Raises:
            Aborted: they have another version than expected.
            InvalidArgument: there is no such user, project or agent.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> Shown:
            await self._check_scope(transaction, wanted.scope)
            before = (await store.limits(transaction)).get(wanted.scope)
            limit = wanted._replace(
                created_at_us=before.created_at_us if before else now_us,
                updated_at_us=now_us,
                version=await LIMITS.advance(transaction, wanted.scope, expected_version),
            )
            await store.save_limit(transaction, limit)
            change = Change(
                "limit.set",
                limit.scope,
                before=_amounts(before) if before else None,
                after=_amounts(limit),
            )
            await record(transaction, now_us, caller, change)
            await self._apply(transaction, caller, limit.scope, now_us)
            return (await self._shown(transaction, [limit]))[0]

        return await self._change(work)

    async def delete(
        self, caller: Principal, scope: str, *, expected_version: int | None = None
    ) -> None:
        """Lift the limits of a scope.

        Raises:
            NotFound: it has none.
            Aborted: they have another version than expected.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            before = (await store.limits(transaction)).get(scope)
            if before is None:
                raise NotFound.of("limit", scope)
            await LIMITS.advance(transaction, scope, expected_version)
            await store.lift_limit(transaction, scope, now_us)
            change = Change("limit.deleted", scope, before=_amounts(before))
            await record(transaction, now_us, caller, change)
            await self._apply(transaction, caller, scope, now_us)

        await self._change(work)

    async def keep_sweeping(self, interval_s: float) -> NoReturn:
        """Divide what ended leases held, every `interval_s` until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.sweep()
            except Exception:
                log.exception("limits.sweep_failed")

    async def sweep(self) -> None:
        """Drop what is over, and divide anew what it held."""
        now_us = self.clock()
        limits = await store.limits(self.database)
        self._note(limits)
        if not await store.has_past(
            self.database,
            ended_before_us=now_us - WINDOW_US,
            slot_before_s=(now_us - WINDOW_US) // 1_000_000,
            period=month_of(now_us),
        ):
            return

        async def work(transaction: Transaction) -> None:
            await store.prune(
                transaction,
                before_us=now_us - WINDOW_US,
                before_slot_s=(now_us - WINDOW_US) // 1_000_000,
                before_period=month_of(now_us),
            )
            if any(limit.max_requests_per_minute is not None for limit in limits.values()):
                await self.book.share(transaction, now_us)

        await self.database.run(work)

    async def _change(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        async def change_and_note() -> T:
            # Before as well as after: what is booked meanwhile is to be counted.
            self.book.counts_recent = True
            try:
                return await self.database.run(work)
            finally:
                self._note(await store.limits(self.database))

        return await complete(change_and_note())

    def _note(self, limits: dict[str, Limit]) -> None:
        self.book.counts_recent = any(
            limit.max_requests_per_minute is not None for limit in limits.values()
        )

    async def _apply(
        self, transaction: Transaction, caller: Principal, scope: str, now_us: int
    ) -> None:
        """Have running runtimes keep to the limits as they are now."""
        limits = await store.limits(transaction)
        await self.book.share(transaction, now_us)
        await self.book.retell_tokens(transaction, limits, now_us)
        concerned = {
            row.agent_id
            for row in await store.allotments(transaction)
            if row.is_open and scope in scopes_with(row)
        }
        if limit := limits.get(scope):
            (shown,) = await self._shown(transaction, [limit])
            most = limit.max_cost_per_month_nanousd
            if most is not None and shown.cost_this_month_nanousd + shown.leased_nanousd > most:
                for agent_id in sorted(concerned):
                    await self.purse.drain(
                        transaction, agent_id=agent_id, why="limit_changed", now_us=now_us
                    )
        body = {"scope": scope, "by": caller.subject}
        await append(
            transaction,
            now_us,
            *[
                NewEntry("limits.changed", body, agent_id, agent_id)
                for agent_id in sorted(concerned)
            ],
        )

    async def _check_scope(self, reader: Reader, scope: str) -> None:
        kind, _, name = scope.partition(":")
        is_known = True
        if scope.startswith(USER):
            is_known = await self.people.exists(reader, name)
        elif scope.startswith(PROJECT):
            is_known = await self.projects.exists(reader, name)
        elif scope.startswith(AGENT):
            is_known = self.book.reading.owner_of(name) is not None
        if not is_known:
            raise InvalidArgument.of({"scope": f"is {scope!r}; there is no such {kind}"})

    async def _projects_of(self, caller: Principal) -> Collection[str]:
        if caller.is_admin:
            return ()
        return await self.book.reading.projects_of(self.database, caller.subject)

    def _may_see(self, caller: Principal, scope: str, projects: Collection[str]) -> bool:
        """`projects` are those that an agent of the caller's belongs to."""
        if caller.is_admin:
            return True
        if scope.startswith(AGENT):
            return self.book.reading.owner_of(scope.removeprefix(AGENT)) == caller.subject
        if scope.startswith(PROJECT):
            return scope.removeprefix(PROJECT) in projects
        return not scope.startswith(USER) or scope == f"{USER}{caller.subject}"

    async def _shown(self, reader: Reader, limits: Sequence[Limit]) -> list[Shown]:
        now_us = self.clock()
        days = await store.uses(reader, day_of(now_us))
        months = await store.uses(reader, month_of(now_us))
        recent = await store.recent(reader, (now_us - WINDOW_US) // 1_000_000)
        rows = await store.allotments(reader)
        leased = await self.book.reading.leased(reader)
        shown = []
        for limit in limits:
            scope = limit.scope
            of_scope = [row for row in rows if scope in scopes_with(row)]
            shown.append(
                Shown(
                    limit,
                    sum(each.requests for each in recent if scope in scopes_with(each)),
                    sum(row.requests_told or 0 for row in of_scope if row.is_open),
                    sum(use.tokens for use in _within(scope, days)),
                    sum(
                        max(0, row.tokens_held - row.tokens_booked)
                        for row in of_scope
                        if row.is_open and row.tokens_held is not None
                    ),
                    sum(use.cost_nanousd for use in _within(scope, months)),
                    leased[scope],
                )
            )
        return shown


def _within(scope: str, uses: Sequence[Use]) -> list[Use]:
    return [use for use in uses if scope in scopes_with(use)]


def _amounts(limit: Limit) -> dict[str, Any]:
    amounts = {
        "max_requests_per_minute": limit.max_requests_per_minute,
        "max_tokens_per_day": limit.max_tokens_per_day,
        "max_cost_per_month_nanousd": limit.max_cost_per_month_nanousd,
    }
    return {name: amount for name, amount in amounts.items() if amount is not None}
