"""Refresh tokens: what may be done with one, and what follows it. Pure.

The text of a successor is computed, not drawn: from its parent's text, which only its holder has,
and a key only the server has. So a lost answer can be given again although nothing but hashes is
stored, and neither the database nor the key alone gives a token away.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass
from enum import Enum

PREFIX = "rt_"


class Verdict(Enum):
    """What presenting a refresh token leads to."""

    RENEW = "renew"
    """It is live: it is spent, and gives a successor."""
    REPEAT = "repeat"
    """It was spent a moment ago: the answer may have been lost, and is given again."""
    REUSED = "reused"
    """It was spent before: someone has a copy, and the family ends."""
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """One link in a family; its text is not known here."""

    refresh_token_id: str
    family_id: str
    user_id: str
    session_id: str
    """Of the access token that was handed out with it."""
    expires_at_us: int
    spent_at_us: int | None = None
    successor_id: str | None = None
    revoked_at_us: int | None = None

    def verdict(self, now_us: int, grace_us: int) -> Verdict:
        """What presenting it now leads to. A moment is up to and including `grace_us`."""
        if self.revoked_at_us is not None:
            return Verdict.REVOKED
        if now_us >= self.expires_at_us:
            return Verdict.EXPIRED
        if self.spent_at_us is None:
            return Verdict.RENEW
        return Verdict.REPEAT if now_us - self.spent_at_us <= grace_us else Verdict.REUSED


def successor_text(key: bytes, parent_text: str) -> str:
    """The one token that follows this one; 256 bits nobody can foretell without the key."""
    mac = hmac.digest(key, parent_text.encode(), "sha256")
    return PREFIX + base64.urlsafe_b64encode(mac).decode().rstrip("=")
