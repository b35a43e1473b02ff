"""The ends of environments: how one came about, what is kept of it, who waits for it."""

from __future__ import annotations

import asyncio

import structlog

from steward_server.environments.driver import Driver, Exit, Gone, LogRecord
from steward_server.environments.environment import State
from steward_server.environments.signals import signal_name
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

LAST_LINES = 1_000
LAST_LINES_BYTES = 262_144
"""What is kept of the log of an environment that is over."""
LAST_LINES_S = 5.0
"""How long its end waits for that."""


class Ending:
    """The end of one environment, under way."""

    task: asyncio.Task[None]

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """How the first attempt went."""

    def succeed(self) -> None:
        if not self.first.done():
            self.first.set_result(None)

    def fail(self) -> None:
        if not self.first.done():
            refusal = Unavailable(
                "the machine could not be removed yet; that is tried again until it is",
                reason="ENVIRONMENT_NOT_REMOVED",
            )
            self.first.set_exception(refusal)
            self.first.exception()  # seen, also if nobody waits


def outcome(exit_: Exit | None) -> tuple[State, str]:
    """What becomes of one whose main command ended so, and why; None: its machine was lost."""
    if exit_ is None:
        return State.FAILED, "its machine is gone"
    if exit_.signal is not None:
        name = signal_name(exit_.signal)
        return State.FAILED, f"its main command was ended by {name} (exit code {exit_.code})"
    if exit_.code:
        return State.FAILED, f"its main command ended with exit code {exit_.code}"
    return State.TERMINATED, "its main command ended"


async def last_log_of(driver: Driver, name: str) -> list[LogRecord]:
    """What a machine wrote last; less, or nothing, if it does not say."""
    kept: list[LogRecord] = []
    try:
        async with asyncio.timeout(LAST_LINES_S):
            kept.extend([each async for each in driver.logs(name, tail=LAST_LINES)])
    except Exception as error:
        if not isinstance(error, Gone):
            log.exception("environments.last_log_lost", environment_id=name)
    size = 0
    for at in range(len(kept) - 1, -1, -1):
        size += len(kept[at].message) + 32
        if size > LAST_LINES_BYTES:
            return kept[at + 1 :]
    return kept
