"""The book of limits: loads what a rule needs, asks the rule, saves and journals what it says.

Each method is one piece of work within a transaction of the budget room, or of room.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from steward_server.db import Reader, Transaction
from steward_server.errors import NotFound
from steward_server.events.store import NewEntry, append
from steward_server.limits import store
from steward_server.limits.ceiling import Ceiling
from steward_server.limits.needs import Agents, Leased
from steward_server.limits.reading import (
    Reading,
    request_limits,
    seats_of,
    token_limits,
    tokens_of,
)
from steward_server.limits.scopes import (
    WINDOW_US,
    Limit,
    Use,
    day_of,
    month_of,
    next_day_us,
    scopes_with,
)
from steward_server.limits.shares import (
    Share,
    granted_tokens,
    retell_tokens,
    seats_taken,
    share_seats,
    tokens_taken,
)
from steward_server.limits.store import Allotment


@dataclass(frozen=True, slots=True)
class Allotted:
    """What a lease is told of its limits."""

    allotment: Allotment
    requests_limit: Limit | None
    """The tightest on requests."""
    tokens_limit: Limit | None
    """The tightest on tokens."""
    tokens_reset_us: int
    """How long until the day ends."""

    @property
    def is_limited(self) -> bool:
        told = (self.allotment.requests_told, self.allotment.tokens_told)
        return told != (None, None) or self.allotment.version > 1


class LimitBook:
    """What the budget room asks before it lends, and tells when it has booked."""

    def __init__(self, agents: Agents, leased: Leased) -> None:
        self.reading = Reading(agents, leased)
        self._ceiling = Ceiling(self.reading)
        self.counts_recent = False
        """Some limit on requests is set, so reported calls are counted by the second."""

    # Lending.

    async def ceiling(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        lease_id: str = "",
        minimum_nanousd: int = 0,
        now_us: int,
    ) -> int | None:
        """The most that may be lent now, as `Ceiling.most` says."""
        return await self._ceiling.most(
            transaction,
            agent_id=agent_id,
            lease_id=lease_id,
            minimum_nanousd=minimum_nanousd,
            now_us=now_us,
        )

    # Leases.

    async def lease_opened(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        acknowledges: bool,
        now_us: int,
    ) -> None:
        """Give a new lease its shares; `acknowledges` if its runtime obeys what is pushed to it."""
        limits = await store.limits_of(transaction, self.reading.scopes(agent_id))
        requests = 0 if request_limits(limits) else None
        tokens: int | None = None
        if limited := token_limits(limits):
            _, free = await self.reading.free_tokens(transaction, limited, agent_id, now_us)
            tokens = granted_tokens(min(free.values()), 0)
        new = Allotment(
            lease_id,
            agent_id,
            self.reading.owner(agent_id),
            self.reading.project(agent_id),
            acknowledges,
            1,
            requests,
            requests,
            tokens,
            tokens,
            0,
            now_us,
            None,
        )
        await store.insert_allotment(transaction, new)
        if requests is not None:
            await self.share(transaction, now_us, agent_id=agent_id, silent=lease_id)

    async def lease_ended(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        requests_last_minute: int | None,
        now_us: int,
    ) -> None:
        """Take the shares of a lease back; of its requests, those that were made count on."""
        lease = await store.allotment(transaction, lease_id)
        if lease is None or not lease.is_open:
            return
        held = lease.requests_held
        if held is not None and requests_last_minute is not None:
            held = min(held, requests_last_minute)
        ended = replace(lease, ended_at_us=now_us, requests_held=held, tokens_held=None)
        if held is None:
            # Long past: it is dropped by the next sweep.
            ended = replace(ended, ended_at_us=now_us - WINDOW_US)
        await store.save_allotments(transaction, [ended])
        if held is not None:
            await self.share(transaction, now_us, agent_id=lease.agent_id)

    async def allotted(self, reader: Reader, lease_id: str, now_us: int) -> Allotted | None:
        """What a lease is told; None for one that was opened before there were limits."""
        lease = await store.allotment(reader, lease_id)
        if lease is None:
            return None
        limits = await store.limits_of(reader, scopes_with(lease))
        requests, tokens = request_limits(limits), token_limits(limits)
        return Allotted(
            lease,
            limits[min(requests, key=requests.__getitem__)] if requests else None,
            limits[min(tokens, key=tokens.__getitem__)] if tokens else None,
            next_day_us(now_us) - now_us,
        )

    async def take(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        version: int,
        requests_held: int,
        tokens_held: int,
        tokens_wanted: int,
        now_us: int,
    ) -> Allotted | None:
        """A runtime obeys its allotment, or wants more tokens; what it has then.

        What is said of another version than the newest is passed over: it crossed with that.

        Raises:
            NotFound: the agent has no such lease.
        """
        lease = await store.allotment(transaction, lease_id)
        if lease is None or lease.agent_id != agent_id:
            raise NotFound.of("lease", lease_id)
        if not lease.is_open or not lease.acknowledges:
            return await self.allotted(transaction, lease_id, now_us)
        before = lease
        if version == lease.version:
            scopes = scopes_with(lease)
            lease = replace(
                lease,
                requests_held=seats_taken(seats_of(lease, scopes, 0), requests_held=requests_held),
                tokens_held=tokens_taken(tokens_of(lease, scopes), tokens_held=tokens_held),
            )
            await store.save_allotments(transaction, [lease])
        if tokens_wanted > 0 and lease.tokens_told is not None and lease.tokens_held is not None:
            lease = await self._more_tokens(transaction, lease, tokens_wanted, now_us)
        if lease.requests_held != before.requests_held:
            await self.share(transaction, now_us, agent_id=agent_id, silent=lease_id)
        return await self.allotted(transaction, lease_id, now_us)

    async def _more_tokens(
        self, transaction: Transaction, lease: Allotment, wanted: int, now_us: int
    ) -> Allotment:
        scopes = scopes_with(lease)
        limited = token_limits(await store.limits_of(transaction, scopes))
        if not limited:
            return lease
        _, free = await self.reading.free_tokens(transaction, limited, lease.agent_id, now_us)
        more = granted_tokens(min(free.values()), wanted)
        if more == 0:
            return lease
        told = (lease.tokens_told or 0) + more
        held = max(lease.tokens_held or 0, told)
        grown = replace(lease, version=lease.version + 1, tokens_told=told, tokens_held=held)
        await store.save_allotments(transaction, [grown])
        return grown

    async def share(
        self,
        transaction: Transaction,
        now_us: int,
        *,
        agent_id: str | None = None,
        silent: str = "",
    ) -> None:
        """Divide the limits on requests anew, and tell those for whom that changes something.

        Args:
            transaction: of what made it necessary.
            now_us: the time.
            agent_id: whose leases it is about; None: everyone's.
            silent: a lease that is told in an answer, and need not be by itself.
        """
        limited = await self.reading.limited_seats(transaction, agent_id)
        every, seats, _ = await self.reading.seats(transaction, agent_id, limited, now_us)
        shares = share_seats(every, seats)
        rows = await self.reading.rows(transaction, agent_id, limited)
        changed: list[Allotment] = []
        for row in rows:
            share = shares.get(row.lease_id)
            if share is None or not row.is_open:
                continue
            if share != Share(row.requests_told, row.requests_held):
                is_news = share.told != row.requests_told
                changed.append(
                    replace(
                        row,
                        requests_told=share.told,
                        requests_held=share.held,
                        version=row.version + is_news,
                    )
                )
        await self._tell(transaction, rows, changed, now_us, silent=silent)

    async def retell_tokens(
        self, transaction: Transaction, limits: Mapping[str, Limit], now_us: int
    ) -> None:
        """Allot tokens anew after limits on them have changed."""
        limited = token_limits(limits)
        rows = await store.allotments(transaction)
        leases = [tokens_of(row, scopes_with(row), limited) for row in rows if row.is_open]
        used = await self.reading.used_tokens(transaction, None, now_us)
        shares = retell_tokens(limited, used, leases)
        changed = [
            replace(
                row,
                tokens_told=shares[row.lease_id].told,
                tokens_held=shares[row.lease_id].held,
                version=row.version + 1,
            )
            for row in rows
            if row.is_open and shares[row.lease_id] != Share(row.tokens_told, row.tokens_held)
        ]
        await self._tell(transaction, rows, changed, now_us)

    # Usage.

    async def usages_booked(
        self,
        transaction: Transaction,
        now_us: int,
        entries: Sequence[NewEntry],
        last_lsn: int,  # noqa: ARG002 - others need it
    ) -> None:
        """Count what was just booked; the entries of other kinds are passed over."""
        tokens: Counter[str] = Counter()
        cost: Counter[str] = Counter()
        calls: Counter[tuple[str, str]] = Counter()
        of_lease: Counter[str] = Counter()
        for entry in entries:
            if entry.kind != "usage":
                continue
            body, agent_id = entry.body, entry.agent_id
            count = body["input"] + body["output"] + body["cache_read"] + body["cache_write"]
            tokens[agent_id] += count
            cost[agent_id] += body["cost"]
            calls[entry.subject, agent_id] += 1
            of_lease[entry.subject] += count
        requests: Counter[str] = Counter()
        for (_, agent_id), count in calls.items():
            requests[agent_id] += count
        if not requests:
            return
        uses = [
            Use(
                agent_id,
                self.reading.owner(agent_id),
                self.reading.project(agent_id),
                count,
                tokens[agent_id],
                cost[agent_id],
            )
            for agent_id, count in requests.items()
        ]
        await store.add_uses(transaction, (day_of(now_us), month_of(now_us)), uses)
        await store.add_booked(transaction, [each for each in of_lease.items() if each[1]])
        if self.counts_recent:
            recent = [
                (
                    lease_id,
                    agent_id,
                    self.reading.owner(agent_id),
                    self.reading.project(agent_id),
                    count,
                )
                for (lease_id, agent_id), count in calls.items()
            ]
            await store.add_recent(transaction, now_us // 1_000_000, recent)

    # Telling.

    async def _tell(
        self,
        transaction: Transaction,
        before: Sequence[Allotment],
        changed: Sequence[Allotment],
        now_us: int,
        *,
        silent: str = "",
    ) -> None:
        if not changed:
            return
        await store.save_allotments(transaction, changed)
        versions = {row.lease_id: row.version for row in before}
        entries = [
            NewEntry(
                "limits.allotted",
                {"requests": row.requests_told, "tokens": row.tokens_told},
                row.agent_id,
                row.lease_id,
            )
            for row in changed
            if row.version != versions[row.lease_id] and row.lease_id != silent
        ]
        if entries:
            await append(transaction, now_us, *entries)
