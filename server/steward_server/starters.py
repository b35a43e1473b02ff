"""As whom the steps of runs act: as whoever started the run, with the rights they have now."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from steward.gateway.v1.options_pb2 import ROLE_EXECUTOR, Role
from steward_server.db import Database, Reader
from steward_server.errors import PermissionDenied
from steward_server.principals import Kind, Principal


class People(Protocol):
    """The part of the auth room that knows what people may."""

    async def role_of(self, reader: Reader, user_id: str) -> Role.ValueType | None:
        """The role of someone who may act now; None if there is no such user, or not any more."""
        ...


class Credentials(Protocol):
    """A room that knows whom its credentials stand for."""

    async def principal_of(self, name: str, /) -> Principal:
        """Whom a credential stands for that was presented earlier.

        Raises:
            StewardError: it is good for nothing any more.
        """
        ...


class Starters:
    """Knows who started runs."""

    def __init__(
        self, database: Database, people: People, keys: Credentials, tokens: Credentials
    ) -> None:
        self._database = database
        self._people = people
        self._keys = keys
        self._tokens = tokens

    async def principal(self, owner_id: str, agent_id: str, credential: str) -> Principal:
        """Whoever started a run.

        A key that may only start runs does so for its owner: their steps have the owner's role.
        What else it is limited to holds for them too.

        Raises:
            StewardError: they may do nothing any more.
        """
        if agent_id:
            return await self._tokens.principal_of(credential)
        role = await self._people.role_of(self._database, owner_id)
        if role is None:
            raise PermissionDenied("whoever owns this run may not act any more")
        if not credential:
            return Principal(Kind.PERSON, owner_id, role=role)
        key = await self._keys.principal_of(credential)
        return replace(key, role=role) if key.role == ROLE_EXECUTOR else key
