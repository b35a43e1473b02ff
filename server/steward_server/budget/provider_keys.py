"""Provider keys handed to runtimes once more, while they hold a lease."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from steward.budget.v1 import provider_key_pb2 as pb
from steward.budget.v1 import provider_key_pb2_grpc as rpc
from steward_server.audit import Change, record
from steward_server.budget import store
from steward_server.budget.ledger_errors import LeaseClosed
from steward_server.budget.refusals import refused
from steward_server.budget.sealing import Sealer
from steward_server.budget.values import LeaseState
from steward_server.calls import Context, call_of, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import AlreadyExists, PermissionDenied
from steward_server.events.store import NewEntry, append

HANDED_OVER = "key.handed_over"


class Key(Protocol):
    """A provider and its key."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def allow_plaintext_key(self) -> bool: ...


class Keys(Protocol):
    """The part of the providers room that this needs."""

    async def key_for(self, reader: Reader, wanted: str) -> Key:
        """The provider of this name, its key in clear.

        Raises:
            NotFound: there is none.
            Unavailable: its key cannot be decrypted.
        """
        ...


class Assigned(Protocol):
    """What is known of an agent."""

    @property
    def provider(self) -> str: ...


class Agents(Protocol):
    """The part of the agents room that this needs."""

    async def record(self, reader: Reader, agent_id: str) -> Assigned:
        """The agent.

        Raises:
            NotFound: no such agent.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProviderKeyService(rpc.ProviderKeyServiceServicer):
    """Serves provider keys to runtimes."""

    database: Database
    keys: Keys
    agents: Agents
    clock: Callable[[], int]

    async def GetProviderKey(  # noqa: N802 - the proto's name
        self, request: pb.GetProviderKeyRequest, context: Context
    ) -> pb.GetProviderKeyResponse:
        with Checks() as checks:
            checks.text("lease_id", request.lease_id, 1, 100)
            if len(request.public_key) not in (0, 32):
                checks.add(
                    "public_key",
                    f"has {len(request.public_key)} bytes; an X25519 public key has 32",
                )
        runtime = caller(context)
        agent_id, lease_id = runtime.subject, request.lease_id
        ic_token = call_of(context).ic_token or request.ic_token
        now_us = self.clock()

        async def hand_over(transaction: Transaction) -> pb.GetProviderKeyResponse:
            lease, terms = await store.lease(transaction, lease_id, agent_id)
            if lease.state is not LeaseState.ACTIVE or lease.is_expiry_due(now_us):
                raise refused(LeaseClosed(lease.lease_id, lease.state))
            assigned = (await self.agents.record(transaction, agent_id)).provider
            if assigned != terms.provider:
                raise _not_assigned(agent_id, assigned, terms.provider)
            key = await self.keys.key_for(transaction, terms.provider)
            answer = pb.GetProviderKeyResponse(
                lease_id=lease_id,
                provider=key.name,
                provider_kind=key.kind,
                base_url=key.base_url,
                expires_at=timestamp(lease.expires_at_us),
            )
            in_clear = key.allow_plaintext_key and not request.public_key
            once = _fingerprint(request.public_key)
            if once and await store.written(transaction, lease_id, [HANDED_OVER], [once]):
                raise AlreadyExists(
                    "the key was sealed to this public key before; make a fresh one",
                    reason="PUBLIC_KEY_USED",
                    facts={"lease_id": lease_id},
                )
            if in_clear:
                answer.provider_key = key.api_key
            else:
                sealer = Sealer(key.api_key, request.public_key, ic_token)
                sealed = sealer.seal(lease_id, agent_id, lease.expires_at_us)
                answer.ip_token, answer.seal_format = sealed.text, sealed.format
                answer.seal_salt, answer.seal_info = sealed.salt, sealed.info
            body = {"provider": key.name, "in_clear": in_clear, "token": runtime.credential}
            entry = NewEntry(HANDED_OVER, body, agent_id, lease_id, once)
            await append(transaction, now_us, entry)
            after = {"provider": key.name, "agent_id": agent_id, "in_clear": in_clear}
            change = Change("lease.key_handed_over", lease_id, after=after)
            await record(transaction, now_us, runtime, change)
            return answer

        return await self.database.run(hand_over)


def _fingerprint(public_key: bytes) -> str | None:
    return hashlib.sha256(public_key).hexdigest()[:32] if public_key else None


def _not_assigned(agent_id: str, assigned: str, of_lease: str) -> PermissionDenied:
    has = f"is assigned to provider {assigned!r}" if assigned else "is assigned to no provider"
    return PermissionDenied(
        f"agent {agent_id!r} {has}, and the lease is for {of_lease!r}; assign that with "
        f"PATCH /api/v1/agents/{agent_id}, or take the key from the handshake",
        reason="NO_PROVIDER_ASSIGNED",
        facts={"agent_id": agent_id, "assigned": assigned, "provider": of_lease},
    )
