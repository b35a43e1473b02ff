"""Terminals: shells that people are attached to, and that wait a while for those who come back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from steward_server.completion import complete
from steward_server.environments.commands import Commands
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Command, Exit, Running, Stream
from steward_server.environments.locks import Locks
from steward_server.environments.output import without_beginning
from steward_server.environments.uses import Uses
from steward_server.errors import (
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from steward_server.principals import Principal

log = structlog.get_logger(__name__)

SCROLLBACK_BYTES = 65_536
"""What whoever comes back is shown again."""
UNREAD_BYTES = 262_144
"""What may wait for a reader who is behind; then what runs in the terminal waits."""

SHELL = ("/bin/sh",)

Piece = tuple[Stream, bytes]


class Viewer:
    """Somebody attached to a terminal."""

    def __init__(self) -> None:
        self._waiting: deque[Piece] = deque()
        self._waiting_bytes = 0
        self._end: Exit | Exception | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def next(self) -> Piece | Exit:
        """What was written next, or how the terminal ended.

        Raises:
            FailedPrecondition: TERMINAL_TAKEN, somebody else is attached to it now.
        """
        while not self._waiting and self._end is None:
            self._changed.clear()
            await self._changed.wait()
        if self._waiting:
            piece = self._waiting.popleft()
            self._waiting_bytes -= len(piece[1])
            if self._waiting_bytes <= UNREAD_BYTES:
                self._room.set()
            return piece
        assert self._end is not None  # noqa: S101 - what was waited for
        if isinstance(self._end, Exception):
            raise self._end
        return self._end

    def give(self, piece: Piece) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece[1])
        if self._waiting_bytes > UNREAD_BYTES and self._end is None:
            self._room.clear()
        self._changed.set()

    def end(self, how: Exit | Exception) -> None:
        self._end = how
        self._changed.set()
        self._room.set()

    async def room(self) -> None:
        """Wait until there is room for more."""
        await self._room.wait()


class Terminal:
    """One command behind a terminal, with who looks at it."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.viewer: Viewer | None = None
        self.ended: Exit | Exception | None = None
        """How it ended; None: it goes on."""
        self.waits: asyncio.TimerHandle | None = None
        """Ends it, if nobody comes back."""
        self._scrollback: deque[Piece] = deque()
        self._scrollback_bytes = 0
        self.pump = asyncio.create_task(self._read())

    def attach(self, viewer: Viewer) -> None:
        """Show it to somebody, in place of who looked at it before."""
        if self.waits is not None:
            self.waits.cancel()
            self.waits = None
        if self.viewer is not None:
            self.viewer.end(
                FailedPrecondition(
                    "the terminal was taken over by another connection",
                    reason="TERMINAL_TAKEN",
                )
            )
        self.viewer = viewer
        for piece in self._scrollback:
            viewer.give(piece)
        if self.ended is not None:
            viewer.end(self.ended)

    def detach(self, viewer: Viewer) -> bool:
        """Whoever looked at it has gone; whether nobody does now."""
        viewer.end(FailedPrecondition("nobody reads any more"))  # lets what waits for room go on
        if self.viewer is viewer:
            self.viewer = None
        return self.viewer is None

    async def _read(self) -> None:
        try:
            self.ended = await self._pass_on()
        except Exception:  # of the driver: nobody is to wait for what does not come
            log.exception("environments.terminal_failed")
            self.ended = Unavailable("the terminal was broken off", reason="TERMINAL_BROKEN")
        if self.viewer is not None:
            self.viewer.end(self.ended)

    async def _pass_on(self) -> Exit:
        while (piece := await self.running.read()) is not None:
            self._keep(piece)
            if (viewer := self.viewer) is not None:
                viewer.give(piece)
                await viewer.room()
        return await self.running.wait()

    def _keep(self, piece: Piece) -> None:
        self._scrollback.append(piece)
        self._scrollback_bytes += len(piece[1])
        while self._scrollback_bytes > SCROLLBACK_BYTES:
            stream, data = self._scrollback.popleft()
            surplus = self._scrollback_bytes - SCROLLBACK_BYTES
            if surplus >= len(data):
                self._scrollback_bytes -= len(data)
                continue
            kept = without_beginning(data[surplus:])
            self._scrollback_bytes -= len(data) - len(kept)
            self._scrollback.appendleft((stream, kept))


@dataclass(frozen=True, slots=True)
class Key:
    """What a terminal is found again by: nobody finds another person's."""

    environment_id: str
    user_id: str
    session: str


