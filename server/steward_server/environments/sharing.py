"""Who else may use an environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.environments import share_store
from steward_server.environments.journal import write_down
from steward_server.environments.needs import People
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.share_store import Share
from steward_server.errors import InvalidArgument, NotFound
from steward_server.permissions import Permission
from steward_server.principals import Principal


@dataclass(frozen=True, slots=True)
class NamedShare:
    """A share, with the name people know its user by."""

    share: Share
    username: str


class Sharing:
    """Gives rights to environments, and takes them away."""

    def __init__(
        self,
        database: Database,
        room: EnvironmentRoom,
        people: People,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._room = room
        self._people = people
        self._clock = clock

    async def share(
        self, caller: Principal, environment_id: str, user: str, permission: Permission
    ) -> NamedShare:
        """Let somebody use an environment, in place of what they might before.

        Raises:
            NotFound, PermissionDenied: as `find`; or there is no such user.
            InvalidArgument: they own it.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> NamedShare:
            found = await self._room.find(caller, environment_id, Permission.ADMIN, transaction)
            user_id, username = await self._user(transaction, user)
            if user_id == found.environment.owner_id:
                raise InvalidArgument.of({"user": f"is {user!r}, who owns the environment"})
            before = await share_store.shared_with(transaction, environment_id, user_id)
            share = Share(environment_id, user_id, permission, now_us)
            await share_store.save_share(transaction, share)
            await write_down(
                transaction,
                now_us,
                "environment.shared",
                found.environment,
                caller,
                before={"user_id": user_id, "permission": before.word} if before else None,
                after={"user_id": user_id, "permission": permission.word},
                facts={"user_id": user_id, "permission": permission.word},
            )
            return NamedShare(share, username)

        async def share_and_end() -> NamedShare:
            named = await self._database.run(work)
            self._room.uses.end_streams(environment_id, named.share.user_id)
            return named

        return await complete(share_and_end())

    async def unshare(self, caller: Principal, environment_id: str, user: str) -> None:
        """Take it away from somebody.

        Raises:
            NotFound, PermissionDenied: as `find`; or it is not shared with them.
        """
        now_us = self._clock()

        async def work(transaction: Transaction) -> str:
            found = await self._room.find(caller, environment_id, Permission.ADMIN, transaction)
            user_id, _ = await self._user(transaction, user)
            before = await share_store.shared_with(transaction, environment_id, user_id)
            if before is None:
                raise NotFound.of("share", user)
            await share_store.delete_share(transaction, environment_id, user_id)
            await write_down(
                transaction,
                now_us,
                "environment.unshared",
                found.environment,
                caller,
                before={"user_id": user_id, "permission": before.word},
                facts={"user_id": user_id},
            )
            return user_id

        async def unshare_and_end() -> None:
            self._room.uses.end_streams(environment_id, await self._database.run(work))

        await complete(unshare_and_end())

    async def shares(self, caller: Principal, environment_id: str) -> list[NamedShare]:
        """Who may use it beside its owner.

        Raises:
            NotFound, PermissionDenied: as `find`.
        """
        await self._room.find(caller, environment_id, Permission.ADMIN)
        shares = await share_store.shares(self._database, environment_id)
        return [
            NamedShare(each, await self._people.name_of(self._database, each.user_id))
            for each in shares
        ]

    async def _user(self, reader: Reader, user: str) -> tuple[str, str]:
        found = await self._people.find(reader, user)
        if found is None:
            raise NotFound.of("user", user)
        return found
