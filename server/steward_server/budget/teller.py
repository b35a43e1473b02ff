"""Takes reports from every door and books together what has gathered.

While one commit is on its way to the disk, what is reported meanwhile waits for the next: a busy
server books hundreds of usages with the statements of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from steward_server.budget.bookings import Answer, Batch, book
from steward_server.budget.needs import Listener
from steward_server.budget.values import LeasePolicy
from steward_server.db import Database, Transaction
from steward_server.errors import NotFound, StewardError

MAX_USAGES = 256
"""Booked at once, or one batch that has more: nothing else runs meanwhile."""

Answers = list[Answer | NotFound]
_Waiting = tuple[Sequence[Batch], "asyncio.Future[Answers]"]


class Agents(Protocol):
    """The part of the agents room that a teller needs."""

    async def mark_seen(self, transaction: Transaction, *, agent_id: str, now_us: int) -> None:
        """Note that a runtime of the agent was heard."""
        ...


class Teller:
    """Books usages. Its methods belong to one event loop."""

    def __init__(
        self,
        database: Database,
        agents: Agents,
        policy: LeasePolicy,
        clock: Callable[[], int],
        listeners: Sequence[Listener] = (),
    ) -> None:
        self._listeners = listeners
        self._database = database
        self._agents = agents
        self._policy = policy
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._turns: set[asyncio.Task[None]] = set()
        self._is_called = False

    async def book(self, batches: Sequence[Batch]) -> Answers:
        """Book batches in order; returns once that is durable.

        NotFound is the answer to a batch whose agent has no such lease. What is handed in is
        booked even if its caller leaves.

        Raises:
            Unavailable: the commit failed; nothing was changed.
        """
        future: asyncio.Future[Answers] = self._loop.create_future()
        self._waiting.append((batches, future))
        if not self._is_called:
            self._call()
        return await future

    def _call(self) -> None:
        self._is_called = True
        turn = self._loop.create_task(self._take_turn())
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def _take_turn(self) -> None:
        """Book what waits at the moment the database is free for it."""
        taken: list[_Waiting] = []

        async def work(transaction: Transaction) -> Answers:
            count = sum(_usages_in(waiting) for waiting in taken)
            while self._waiting and (
                not taken or count + _usages_in(self._waiting[0]) <= MAX_USAGES
            ):
                taken.append(self._waiting.popleft())
                count += _usages_in(taken[-1])
            self._is_called = False
            if self._waiting:
                self._call()
            return await self._book(transaction, [each for batches, _ in taken for each in batches])

        try:
            answers = iter(await self._database.run(work))
        except Exception as error:  # noqa: BLE001 - handed to those who wait, or looked into
            await self._one_by_one(taken or self._all_waiting(), error)
            return
        for batches, future in taken:
            _settle(future, [next(answers) for _ in batches])

    def _all_waiting(self) -> list[_Waiting]:
        """Of a turn that never came: nobody is left waiting for it."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._is_called = False
        return waiting

    async def _one_by_one(self, taken: list[_Waiting], error: Exception) -> None:
        """What failed together is tried alone: one fault must not take others with it."""
        is_alone = len(taken) == 1 or isinstance(error, StewardError)
        for batches, future in taken:
            if is_alone:
                _settle(future, error)
                continue
            try:
                answers = await self._database.run(partial(self._book, batches=batches))
            except Exception as fault:  # noqa: BLE001 - handed to who waits
                _settle(future, fault)
            else:
                _settle(future, answers)

    async def _book(self, transaction: Transaction, batches: Sequence[Batch]) -> Answers:
        now_us = self._clock()
        answers = await book(
            transaction,
            batches,
            policy=self._policy,
            now_us=now_us,
            listeners=self._listeners,
        )
        for agent_id in {batch.agent_id for batch in batches}:
            await self._agents.mark_seen(transaction, agent_id=agent_id, now_us=now_us)
        return answers


def _usages_in(waiting: _Waiting) -> int:
    return sum(batch.usage_count for batch in waiting[0])


def _settle(future: asyncio.Future[Answers], answer: Answers | Exception) -> None:
    if future.done():  # its caller has left
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
