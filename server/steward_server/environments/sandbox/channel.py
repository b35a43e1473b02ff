"""A connection to a launcher or a supervisor, from the server's event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

from steward_server.environments.driver import Gone
from steward_server.environments.sandbox.inside import packets
from steward_server.environments.sandbox.inside.packets import Message

_BUSY_S = 0.002
_BUSY_ATTEMPTS = 500


class Channel:
    """Messages with descriptors, one side of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    async def connect(cls, path: Path) -> Channel:
        """Connect to a named socket.

        Raises:
            Gone: nobody serves it.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            with _Short(path) as short:
                for _ in range(_BUSY_ATTEMPTS):
                    try:
                        sock.connect(short)
                        return cls(sock)
                    except BlockingIOError:  # its queue is full for the moment
                        await asyncio.sleep(_BUSY_S)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        except BaseException:
            sock.close()
            raise
        sock.close()
        raise Gone(f"nobody serves {path.name}")

    async def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message; the descriptors stay the caller's to close.

        Raises:
            Gone: the other side is no more.
        """
        while True:
            try:
                packets.send(self._socket, message, fds)
            except BlockingIOError:
                await writable(self._socket.fileno())
                continue
            except OSError as error:
                raise Gone(str(error)) from None
            return

    async def receive(self) -> tuple[Message, list[int]]:
        """The next message, with descriptors that are now the caller's.

        Raises:
            Gone: the other side is no more.
        """
        while True:
            try:
                # Read on the event loop, which an attacker's 32 MiB would hold up for seconds.
                received = packets.receive(self._socket, most_bytes=packets.MOST_ANSWER_BYTES)
            except BlockingIOError:
                await readable(self._socket.fileno())
                continue
            except OSError as error:
                raise Gone(str(error)) from None
            if received is None:
                raise Gone("the other side has hung up")
            return received

    async def ask(self, message: Message, fds: Sequence[int] = ()) -> tuple[Message, list[int]]:
        """Send a message and wait for what is said to it."""
        await self.send(message, fds)
        return await self.receive()

    def close(self) -> None:
        self._socket.close()


async def readable(fd: int) -> None:
    """Wait until there is something to read, or the end."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Wait until there is room to write, or nobody reads any more."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def listen(path: Path) -> socket.socket:
    """Serve a named socket, which may not exist yet."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _Short(path) as short:
            sock.bind(short)
        path.chmod(0o600)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


class _Short:
    """A short way to a path: an address of a socket has room for 107 bytes only."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
