"""Networks of environments that are changed while they run."""

from __future__ import annotations

from steward_server.completion import complete
from steward_server.environments.ability import refusal
from steward_server.environments.driver import Feature, Gone, Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.room import Changes, EnvironmentRoom, Seen
from steward_server.permissions import Permission
from steward_server.principals import Principal


class Networking:
    """Updates environments, and their machines where that takes part in it."""

    def __init__(self, room: EnvironmentRoom) -> None:
        self._room = room

    async def update(self, caller: Principal, environment_id: str, changes: Changes) -> Seen:
        """Change an environment: all of what is given, or nothing.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition, InvalidArgument: as `room.update`.
            FailedPrecondition: its network is to change, and it does not run; NOT_SUPPORTED; or
                the driver says why it cannot reach that.
        """
        policy = changes.network
        if policy is None:
            return await self._room.update(caller, environment_id, changes)
        await self._room.running(caller, environment_id, Permission.ADMIN)
        self._room.keeper.ability.must_have(Feature.NETWORK_CHANGE)
        return await complete(self._change(caller, environment_id, changes, policy))

    async def _change(
        self, caller: Principal, environment_id: str, changes: Changes, policy: NetworkPolicy
    ) -> Seen:
        # The machine first: what it cannot do is refused as a whole. A start lets it reach what
        # the row says, should this server end in between.
        async with self._room.keeper.locks.of(environment_id):
            before = await self._room.running(caller, environment_id, Permission.ADMIN)
            await self._tell(caller, environment_id, policy)
            try:
                return await self._room.update(caller, environment_id, changes)
            except BaseException:
                await self._tell(caller, environment_id, before.spec.network)
                raise

    async def _tell(self, caller: Principal, environment_id: str, policy: NetworkPolicy) -> None:
        try:
            await self._room.keeper.driver.change_network(environment_id, policy)
        except Gone:
            raise await self._room.gone(caller, environment_id) from None
        except Unusable as error:
            raise refusal(error, environment_id) from None
