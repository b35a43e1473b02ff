"""Connections to and from the ports of environments: whose, how many, and until when."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database
from steward_server.environments.ability import refusal
from steward_server.environments.counting import Counts
from steward_server.environments.driver import Connection, Feature, Gone, Listener, Sink, Unusable
from steward_server.environments.room import EnvironmentRoom
from steward_server.errors import NotFound, Unavailable
from steward_server.principals import Principal

T = TypeVar("T")

MAX_CONNECTIONS = 256
"""Of an environment at a time, both ways together. Each holds a descriptor of this process."""
MAX_OF_CALLER = 128
"""That one caller has into environments: two links' full, and a quarter of what the gateway passes
on by links, so that nobody keeps everybody else's from opening."""
MAX_TAKEN_OVER = 512
"""That one caller has taken over from inside: no gateway passes these on, and a runtime has some
for each of its agents."""
MAX_LISTENERS = 16
"""Of an environment."""
MAX_WAITING = 32
"""Connections of a listener that wait to be taken over; further ones wait inside."""
MAX_WAITING_OF_CALLER = 512
"""The same of all listeners of a caller, which is one environment's full. Further ones are closed
at once, as nobody takes over so many in time."""
ACCEPT_S = 10.0
"""How long one waits; its caller learns of it at once."""
WRITTEN_EVERY_US = 60_000_000
"""How often it is written down that somebody goes on connecting to the same port."""
MAX_REMEMBERED = 10_000
HALF_CLOSED_S = 60.0
"""How long a caller may send nothing once the other side has ended; Linux gives as much."""
MAX_PIECE_BYTES = 262_144
"""Of what is passed on at once: far below what a message may have."""

_FIRST = asyncio.FIRST_COMPLETED


@dataclass(eq=False, slots=True)
class Listening:
    """A port inside that somebody listens on."""

    caller: Principal
    environment_id: str
    over: asyncio.Future[None]
    """Done when its caller has left: then what came by it ends too."""
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    room: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever one waits no more."""

    def is_of(self, caller: Principal) -> bool:
        return (caller.kind, caller.subject) == (self.caller.kind, self.caller.subject)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A connection that waits to be taken over."""

    listening: Listening
    connection: Connection
    timer: asyncio.TimerHandle


