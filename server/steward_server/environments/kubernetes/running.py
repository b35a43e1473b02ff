"""A command that runs in a pod, seen from the server."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import structlog

from steward_server.environments.asked import must_be_runnable
from steward_server.environments.driver import Command, Exit, Stream, Unusable
from steward_server.environments.kubernetes import channels, scripts
from steward_server.environments.kubernetes.channels import Channel, Channels
from steward_server.environments.kubernetes.cluster import Cluster
from steward_server.environments.kubernetes.states import exit_of

log = structlog.get_logger(__name__)

DRAIN_S = 0.2
"""How long after a command's end its output is waited for that children hold open."""
START_TIMEOUT_S = 30.0
MAX_TERMINAL_ORDER_BYTES = 32 * 1024
"""What tells a terminal what to run stands in an address, of which the API takes only so much."""
_QUEUED = 32
_KILLED = Exit(137, 9)
_MAX_RECORD_BYTES = 256
_SIGNAL_PAUSES_S = (0.05, 0.1, 0.2, 0.4)
_END = re.compile("E ([0-9]{1,3})")
_TERMINAL = "xterm-256color"

End = Callable[[str, int, bool], Awaitable[bool]]
"""Sends a signal to all processes that bear a mark; with who runs them if so wished. Whether there
were any."""


