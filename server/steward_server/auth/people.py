"""What other rooms may ask about people."""

from __future__ import annotations

from steward_server.auth import user_store as store
from steward_server.db import Reader


class People:
    """Who there is."""

    async def exists(self, reader: Reader, user_id: str) -> bool:
        """Whether there is a user with this id."""
        return await store.user_by_id(reader, user_id) is not None