class Tunnels:
    """Opens them, and closes them behind their callers."""

    def __init__(
        self,
        database: Database,
        room: EnvironmentRoom,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._room = room
        self._clock = clock
        self._connections = Counts("TOO_MANY_CONNECTIONS")
        self._callers = Counts("TOO_MANY_CONNECTIONS")
        self._taken_over = Counts("TOO_MANY_CONNECTIONS")
        self._listeners = Counts("TOO_MANY_LISTENERS")
        self._waiting: dict[str, _Waiting] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._written: dict[tuple[str, str, int], int] = {}
        """When it was last written down that somebody connected to a port."""

    @asynccontextmanager
    async def connected(
        self, caller: Principal, environment_id: str, port: int
    ) -> AsyncIterator[Connection]:
        """Connect to a port inside, for the block.

        Raises:
            NotFound, PermissionDenied: the caller may not.
            FailedPrecondition: the environment does not run; or PORT_CLOSED, PORT_REFUSED.
            ResourceExhausted: TOO_MANY_CONNECTIONS.
        """
        await self._room.running(caller, environment_id)
        self._room.keeper.ability.must_have(Feature.INGRESS)
        told = f"you have {MAX_OF_CALLER} connections open into environments"
        with (
            self._counted(environment_id),
            self._callers.one_more(caller.subject, MAX_OF_CALLER, told),
        ):
            connection = await self._asked(
                caller, environment_id, self._room.keeper.driver.connect(environment_id, port)
            )
            try:
                await self._write_down_connected(caller, environment_id, port)
                yield connection
            finally:
                await complete(_let_go(connection))

    async def listen(
        self, caller: Principal, environment_id: str, port: int
    ) -> AsyncIterator[int | str]:
        """Listen on a port inside: which it is, and then the id of each connection that came.

        Raises:
            NotFound, PermissionDenied: the caller may not.
            FailedPrecondition: the environment does not run, or ends; or PORT_IN_USE, PORT_REFUSED,
                NOT_SUPPORTED.
            ResourceExhausted: TOO_MANY_LISTENERS.
        """
        await self._room.running(caller, environment_id)
        self._room.keeper.ability.must_have(Feature.TUNNEL)
        told = f"{MAX_LISTENERS} ports of environment {environment_id!r} are listened on"
        with self._listeners.one_more(
            environment_id, MAX_LISTENERS, told, environment_id=environment_id
        ):
            over = asyncio.get_running_loop().create_future()
            listening = Listening(caller, environment_id, over)
            listener: Listener | None = None
            try:
                listener = await self._asked(
                    caller, environment_id, self._room.keeper.driver.listen(environment_id, port)
                )
                await self._write_down(
                    caller, environment_id, "environment.port_listened", listener.port
                )
                yield listener.port
                async for connection in listener:
                    if self._waiting_of(caller) >= MAX_WAITING_OF_CALLER:
                        await complete(_let_go(connection))
                        continue
                    yield self._offer(listening, connection)
                    while len(listening.waiting) >= MAX_WAITING:
                        listening.room.clear()
                        await listening.room.wait()
            finally:
                await complete(self._end(listening, listener))
        raise await self._room.gone(caller, environment_id)

    @asynccontextmanager
    async def accepted(
        self, caller: Principal, connection_id: str
    ) -> AsyncIterator[tuple[Connection, Listening]]:
        """Take a connection over that a listener told the same caller of, for the block.

        Raises:
            NotFound: CONNECTION_NOT_FOUND, it waits no more, or for somebody else.
            PermissionDenied, FailedPrecondition, ResourceExhausted: as `connected`.
        """
        found = self._waiting.get(connection_id)
        if found is None or not found.listening.is_of(caller):
            raise NotFound.of("connection", connection_id)
        environment_id = found.listening.environment_id
        await self._room.running(caller, environment_id)
        told = f"you have taken over {MAX_TAKEN_OVER} connections from environments"
        with (
            self._counted(environment_id),
            self._taken_over.one_more(caller.subject, MAX_TAKEN_OVER, told),
        ):
            if self._take(connection_id) is None:  # its time is over, or somebody was faster
                raise NotFound.of("connection", connection_id)
            try:
                yield found.connection, found.listening
            finally:
                await complete(_let_go(found.connection))

    def _waiting_of(self, caller: Principal) -> int:
        """How many connections wait for the same caller, by whichever listener."""
        return sum(each.listening.is_of(caller) for each in self._waiting.values())

    def _offer(self, listening: Listening, connection: Connection) -> str:
        """Let a connection wait to be taken over; by what id."""
        connection_id = secrets.token_hex(16)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(ACCEPT_S, self._expire, connection_id)
        found = _Waiting(listening, connection, timer)
        listening.waiting[connection_id] = self._waiting[connection_id] = found
        return connection_id

    def _take(self, connection_id: str) -> _Waiting | None:
        """Let it wait no more; None if it did not."""
        found = self._waiting.pop(connection_id, None)
        if found is not None:
            found.timer.cancel()
            del found.listening.waiting[connection_id]
            found.listening.room.set()
        return found

    def _expire(self, connection_id: str) -> None:
        found = self._take(connection_id)
        if found is not None:
            task = asyncio.create_task(_let_go(found.connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _end(self, listening: Listening, listener: Listener | None) -> None:
        listening.over.set_result(None)
        if listener is not None:
            await listener.aclose()
        for connection_id in list(listening.waiting):
            found = self._take(connection_id)
            if found is not None:
                await _let_go(found.connection)

    @contextmanager
    def _counted(self, environment_id: str) -> Iterator[None]:
        """Say for the block that an environment is used by one more connection."""
        told = f"environment {environment_id!r} has {MAX_CONNECTIONS} connections open"
        with (
            self._connections.one_more(
                environment_id, MAX_CONNECTIONS, told, environment_id=environment_id
            ),
            self._room.uses.of(environment_id),
        ):
            yield

    async def _asked(self, caller: Principal, environment_id: str, work: Awaitable[T]) -> T:
        """What the driver gives, what it refuses as callers are told of it."""
        try:
            return await work
        except Gone:
            raise await self._room.gone(caller, environment_id) from None
        except Unusable as error:
            raise refusal(error, environment_id) from None

    async def _write_down_connected(
        self, caller: Principal, environment_id: str, port: int
    ) -> None:
        """Record who connects to a port, once in a while: a page may take dozens of connections."""
        key, now_us = (caller.subject, environment_id, port), self._clock()
        if now_us - self._written.get(key, 0) < WRITTEN_EVERY_US:
            return
        if len(self._written) >= MAX_REMEMBERED:
            self._written.clear()
        self._written[key] = now_us
        try:
            await self._write_down(caller, environment_id, "environment.port_connected", port)
        except Exception:
            self._written.pop(key, None)  # the next one is written down instead
            raise

    async def _write_down(
        self, caller: Principal, environment_id: str, action: str, port: int
    ) -> None:
        now_us, change = self._clock(), Change(action, environment_id, after={"port": port})
        await complete(
            self._database.run(lambda transaction: record(transaction, now_us, caller, change))
        )


async def relayed(
    connection: Connection,
    incoming: AsyncIterator[bytes],
    over: asyncio.Future[None] | None = None,
) -> AsyncIterator[bytes]:
    """Pass on what `incoming` has, and give what comes; ends when both have ended.

    That nothing more comes is told by an empty piece. What `incoming` raises is raised here.

    Raises:
        Unavailable: CONNECTION_RESET, it was broken off; CONNECTION_IDLE, nothing more comes and
            `incoming` has nothing for long, but no end; LISTENER_ENDED, `over` is done.
    """
    reader, sink = connection
    passed_count = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal passed_count
        async for data in incoming:
            yield data
            passed_count += 1

    feeding = asyncio.create_task(_feed(sink, counted()))
    try:
        while True:
            data = await _next(reader, feeding, over)
            for at in range(0, len(data), MAX_PIECE_BYTES):
                yield data[at : at + MAX_PIECE_BYTES]
            if not data:
                break
        yield b""
        while not feeding.done():
            before = passed_count
            waited_for = {feeding, *([over] if over else [])}
            done, _ = await asyncio.wait(waited_for, timeout=HALF_CLOSED_S, return_when=_FIRST)
            _look(feeding, over)
            if not done and passed_count == before:
                raise Unavailable(
                    f"the other side has ended, and nothing was sent for {HALF_CLOSED_S:g} s",
                    reason="CONNECTION_IDLE",
                )
        _look(feeding, over)
    except ConnectionError:
        raise Unavailable("the connection was broken off", reason="CONNECTION_RESET") from None
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _next(
    reader: AsyncIterator[bytes], feeding: asyncio.Task[None], over: asyncio.Future[None] | None
) -> bytes:
    """What comes next; empty at its end."""
    pending = asyncio.ensure_future(cast("Any", anext(reader, b"")))
    try:
        while not pending.done():
            others = {feeding} if not feeding.done() else set[asyncio.Future[None]]()
            await asyncio.wait({pending, *others, *([over] if over else [])}, return_when=_FIRST)
            _look(feeding, over)
        return cast("bytes", pending.result())
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)


def _look(feeding: asyncio.Task[None], over: asyncio.Future[None] | None) -> None:
    if over is not None and over.done():
        raise Unavailable("whoever listened for it has left", reason="LISTENER_ENDED")
    if feeding.done() and (fault := feeding.exception()) is not None:
        raise fault


async def _feed(sink: Sink, incoming: AsyncIterator[bytes]) -> None:
    async for data in incoming:
        try:
            await sink.write(data)
        except ConnectionError:  # nobody reads that any more; what they wrote may still come
            return
    await sink.close()


async def _let_go(connection: Connection) -> None:
    reader, sink = connection
    with suppress(ConnectionError):
        await cast("Any", reader).aclose()
    with suppress(ConnectionError):
        await sink.close()
