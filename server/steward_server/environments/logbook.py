"""The logs of environments: read, or followed; of one that is over, what it wrote last."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from steward_server.db import Database
from steward_server.environments import store
from steward_server.environments.counting import Counts
from steward_server.environments.driver import Gone, LogRecord
from steward_server.environments.environment import Environment, State
from steward_server.environments.gathering import MOST_TOGETHER, gathered
from steward_server.environments.room import EnvironmentRoom
from steward_server.permissions import Permission
from steward_server.principals import Principal

MAX_ANSWER_BYTES = 3 * 1024 * 1024
"""Of the lines in one answer: below the 4 MiB a message may have."""
MAX_FOLLOWED = 500
"""Logs that one caller follows at a time: as many as there are environments by default."""
LINE_COST_BYTES = 64
"""What a line costs in a message beside its text."""
PENDING_POLL_S = 0.01
"""After how long it is looked what became of one that was made."""
FIRST_POLL_S, LONGEST_POLL_S = 0.1, 5.0
"""How often it is looked whether one whose machine cannot be read has ended."""


@dataclass(frozen=True, slots=True)
class Page:
    """The newest lines, as many as go into an answer."""

    records: list[LogRecord]
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class End:
    """Why there are no more lines."""

    reason: str
    state: State | None
    """None: it was deleted."""


class Logbook:
    """Reads logs."""

    def __init__(self, database: Database, room: EnvironmentRoom) -> None:
        self._database = database
        self._room = room
        self._driver = room.keeper.driver
        self._followed = Counts("TOO_MANY_LOGS")

    def following(self, caller: Principal) -> AbstractContextManager[None]:
        """Say for the block that the caller follows one more log.

        Raises:
            ResourceExhausted: TOO_MANY_LOGS.
        """
        told = f"you follow {MAX_FOLLOWED} logs"
        return self._followed.one_more(caller.subject, MAX_FOLLOWED, told)

    async def page(
        self, caller: Principal, environment_id: str, *, after: int, tail: int | None
    ) -> Page:
        """The last lines there are.

        Raises:
            NotFound: there is no such environment that the caller may read.
        """
        found = await self._room.find(caller, environment_id, Permission.READ)
        kept: deque[LogRecord] = deque()
        size, is_truncated = 0, False
        async for record in self._recorded(found.environment, after=after, tail=tail):
            kept.append(record)
            size += _cost(record)
            while size > MAX_ANSWER_BYTES:
                size -= _cost(kept.popleft())
                is_truncated = True
        return Page(_numbered(kept, found.environment), is_truncated)

    async def follow(
        self, caller: Principal, environment_id: str, *, after: int, tail: int | None
    ) -> AsyncGenerator[Sequence[LogRecord] | End, None]:
        """The last lines, then more as they are written, then why there are no more.

        Lines come together as far as they are there at the same time.

        Raises:
            NotFound: there is no such environment that the caller may read.
        """
        await self._room.find(caller, environment_id, Permission.READ)
        last, poll_s = after, FIRST_POLL_S
        while True:
            stored = await store.find(self._database, environment_id)
            if stored is None:
                yield End("it was deleted", None)
                return
            environment = stored.environment
            if environment.state.is_over:
                records = await self._left(environment, last, tail)
                for at in range(0, len(records), MOST_TOGETHER):
                    yield _numbered(records[at : at + MOST_TOGETHER], environment)
                yield End(environment.reason, environment.state)
                return
            if environment.state is State.PENDING:
                # If it has a machine, that is one that is being replaced.
                await self._room.keeper.made(environment_id)
                await asyncio.sleep(PENDING_POLL_S)
                continue
            with suppress(Gone):
                own = await self._own(environment, last)
                lines = self._driver.logs(environment_id, after=own, tail=tail, follow=True)
                async with aclosing(gathered(cast("Any", lines), _cost)) as groups:
                    async for group in groups:
                        records = _numbered(group, environment)
                        last, tail = records[-1].sequence, None
                        yield records
            # Its machine is gone, and its row says why in a moment; or the driver cannot reach it.
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, LONGEST_POLL_S)

    async def _recorded(
        self, environment: Environment, *, after: int, tail: int | None
    ) -> AsyncIterator[LogRecord]:
        """What there is, as its machine numbered it."""
        if environment.state is State.PENDING:
            return  # if it has a machine, that is one that is being replaced
        try:
            own = await self._own(environment, after)
            async for record in self._driver.logs(environment.environment_id, after=own, tail=tail):
                yield record
        except Gone:
            for record in await self._left(environment, after, tail):
                yield record

    async def _own(self, environment: Environment, after: int) -> int:
        """A number as the machine counts.

        One of an earlier machine, or beyond what this one has written, is of a log that is no more:
        then all there is comes after it.

        Raises:
            Gone: there is no machine.
        """
        own = max(0, after - environment.log_start)
        if not own:
            return 0
        last = self._driver.logs(environment.environment_id, tail=1)
        newest = [each.sequence async for each in last]
        return own if newest and own <= newest[-1] else 0

    async def _left(
        self, environment: Environment, after: int, tail: int | None
    ) -> list[LogRecord]:
        """The last lines of one that is over, as its machine numbered them."""
        records = await store.last_log(self._database, environment.environment_id)
        return _cut(records, after - environment.log_start, tail)


def _numbered(records: Iterable[LogRecord], environment: Environment) -> list[LogRecord]:
    """Lines of its machine, as they are numbered outside: later ones always higher."""
    base = environment.log_start
    if not base:
        return list(records)
    return [replace(each, sequence=base + each.sequence) for each in records]


def _cut(records: list[LogRecord], after: int, tail: int | None) -> list[LogRecord]:
    later = [record for record in records if record.sequence > after]
    return later if tail is None else later[len(later) - min(tail, len(later)) :]


def _cost(record: LogRecord) -> int:
    return len(record.message.encode()) + LINE_COST_BYTES
