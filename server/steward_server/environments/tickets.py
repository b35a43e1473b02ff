"""Tickets: what stands once for a caller who can send no header, such as a browser's WebSocket.

They are kept in memory, with what the caller showed: whoever comes with one is looked up as if that
had been sent, so that a credential that has ended meanwhile is refused as anywhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steward_server.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from steward_server.ids import digest

LIFE_US = 30_000_000
MAX_TICKETS = 10_000
"""Of everybody at a time; each is good for half a minute."""

CREDENTIAL_KEYS = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one stands for."""

    environment_id: str
    methods: frozenset[str]
    """As on the wire."""
    credentials: Mapping[str, str] = field(repr=False)
    expires_at_us: int


class Tickets:
    """Gives tickets, and takes each once."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._open: dict[bytes, Ticket] = {}

    def give(
        self, metadata: Mapping[str, str], environment_id: str, methods: frozenset[str]
    ) -> tuple[str, int]:
        """A ticket for whoever sent this metadata, and when it ends.

        Raises:
            ResourceExhausted: TOO_MANY_TICKETS, of everybody together.
        """
        now_us = self._clock()
        self._forget(now_us)
        if len(self._open) >= MAX_TICKETS:
            raise ResourceExhausted(
                f"there are {MAX_TICKETS} tickets that nobody used yet; try again in 30 s",
                reason="TOO_MANY_TICKETS",
                retry_after_s=30,
            )
        text = f"tk_{secrets.token_urlsafe(24)}"
        shown = {key: metadata[key] for key in CREDENTIAL_KEYS if metadata.get(key)}
        expires_at_us = now_us + LIFE_US
        self._open[digest(text)] = Ticket(environment_id, methods, shown, expires_at_us)
        return text, expires_at_us

    def take(self, text: str, method: str) -> Ticket:
        """What a ticket stands for; it is good no more.

        Raises:
            Unauthenticated: INVALID_TICKET, it is unknown, was used, or its time is over.
            PermissionDenied: WRONG_TICKET, it is for something else; it is gone all the same.
        """
        ticket = self._open.pop(digest(text), None)
        if ticket is None or ticket.expires_at_us <= self._clock():
            raise Unauthenticated(
                "the ticket is not known, was used, or is older than 30 s; ask for another",
                reason="INVALID_TICKET",
            )
        if method not in ticket.methods:
            raise PermissionDenied(
                f"the ticket is not for {method}; ask for one with that purpose",
                reason="WRONG_TICKET",
            )
        return ticket

    def _forget(self, now_us: int) -> None:
        # All live equally long, so the oldest end first.
        for key in list(self._open):
            if self._open[key].expires_at_us > now_us:
                return
            del self._open[key]
