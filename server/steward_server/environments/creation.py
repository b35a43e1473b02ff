"""Environments that are asked for: refused at once, or written down and begun."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import orjson

from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.environments import store
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Away, Feature, Unusable
from steward_server.environments.environment import Environment, Spec, State
from steward_server.environments.journal import audited, write_down
from steward_server.environments.keeper import env_context
from steward_server.environments.needs import Images
from steward_server.environments.quota import Quota
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.snapshots import Snapshots
from steward_server.errors import InvalidArgument, PermissionDenied, Unavailable
from steward_server.principals import Kind, Principal
from steward_server.vault import Vault


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants of a new environment."""

    name: str
    spec: Spec
    timeout_s: int
    idle_timeout_s: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Creation:
    """Creates environments."""

    def __init__(
        self,
        database: Database,
        room: EnvironmentRoom,
        images: Images | None,
        snapshots: Snapshots,
        vault: Vault,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        """Take settings, which are read once.

        Raises:
            BadSetting: an amount in them cannot be read.
        """
        self.most: Quota = config.of_one()
        self._user_quota, self._total_quota = config.of_user(), config.of_all()
        self._database = database
        self._room = room
        self._images = images
        self._snapshots = snapshots
        self._vault = vault
        self._clock = clock

    async def create(self, caller: Principal, wish: Wish, *, wait_s: float = 0) -> Environment:
        """Write an environment down and begin to make it, which is waited for so long.

        Raises:
            FailedPrecondition: ENVIRONMENTS_UNUSABLE, this server can make none; or AGENT_STOPPED.
            PermissionDenied: KEY_LIMITED, the caller is limited to environments there are.
            ResourceExhausted: QUOTA_EXCEEDED.
            InvalidArgument: there is no such image, or no such runtime class.
            Unavailable: whoever keeps the images does not answer.
        """
        if caller.permissions:
            raise PermissionDenied(
                f"the API key is limited to {len(caller.permissions)} environments, and may "
                "create none; create it with a key without `permissions`",
                reason="KEY_LIMITED",
            )
        self._room.keeper.ability.must_be_usable()
        await self._room.must_not_be_stopped(caller)
        await self._check_possible(wish.spec)
        now_us = self._clock()
        environment = self._begun(caller, wish, now_us)
        sealed = self._sealed(environment)

        async def work(transaction: Transaction) -> None:
            await self._snapshots.must_be_allowed(caller, wish.spec.image, transaction)
            await self._check_quotas(transaction, environment)
            await store.insert(transaction, environment, sealed)
            await write_down(
                transaction,
                now_us,
                "environment.created",
                environment,
                caller,
                after=audited(environment),
            )

        async def create_and_make() -> None:
            await self._database.run(work)
            self._room.learn(environment)
            self._room.keeper.make(environment.environment_id)

        await complete(create_and_make())
        if not wait_s:
            return environment
        await self._room.keeper.made(environment.environment_id, wait_s)
        stored = await store.find(self._database, environment.environment_id)
        return environment if stored is None else stored.environment

    async def _check_possible(self, spec: Spec) -> None:
        """Refuse at once what would only fail later."""
        told = self._room.keeper.ability.capabilities()
        if spec.runtime_class and spec.runtime_class not in told.runtime_classes:
            why = told.missing_classes.get(spec.runtime_class, "")
            raise InvalidArgument.of(
                {
                    "isolation.runtime_class": f"is {spec.runtime_class!r}; this server has "
                    f"{', '.join(told.runtime_classes) or 'none to choose'}"
                    f"{f': {why}' if why else ''}"
                }
            )
        if spec.security.allow_privilege_escalation:
            self._room.keeper.ability.must_have(Feature.PRIVILEGE_ESCALATION)
        network = spec.network
        if network.allow_internet or network.allowed_egress:
            self._room.keeper.ability.must_have(Feature.NETWORK)
        if self._images is not None:
            try:
                await self._images.find(spec.image)
            except Away as error:
                raise Unavailable(str(error), reason=error.reason) from None
            except Unusable as error:
                raise InvalidArgument(
                    str(error), reason=error.reason, fields={"image": str(error)}
                ) from None

    def _begun(self, caller: Principal, wish: Wish, now_us: int) -> Environment:
        """What somebody wants, at the beginning of its life."""
        return Environment(
            environment_id=f"env-{secrets.token_hex(16)}",
            name=wish.name,
            owner_id=self._room.owner_for(caller),
            agent_id=caller.subject if caller.kind is Kind.AGENT else "",
            spec=wish.spec,
            state=State.PENDING,
            created_at_us=now_us,
            expires_at_us=now_us + wish.timeout_s * 1_000_000,
            idle_timeout_s=wish.idle_timeout_s,
            labels=wish.labels,
        )

    def _sealed(self, environment: Environment) -> bytes | None:
        env = environment.spec.env
        if not env:
            return None
        return self._vault.seal(orjson.dumps(dict(env)), env_context(environment.environment_id))

    async def _check_quotas(self, transaction: Transaction, environment: Environment) -> None:
        resources = environment.spec.resources
        for quota, owner_id, whose in (
            (self._user_quota, environment.owner_id, _whose(environment)),
            (self._total_quota, None, "all users of this server together"),
        ):
            before = await store.use(transaction, owner_id)
            quota.must_hold(before, before.plus(resources), whose)


def _whose(environment: Environment) -> str:
    """Whose quota it counts in, in words for whoever creates it."""
    return "the agent's owner" if environment.agent_id else "you"