class Terminals:
    """The terminals of all environments."""

    def __init__(self, commands: Commands, uses: Uses, config: EnvironmentsConfig) -> None:
        self._commands = commands
        self._uses = uses
        self._config = config
        self._open: dict[Key, Terminal] = {}
        self._opening: list[Key] = []
        self._locks = Locks()
        self._unnamed = 0

    @asynccontextmanager
    async def attached(
        self,
        caller: Principal,
        environment_id: str,
        session: str,
        command: Command,
        *,
        is_there: bool = False,
    ) -> AsyncIterator[tuple[Terminal, Viewer]]:
        """Attach somebody to a terminal for the block: a new one, or the one of this name.

        `is_there` says that only the latter is wanted.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: as `Commands.run`.
            NotFound: TERMINAL_GONE.
            ResourceExhausted: TOO_MANY_TERMINALS.
        """
        await self._commands.may(caller, environment_id)  # who is refused has not used it
        with self._uses.of(environment_id):
            key = self._key(caller, environment_id, session)
            viewer = Viewer()
            async with self._locks.of(str(key)):
                await self._commands.may(caller, environment_id)
                terminal = self._open.get(key)
                if terminal is None:
                    if is_there:
                        raise _gone(environment_id, session)
                    terminal = await self._opened(caller, key, command)
                terminal.attach(viewer)
            try:
                yield terminal, viewer
            finally:
                if terminal.detach(viewer):
                    await self._left(key, terminal)

    async def aclose(self) -> None:
        """End all of them."""
        await asyncio.gather(*(self._close(key) for key in list(self._open)))

    def end_of(self, environment_id: str, user_id: str) -> None:
        """End the terminals somebody has in an environment, since what they may do was changed."""
        for key in list(self._open):
            if (key.environment_id, key.user_id) == (environment_id, user_id):
                self._close_soon(key)

    def end_of_agent(self, agent_id: str) -> None:
        """End the terminals of an agent, since it is to stop."""
        for key in list(self._open):
            if key.user_id == agent_id:
                self._close_soon(key)

    def _key(self, caller: Principal, environment_id: str, session: str) -> Key:
        if not session:
            self._unnamed += 1
            session = f"\0{self._unnamed}"  # no name that anybody can send
        return Key(environment_id, caller.subject, session)

    async def _opened(self, caller: Principal, key: Key, command: Command) -> Terminal:
        environment_id = key.environment_id
        count = sum(each.environment_id == environment_id for each in (*self._open, *self._opening))
        if count >= self._config.max_terminals:
            raise ResourceExhausted(
                f"environment {environment_id!r} has {count} open terminals; at most "
                f"{self._config.max_terminals} are allowed: close one",
                reason="TOO_MANY_TERMINALS",
                facts={"environment_id": environment_id},
            )
        self._opening.append(key)
        try:
            running = await self._commands.start(caller, environment_id, command)
        finally:
            self._opening.remove(key)
        terminal = self._open[key] = Terminal(running)
        try:
            await self._commands.write_down(caller, environment_id, command, "environment.attached")
        except BaseException:
            await complete(self._close(key))
            raise
        return terminal

    async def _left(self, key: Key, terminal: Terminal) -> None:
        grace_s = self._config.attach_grace_s
        if terminal.ended is not None or key.session.startswith("\0") or not grace_s:
            await complete(self._close(key))
            return
        loop = asyncio.get_running_loop()
        terminal.waits = loop.call_later(grace_s, self._give_up, key, terminal)

    def _give_up(self, key: Key, terminal: Terminal) -> None:
        if terminal.viewer is None and self._open.get(key) is terminal:
            self._close_soon(key)

    def _close_soon(self, key: Key) -> None:
        closing = asyncio.ensure_future(complete(self._close(key)))
        closing.add_done_callback(_report)

    async def _close(self, key: Key) -> None:
        terminal = self._open.pop(key, None)
        if terminal is None:
            return
        if terminal.waits is not None:
            terminal.waits.cancel()
        if terminal.viewer is not None:
            terminal.viewer.end(
                FailedPrecondition("the terminal was closed", reason="TERMINAL_CLOSED")
            )
        await terminal.running.aclose()
        terminal.pump.cancel()
        await asyncio.gather(terminal.pump, return_exceptions=True)


def _gone(environment_id: str, session: str) -> NotFound:
    return NotFound(
        f"there is no terminal {session!r} in environment {environment_id!r} any more: what ran in "
        "it has ended, its time is over, or the server was restarted",
        reason="TERMINAL_GONE",
        facts={"environment_id": environment_id},
    )


def _report(task: asyncio.Future[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("environments.terminal_failed", exc_info=error)
