"""What the work in files and to ports needs of a machine, whichever driver has made it."""

from __future__ import annotations

from typing import Protocol

from steward_server.environments.sandbox.channel import Channel


class Worker(Protocol):
    """As whom the work is done inside."""

    @property
    def user(self) -> int: ...
    @property
    def group(self) -> int: ...


class Worked(Protocol):
    """A machine that lets somebody in."""

    @property
    def name(self) -> str: ...
    @property
    def is_alive(self) -> bool: ...
    @property
    def record(self) -> Worker: ...

    async def connect(self) -> Channel:
        """A connection to a process inside; see `inside.file_work`.

        Raises:
            Gone: the machine has ended.
            Unusable: reason PAUSED.
        """
        ...
