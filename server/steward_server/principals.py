"""Who is calling: what authentication found out and authorisation decides by."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, Role
from steward_server.errors import NotFound
from steward_server.permissions import Permissions


class Kind(StrEnum):
    """The kinds of caller."""

    ANONYMOUS = "anonymous"
    PERSON = "person"
    KEY = "key"
    """A program with an API key, which stands for the person who made it."""
    AGENT = "agent"
    CLIENT = "client"
    """The holder of the static token: an inference client, which owns nothing."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a call came from, for the audit log."""

    address: str
    user_agent: str
    request_id: str
    method: str
    """The rpc, as on the wire."""


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller, for the length of one call."""

    kind: Kind
    subject: str
    """The user's or the agent's id; empty for the anonymous."""

    role: Role.ValueType = 0  # type: ignore[assignment]
    """Of a person; of a key the lesser of its own and its owner's."""

    credential: str = ""
    """Id of the session, token or key used, never its text; what is revoked when that is."""

    scopes: frozenset[str] = frozenset()
    permissions: Permissions = field(default_factory=dict, hash=False)
    """Which environments a key is limited to; to be asked with `permissions.may`."""

    expires_at_us: int | None = None
    """When the credential ends; open streams end then too."""

    must_change_password: bool = False
    """Whether they may do nothing else before."""

    origin: Origin | None = None
    """Set by `calls.caller`."""

    @property
    def is_person(self) -> bool:
        """Whether it is somebody, be it by a key; their `role` counts then."""
        return self.kind is Kind.PERSON or self.kind is Kind.KEY

    @property
    def is_admin(self) -> bool:
        return self.is_person and self.role == ROLE_ADMIN

    def must_own(self, kind: str, name: str, owner: str) -> None:
        """Refuse what belongs to someone else as if it did not exist.

        Raises:
            NotFound: the caller is neither an administrator nor the owner.
        """
        if not self.is_admin and self.subject != owner:
            raise NotFound.of(kind, name)


ANONYMOUS = Principal(Kind.ANONYMOUS, "")
