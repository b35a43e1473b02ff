"""The images of an engine: it keeps them, and they are told by their names there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiodocker.exceptions import DockerError

from steward_server.environments.container.engine import Engine
from steward_server.environments.driver import Unusable
from steward_server.environments.images.image import SNAPSHOTS, canonical

_NOT_FOUND, _CONFLICT = 404, 409
_NAMELESS = "<none>:<none>"


@dataclass(frozen=True, slots=True)
class EngineImage:
    """What a container is made of."""

    name: str
    digest: str
    size_bytes: int
    created_at_us: int
    command: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    """`user`, `user:group` or empty, by name or number."""
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    is_host: bool = False


class EngineImages:
    """The catalogue of an engine. Nothing is ever fetched from a registry."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, name: str) -> EngineImage:
        """The image of a name.

        Raises:
            Unusable: reason UNKNOWN_IMAGE, with a list of those there are; or BAD_IMAGE_NAME.
        """
        wanted = canonical(name)
        try:
            async with self._engine.asked():
                told = await self._engine.docker.images.inspect(wanted)
            # An engine also takes the beginning of an id, of whomever's image that is.
            if wanted.partition("@")[0] in _names_of(told):
                return _image(wanted, told)
        except DockerError as error:
            if error.status != _NOT_FOUND:
                raise
        listed = (each.name for each in await self.list())
        known = ", ".join(name for name in listed if not name.startswith(SNAPSHOTS)) or "none yet"
        raise Unusable(
            "UNKNOWN_IMAGE",
            f"the engine has no image {name!r}; it has {known}. Bring it there first: "
            f"{self._engine.command} pull {wanted}, or {self._engine.command} load -i <archive>",
        )

    async def list(self) -> Sequence[EngineImage]:
        """Every image that has a name, by name."""
        async with self._engine.asked():
            rows = await self._engine.docker.images.list()
        names = {
            canonical(name): row
            for row in rows
            for name in row.get("RepoTags") or ()
            if name != _NAMELESS
        }
        return [
            EngineImage(name, row["Id"], int(row["Size"]), int(row["Created"]) * 1_000_000)
            for name, row in sorted(names.items())
        ]

    async def receive(
        self, content: AsyncIterator[bytes], *, name: str, most_bytes: int
    ) -> EngineImage:
        """Refuse: the engine takes images itself."""
        del content, name, most_bytes
        raise Unusable(
            "NOT_SUPPORTED",
            "the engine takes images itself; bring it there with "
            f"{self._engine.command} load -i <archive>",
        )

    async def remove(self, name: str) -> None:
        """Take an image out of the engine.

        Raises:
            Unusable: reason UNKNOWN_IMAGE, BAD_IMAGE_NAME or IMAGE_IN_USE.
        """
        found = await self.find(name)
        try:
            async with self._engine.asked():
                await self._engine.docker.images.delete(found.name)
        except DockerError as error:
            if error.status == _CONFLICT:
                raise Unusable(
                    "IMAGE_IN_USE", f"the engine does not remove {name!r}: {error.message}"
                ) from None
            raise

    async def clear(self) -> None:
        """Nothing: what nobody needs any more, the engine knows itself."""


def _names_of(told: Mapping[str, Any]) -> set[str]:
    """What an image is called, with its tag, and where it is named by a digest, without one."""
    names = {canonical(name) for name in told.get("RepoTags") or () if name != _NAMELESS}
    digests = told.get("RepoDigests") or ()
    return names | {canonical(name.partition("@")[0]) for name in digests if "<none>" not in name}


def _image(name: str, told: Mapping[str, Any]) -> EngineImage:
    config = told.get("Config") or {}
    pairs = (row.partition("=") for row in config.get("Env") or ())
    return EngineImage(
        name=name,
        digest=told["Id"],
        size_bytes=int(told.get("Size", 0)),
        created_at_us=_microseconds(told.get("Created", "")),
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        working_dir=config.get("WorkingDir") or "",
        user=config.get("User") or "",
        env={key: value for key, _, value in pairs},
    )


def _microseconds(text: str) -> int:
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except ValueError:
        return 0
