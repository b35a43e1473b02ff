"""Links to ports of environments, for browsers, which can send no header.

As tickets they are kept in memory, with what the caller showed: whoever comes with one is looked up
as if that had been sent. Unlike tickets they are good until their time is over, for connections to
one port and for nothing else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steward_server.environments.tickets import CREDENTIAL_KEYS
from steward_server.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from steward_server.ids import digest

DEFAULT_TTL_S = 900
MAX_TTL_S = 3_600
MAX_OF_ONE = 50
"""Of an environment at a time."""
MAX_OF_PERSON = 200
"""Of what one person has asked for at a time, whichever the environments, and be they gone."""
MAX_PREVIEWS = 10_000
"""Of everybody at a time."""
METHOD = "/steward.environments.v1.PortService/Connect"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a link stands for."""

    user_id: str
    """Of whoever asked for it."""
    environment_id: str
    port: int
    credentials: Mapping[str, str] = field(repr=False)
    expires_at_us: int

    @property
    def bound_to(self) -> str:
        """What a call by it may be about."""
        return f"{self.environment_id}:{self.port}"


def previewed(bound_to: str) -> tuple[str, int] | None:
    """The environment and the port that a call is bound to; None if it is not."""
    environment_id, mark, port = bound_to.rpartition(":")
    return (environment_id, int(port)) if mark else None


class Previews:
    """Gives links, and looks up what they stand for."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._open: dict[bytes, Preview] = {}

    def give(
        self, user_id: str, metadata: Mapping[str, str], environment_id: str, port: int, ttl_s: int
    ) -> tuple[str, int]:
        """A token for the person who sent this metadata, and when it ends.

        Raises:
            ResourceExhausted: TOO_MANY_PREVIEWS.
        """
        now_us = self._clock()
        self._open = {k: v for k, v in self._open.items() if v.expires_at_us > now_us}
        of_one = sum(each.environment_id == environment_id for each in self._open.values())
        of_person = sum(each.user_id == user_id for each in self._open.values())
        if of_one >= MAX_OF_ONE or of_person >= MAX_OF_PERSON or len(self._open) >= MAX_PREVIEWS:
            raise ResourceExhausted(
                f"there are {of_one} links to environment {environment_id!r}, {of_person} of yours "
                f"and {len(self._open)} in all; at most {MAX_OF_ONE}, {MAX_OF_PERSON} and "
                f"{MAX_PREVIEWS} are at a time: wait until some have ended",
                reason="TOO_MANY_PREVIEWS",
                facts={"environment_id": environment_id},
            )
        text = f"pv_{secrets.token_urlsafe(24)}"
        shown = {key: metadata[key] for key in CREDENTIAL_KEYS if metadata.get(key)}
        expires_at_us = now_us + ttl_s * 1_000_000
        self._open[digest(text)] = Preview(user_id, environment_id, port, shown, expires_at_us)
        return text, expires_at_us

    def look_up(self, text: str, method: str) -> Preview:
        """What a token stands for.

        Raises:
            Unauthenticated: INVALID_PREVIEW, it is unknown, or its time is over.
            PermissionDenied: WRONG_TICKET, it is for something else.
        """
        preview = self._open.get(digest(text))
        if preview is None or preview.expires_at_us <= self._clock():
            raise Unauthenticated(
                "the link is not known, or its time is over; ask for another with "
                "POST /api/v1/environments/{id}/previews",
                reason="INVALID_PREVIEW",
            )
        if method != METHOD:
            raise PermissionDenied(f"the link is not for {method}", reason="WRONG_TICKET")
        return preview
