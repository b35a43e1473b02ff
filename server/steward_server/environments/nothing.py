"""The driver of a server that makes no environments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn

from steward_server.environments import host
from steward_server.environments.driver import (
    Capabilities,
    Capacity,
    Files,
    Gone,
    Owned,
    Unusable,
)

WHY = "they are switched off; set STEWARD_ENVIRONMENTS_DRIVER=auto to make them on this machine"


class NoDriver:
    """Makes nothing, and says so."""

    files: Files

    def __init__(self) -> None:
        self.files = self

    def capabilities(self) -> Capabilities:
        return Capabilities("off", "", unusable=WHY)

    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def capacity(self) -> Capacity:
        return await host.capacity()

    async def create(self, environment_id: str, spec: object) -> NoReturn:
        del environment_id, spec
        raise Unusable("OFF", WHY)

    async def list_owned(self) -> Sequence[Owned]:
        return ()

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[Any]:
        del after, tail, follow
        raise Gone(environment_id)
        yield

    def __getattr__(self, name: str) -> Any:
        async def gone(environment_id: str, *_: object, **__: object) -> NoReturn:
            raise Gone(environment_id)

        return gone
