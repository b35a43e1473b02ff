"""Takes events of LLM calls from runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steward_server.analytics import store
from steward_server.analytics.needs import Agents, Ledger
from steward_server.analytics.periods import HOUR_US
from steward_server.analytics.store import Fresh, ToldCall
from steward_server.analytics.telling import FAILED, Told, faults_of
from steward_server.db import Database, Transaction
from steward_server.ids import new_id

MAX_EVENTS = 1_000
AT_ONCE = 200
"""Written in one transaction: nothing else runs meanwhile."""


@dataclass(slots=True)
class Ingested:
    """What became of events."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """The place of each that was refused, and what was wrong, by field."""


@dataclass(frozen=True, slots=True)
class Ingestion:
    """Writes down what runtimes tell, once."""

    database: Database
    agents: Agents
    ledger: Ledger
    clock: Callable[[], int]

    async def ingest(self, agent_id: str, events: Sequence[Told]) -> Ingested:
        """Take events of one agent; returns once that is durable.

        Raises:
            NotFound: the agent was deleted.
        """
        done = Ingested()
        for first in range(0, len(events), AT_ONCE):
            part = events[first : first + AT_ONCE]

            async def work(
                transaction: Transaction, part: Sequence[Told] = part, first: int = first
            ) -> Ingested:
                return await self._write(transaction, agent_id, part, first)

            more = await self.database.run(work)
            done.accepted += more.accepted
            done.duplicates += more.duplicates
            done.rejected += more.rejected
        return done

    async def _write(
        self, transaction: Transaction, agent_id: str, events: Sequence[Told], first: int
    ) -> Ingested:
        now_us = self.clock()
        agent = await self.agents.record(transaction, agent_id)
        done, sound = Ingested(), dict[int, Told]()
        for index, told in enumerate(events, first):
            faults = faults_of(told, known_since_us=agent.created_at_us, now_us=now_us)
            if faults:
                done.rejected.append((index, faults))
            else:
                sound[index] = told
        if not sound:
            return done
        ids = [told.event_id for told in sound.values()]
        known = await store.digests(transaction, agent_id, ids)
        booked = await self.ledger.booked(
            transaction, agent_id, [(told.event_id, told.at_us or 0) for told in sound.values()]
        )
        new: list[ToldCall] = []
        for index, told in sound.items():
            first_digest = known.get(told.event_id)
            if told.event_id in booked or first_digest == told.digest:
                done.duplicates += 1
            elif first_digest is not None:
                text = f"is {told.event_id!r}, which another event has; choose a new one"
                done.rejected.append((index, {"event_id": text}))
            else:
                known[told.event_id] = told.digest
                new.append(_call(agent_id, told, now_us))
        if new:
            await store.insert_told(transaction, agent_id, new)
            await store.add_fresh(
                transaction, [Fresh(call.at_us // HOUR_US, call.key, call.sums) for call in new]
            )
        done.accepted = len(new)
        done.rejected.sort(key=lambda rejection: rejection[0])
        return done


def _call(agent_id: str, told: Told, now_us: int) -> ToldCall:
    ended_at_us = told.at_us or 0
    return ToldCall(
        trace_id=new_id("trace"),
        agent_id=agent_id,
        event_id=told.event_id,
        digest=told.digest,
        is_failed=told.event_type == FAILED,
        # A clock that runs ahead must not hide a call until it is caught up with.
        at_us=min(ended_at_us, now_us),
        ended_at_us=ended_at_us,
        provider=told.provider,
        model=told.model,
        input_tokens=told.input_tokens,
        output_tokens=told.output_tokens,
        claimed_cost_nanousd=told.cost_nanousd,
        error_code=told.error_code,
        error_message=told.error_message,
        duration_ms=told.duration_ms,
    )
