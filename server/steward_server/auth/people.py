"""What other rooms may ask about people."""

from __future__ import annotations

from steward.gateway.v1.options_pb2 import Role
from steward_server.auth import user_store as store
from steward_server.auth.accounts import UserState
from steward_server.auth.sessions import ROLES
from steward_server.db import Reader


class People:
    """Who there is."""

    async def exists(self, reader: Reader, user_id: str) -> bool:
        """Whether there is a user with this id."""
        return await store.user_by_id(reader, user_id) is not None

    async def find(self, reader: Reader, name: str) -> tuple[str, str] | None:
        """Id and user name of whoever has this id or name; None if nobody does."""
        user = await store.user_by_id(reader, name) or await store.user_by_username(reader, name)
        return (user.user_id, user.username) if user else None

    async def role_of(self, reader: Reader, user_id: str) -> Role.ValueType | None:
        """The role of someone who may act now; None if there is no such user, or not any more."""
        user = await store.user_by_id(reader, user_id)
        return ROLES[user.role] if user and user.state is UserState.ACTIVE else None

    async def name_of(self, reader: Reader, user_id: str) -> str:
        """The name a user signs in by; empty if there is no such user."""
        user = await store.user_by_id(reader, user_id)
        return user.username if user else ""

    async def is_sole_administrator(self, reader: Reader, user_id: str) -> bool:
        """Whether no administrator but this user may sign in."""
        return not await store.has_administrator_beside(reader, user_id)
