"""What the API keys room needs of others."""

from __future__ import annotations

from typing import Protocol

from steward.gateway.v1.options_pb2 import Role
from steward_server.db import Reader


class Owners(Protocol):
    """The part of the auth room that keys depend on."""

    async def role_of(self, reader: Reader, user_id: str) -> Role.ValueType | None:
        """The role of someone who may act now; None if there is no such user, or not any more."""
        ...
