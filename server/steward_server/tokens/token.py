"""IC tokens: their text, and what state they are in. Pure."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from enum import Enum

from steward_server.ids import digest

SCOPES = ("budget", "events", "environments", "inference", "executions")
"""What a token can be good for."""

_TEXT = re.compile(r"ic_(?P<public_part>[0-9a-f]{16})_(?P<secret>[A-Za-z0-9_-]{43})")


class TokenStatus(Enum):
    """What a token is good for now."""

    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as its holder has it: shown once, never stored."""

    text: str = field(repr=False)
    public_part: str
    """Names the token in look-ups and logs; tells nothing of the secret."""

    @classmethod
    def new(cls) -> TokenText:
        """A token with 256 random bits."""
        public_part = secrets.token_hex(8)
        return cls(f"ic_{public_part}_{secrets.token_urlsafe(32)}", public_part)

    @classmethod
    def parse(cls, text: str) -> TokenText | None:
        """The parts of a text; None if it is not of the form of our tokens."""
        found = _TEXT.fullmatch(text)
        return cls(text, found["public_part"]) if found else None

    @property
    def digest(self) -> bytes:
        """What is stored of it."""
        return digest(self.text)


@dataclass(frozen=True, slots=True)
class Token:
    """The credential of an agent's runtimes."""

    token_id: str
    agent_id: str
    name: str
    public_part: str
    digest: bytes = field(repr=False)
    scopes: tuple[str, ...]
    created_at_us: int
    expires_at_us: int | None
    last_used_at_us: int | None = None
    rotated_at_us: int | None = None
    revoked_at_us: int | None = None

    def status(self, now_us: int) -> TokenStatus:
        """What it is good for; a revoked token is revoked for good, expired or not."""
        if self.revoked_at_us is not None:
            return TokenStatus.REVOKED
        if self.expires_at_us is not None and now_us >= self.expires_at_us:
            return TokenStatus.EXPIRED
        return TokenStatus.ACTIVE

    def rotate(self, text: TokenText, now_us: int) -> Token:
        """The same token with another text."""
        return replace(self, public_part=text.public_part, digest=text.digest, rotated_at_us=now_us)

    @property
    def prefix(self) -> str:
        """How its text begins: enough to recognise it, nothing of the secret."""
        return f"ic_{self.public_part}"
