"""What the environments room needs of others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from steward_server.db import Reader


class People(Protocol):
    """The part of the auth room that knows who there is."""

    async def find(self, reader: Reader, name: str) -> tuple[str, str] | None:
        """Id and user name of whoever has this id or name; None if nobody does."""
        ...

    async def name_of(self, reader: Reader, user_id: str) -> str:
        """The name a user signs in by; empty if there is no such user."""
        ...


class Agent(Protocol):
    """What environments need to know of an agent."""

    @property
    def stop_wanted(self) -> bool: ...


class Agents(Protocol):
    """The part of the agents room that knows whose agents are."""

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        ...

    async def record(self, reader: Reader, agent_id: str) -> Agent:
        """The agent.

        Raises:
            NotFound: no such agent.
        """
        ...


class Image(Protocol):
    """What machines are made of, as far as people are shown it."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def created_at_us(self) -> int: ...
    @property
    def command(self) -> tuple[str, ...]: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def is_host(self) -> bool: ...


class Images(Protocol):
    """The catalogue of a driver that keeps its images itself."""

    async def find(self, name: str) -> Image:
        """The image of a name.

        Raises:
            driver.Unusable: UNKNOWN_IMAGE, with a list of those there are; or BAD_IMAGE_NAME.
        """
        ...

    async def list(self) -> Sequence[Image]:
        """Every image, by name."""
        ...

    async def receive(self, content: AsyncIterator[bytes], *, name: str, most_bytes: int) -> Image:
        """Take an image from an archive that comes piece by piece; whole or not at all.

        Raises:
            driver.Unusable: BAD_IMAGE, BAD_IMAGE_NAME, BUILT_IN_IMAGE, IMAGE_TOO_LARGE, DISK_FULL;
                or NOT_SUPPORTED.
        """
        ...

    async def remove(self, name: str) -> None:
        """Remove an image.

        Raises:
            driver.Unusable: UNKNOWN_IMAGE, IMAGE_IN_USE or BUILT_IN_IMAGE.
        """
        ...

    async def clear(self) -> None:
        """Remove what nobody needs any more; once it is known which machines live."""
        ...
