"""API keys: their text, and how much they are good for. Pure."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from enum import Enum

from steward_server.ids import digest
from steward_server.permissions import Permissions

_TEXT = re.compile(
    r"(?P<kind>agentbox|itk)_(?P<public_part>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})"
)


class KeyKind(Enum):
    """How a key's text begins."""

    AGENTBOX = "agentbox"
    ITK = "itk"


class KeyRole(Enum):
    """The most a key may do, from the least to the most."""

    READONLY = "readonly"
    EXECUTOR = "executor"
    USER = "user"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        return _RANKS[self]

    def at_most(self, other: KeyRole) -> KeyRole:
        """The lesser of the two."""
        return min(self, other, key=_RANKS.__getitem__)


_RANKS = {role: rank for rank, role in enumerate(KeyRole)}


@dataclass(frozen=True, slots=True)
class KeyText:
    """A key as its holder has it: shown once, never stored."""

    text: str = field(repr=False)
    kind: KeyKind
    public_part: str
    """Names the key in look-ups and lists; tells nothing of the secret."""

    @classmethod
    def new(cls, kind: KeyKind) -> KeyText:
        """A key with 256 random bits."""
        public_part = secrets.token_hex(8)
        return cls(f"{kind.value}_{public_part}_{secrets.token_urlsafe(32)}", kind, public_part)

    @classmethod
    def parse(cls, text: str) -> KeyText | None:
        """The parts of a text; None if it is not of the form of our keys."""
        found = _TEXT.fullmatch(text)
        return cls(text, KeyKind(found["kind"]), found["public_part"]) if found else None

    @property
    def digest(self) -> bytes:
        """What is stored of it."""
        return digest(self.text)


@dataclass(frozen=True, slots=True)
class Key:
    """The credential of somebody's programs."""

    key_id: str
    user_id: str
    """Whom it stands for."""
    kind: KeyKind
    public_part: str
    digest: bytes = field(repr=False)
    description: str
    role: KeyRole
    permissions: Permissions
    created_at_us: int
    expires_at_us: int | None
    last_used_at_us: int | None = None
    revoked_at_us: int | None = None

    def is_expired(self, now_us: int) -> bool:
        return self.expires_at_us is not None and now_us >= self.expires_at_us

    @property
    def prefix(self) -> str:
        """How its text begins: enough to recognise it, nothing of the secret."""
        return f"{self.kind.value}_{self.public_part}"