class RunningCommand:
    """The cluster's `Running`."""

    def __init__(
        self,
        told: Channels,
        stack: AsyncExitStack,
        command: Command,
        *,
        token: str,
        mark: str,
        end: End,
    ) -> None:
        self._channels = told
        self._stack = stack
        self._command = command
        self._is_terminal = command.tty is not None
        self._mark = mark
        self._end = end
        self._prefix = f"{scripts.RECORD}{token} ".encode()
        self._records = Stream.STDOUT if self._is_terminal else Stream.STDERR
        self._rest = b""
        self._output: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(_QUEUED)
        self._begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._is_closed = False
        self._reading = asyncio.create_task(self._read_all())

    @classmethod
    async def start(
        cls, cluster: Cluster, path: str, command: Command, *, end: End
    ) -> RunningCommand:
        """Run a command, and wait until it does.

        Raises:
            Unusable: reason NO_SUCH_DIRECTORY, NOT_EXECUTABLE, TOO_LONG, NO_SHELL or
                CANNOT_START.
            Refused, Unavailable: as `Cluster.socket`.
        """
        must_be_runnable(command)
        token, mark = secrets.token_hex(8), scripts.MARK_PREFIX + secrets.token_hex(12)
        is_terminal = command.tty is not None
        env = {"TERM": _TERMINAL, **command.env} if is_terminal else command.env
        argv = [scripts.SHELL, "-c", scripts.RUN, mark]

        def order(*, has_frames: bool) -> str:
            return scripts.order(
                command.argv,
                token=token,
                mark=mark,
                env=env,
                working_dir=command.working_dir,
                has_frames=has_frames,
            )

        if is_terminal:
            line = order(has_frames=False)
            if len(line.encode()) > MAX_TERMINAL_ORDER_BYTES:
                raise Unusable(
                    "TOO_LONG",
                    f"a terminal's command and variables are {MAX_TERMINAL_ORDER_BYTES} bytes at "
                    "most; run a shell and type the rest",
                )
            argv.append(line)
        told, stack = await channels.exec_in(
            cluster, path, argv, has_input=True, is_terminal=is_terminal
        )
        running = cls(told, stack, command, token=token, mark=mark, end=end)
        try:
            if command.tty is not None:
                await told.resize(*command.tty)
            else:
                line = order(has_frames=not told.can_close)
                with suppress(ConnectionError):  # why it is gone is read
                    await told.send(Channel.INPUT, line.encode() + b"\n")
            async with asyncio.timeout(START_TIMEOUT_S):
                await running._started()
        except BaseException:
            await asyncio.shield(running.aclose())
            raise
        return running

    async def _started(self) -> None:
        """Wait until the command runs."""
        told = await asyncio.shield(self._begun)
        argv, folder = self._command.argv, self._command.working_dir
        if told == "D":
            raise Unusable("NO_SUCH_DIRECTORY", f"cannot work in {folder!r}: no such directory")
        if told == "X":
            raise Unusable("NOT_EXECUTABLE", f"cannot run {argv[0]!r}: no such program")
        if not told.startswith("R"):
            reason = "NO_SHELL" if scripts.SHELL in told else "CANNOT_START"
            hint = "; commands need /bin/sh in the image" if reason == "NO_SHELL" else ""
            raise Unusable(reason, f"cannot run {argv[0]!r}: {told}{hint}")

    # What comes.

    async def _read_all(self) -> None:
        try:
            await self._read_until_done()
        finally:
            if not self._begun.done():
                self._begun.set_result("the pod has ended, or the connection to it")
            if not self._exit.done():
                self._exit.set_result(_KILLED)
            if self._rest:
                self._output.put_nowait((self._records, self._rest))
            self._output.put_nowait(None)

    async def _read_until_done(self) -> None:
        while True:
            try:
                # Once it has ended, children that hold its output open are not waited for.
                async with asyncio.timeout(DRAIN_S if self._exit.done() else None):
                    message = await self._channels.receive()
            except TimeoutError:
                return
            if message is None:
                return
            channel, data = message
            if channel == Channel.STATUS:
                self._end_of(channels.status(data))
                return
            stream = {Channel.OUTPUT: Stream.STDOUT, Channel.ERROR: Stream.STDERR}.get(
                Channel(channel)
            )
            if stream is self._records:
                data = self._without_records(data)
            if stream is not None and data:
                await self._room.acquire()
                self._output.put_nowait((stream, data))

    def _without_records(self, data: bytes) -> bytes:
        """What the command itself wrote; what may be the beginning of a record is kept back."""
        data, self._rest = self._rest + data, b""
        kept, at = bytearray(), 0
        while (start := data.find(self._prefix, at)) >= 0:
            body = start + len(self._prefix)
            end = data.find(self._prefix[:1], body)
            if end < 0:
                break
            kept += data[at:start]
            self._heard(data[body:end].decode(errors="replace"))
            at = end + 1
        if start < 0:
            begun = data.rfind(self._prefix[:1], max(at, len(data) - len(self._prefix) + 1))
            start = begun if begun >= 0 and self._prefix.startswith(data[begun:]) else len(data)
        elif len(data) - start > _MAX_RECORD_BYTES:  # no record is as long
            start = len(data)
        self._rest = data[start:]
        kept += data[at:start]
        return bytes(kept)

    def _heard(self, record: str) -> None:
        if not self._begun.done():
            self._begun.set_result(record)
        elif (ended := _END.fullmatch(record)) and not self._exit.done():
            self._exit.set_result(exit_of(int(ended[1])))

    def _end_of(self, told: channels.Status) -> None:
        if not self._begun.done():
            self._begun.set_result(told.text or f"it ended with exit code {told.code}")
        if not self._exit.done():
            self._exit.set_result(_KILLED if told.code is None else exit_of(told.code))

    # What is done with it.

    async def read(self) -> tuple[Stream, bytes] | None:
        item = await self._output.get()
        if item is None:
            self._output.put_nowait(None)  # who asks again is told again
        else:
            self._room.release()
        return item

    async def write(self, data: bytes) -> None:
        if not data or self._exit.done():
            return
        framed = not self._is_terminal and not self._channels.can_close
        with suppress(ConnectionError):  # it reads no more
            await self._channels.send(Channel.INPUT, scripts.frame(data) if framed else data)

    async def close_input(self) -> None:
        with suppress(ConnectionError):
            if self._is_terminal:
                await self._channels.send(Channel.INPUT, b"\x04")  # what Ctrl-D types
            elif self._channels.can_close:
                await self._channels.close_input()
            else:
                await self._channels.send(Channel.INPUT, scripts.frame(b""))

    async def resize(self, columns: int, rows: int) -> None:
        if self._is_terminal:
            with suppress(ConnectionError):
                await self._channels.resize(columns, rows)

    async def signal(self, number: int) -> None:
        # A shell has said that the command runs just before that bears the mark.
        for pause_s in _SIGNAL_PAUSES_S:
            if self._exit.done() or self._is_closed:
                return
            if await self._end(self._mark, number, False):
                return
            await asyncio.sleep(pause_s)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        try:
            await self._end(self._mark, 9, True)
            # Killed, it has a last word: what it wrote, and how it ended.
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_S):
                    await asyncio.shield(self._exit)
        except Exception:
            log.exception("kubernetes.command_not_ended")
        finally:
            await self._channels.aclose()
            await self._stack.aclose()
            self._reading.cancel()
            await asyncio.wait({self._reading})
