"""The server's side of inside.py: asks for a process that goes into a container."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import suppress

from steward_server.environments.container.reach import Reach
from steward_server.environments.driver import Gone
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.launching import program

_ATTEMPTS = 2


class Door:
    """Starts the process that goes in when it is first needed, and again if it has been killed."""

    def __init__(self) -> None:
        self._way: Channel | None = None
        self._pid = 0
        self._starting = asyncio.Lock()

    async def go_in(self, reach: Reach) -> Channel:
        """A connection to a process in a container, which works on the first thing asked.

        Raises:
            Gone: the container has ended.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # Our own: while this waits the container may end, and its number be another one's.
        pidfd = os.dup(reach.pidfd)
        try:
            request = {"own_users": reach.has_own_users}
            for attempt in range(_ATTEMPTS):
                async with self._starting:
                    if self._way is None:
                        self._way = await asyncio.to_thread(self._start)
                    way = self._way
                try:
                    await way.send(request, [pidfd, theirs.fileno()])
                except Gone:
                    self.close()
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                return Channel(ours)
        except OSError as error:
            ours.close()
            raise Gone(f"the container has ended: {error}") from None
        except BaseException:
            ours.close()
            raise
        finally:
            os.close(pidfd)
            theirs.close()
        raise AssertionError("not reached")

    def close(self) -> None:
        """Let it end."""
        if self._way is not None:
            self._way.close()
            self._way = None
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)

    def _start(self) -> Channel:
        read = program("steward_server.environments.container.inside", 3)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-"],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, each, number)
                    for number, each in enumerate((read, nothing, nothing, theirs.fileno()))
                ],
                setsid=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in (read, nothing):
                os.close(fd)
        return Channel(ours)
