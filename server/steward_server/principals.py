"""Who is calling: what authentication found out and authorisation decides by."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, Role
from steward_server.errors import NotFound


class Kind(Enum):
    """The kinds of caller."""

    ANONYMOUS = "anonymous"
    PERSON = "person"
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
    credential: str = ""
    """Id of the session or token used, never its text; what is revoked when that is."""

    scopes: frozenset[str] = frozenset()
    expires_at_us: int | None = None
    """When the credential ends; open streams end then too."""

    must_change_password: bool = False
    """Whether they may do nothing else before."""

    origin: Origin | None = None
    """Set by `calls.caller`."""

    @property
    def is_admin(self) -> bool:
        return self.kind is Kind.PERSON and self.role == ROLE_ADMIN

    def must_own(self, kind: str, name: str, owner: str) -> None:
        """Refuse what belongs to someone else as if it did not exist.

        Raises:
            NotFound: the caller is neither an administrator nor the owner.
        """
        if not self.is_admin and self.subject != owner:
            raise NotFound.of(kind, name)


ANONYMOUS = Principal(Kind.ANONYMOUS, "")
