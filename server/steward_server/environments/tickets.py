"""Tickets: what stands once for a caller who can send no header, such as a browser's WebSocket.

They are kept in memory, with what the caller showed: whoever comes with one is looked up as if that
had been sent, so that a credential that has ended meanwhile is refused as anywhere.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from steward_server.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from steward_server.ids import digest

LIFE_US = 30_000_000
MAX_TICKETS = 10_000
"""Of everybody at a time; each is good for half a minute."""
MAX_OF_CALLER = 200
"""That one caller has not used yet, so that nobody keeps everybody else from having one."""

CREDENTIAL_KEYS = ("authorization", "x-api-key")


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one stands for."""

    caller_id: str
    """Of whoever asked for it."""
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
        self._of_callers: Counter[str] = Counter()

    def give(
        self,
        caller_id: str,
        metadata: Mapping[str, str],
        environment_id: str,
        methods: frozenset[str],
    ) -> tuple[str, int]:
        """A ticket for the caller who sent this metadata, and when it ends.

        Raises:
            ResourceExhausted: TOO_MANY_TICKETS.
        """
        now_us = self._clock()
        self._forget(now_us)
        of_caller = self._of_callers[caller_id]
        if of_caller >= MAX_OF_CALLER or len(self._open) >= MAX_TICKETS:
            raise ResourceExhausted(
                f"there are {of_caller} tickets of yours that were not used yet and "
                f"{len(self._open)} in all; at most {MAX_OF_CALLER} and {MAX_TICKETS} are at a "
                "time: try again in 30 s",
                reason="TOO_MANY_TICKETS",
                retry_after_s=30,
            )
        text = f"tk_{secrets.token_urlsafe(24)}"
        shown = {key: metadata[key] for key in CREDENTIAL_KEYS if metadata.get(key)}
        expires_at_us = now_us + LIFE_US
        self._open[digest(text)] = Ticket(caller_id, environment_id, methods, shown, expires_at_us)
        self._of_callers[caller_id] += 1
        return text, expires_at_us

    def take(self, text: str, method: str) -> Ticket:
        """What a ticket stands for; it is good no more.

        Raises:
            Unauthenticated: INVALID_TICKET, it is unknown, was used, or its time is over.
            PermissionDenied: WRONG_TICKET, it is for something else; it is gone all the same.
        """
        ticket = self._remove(digest(text))
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
            self._remove(key)

    def _remove(self, key: bytes) -> Ticket | None:
        ticket = self._open.pop(key, None)
        if ticket is not None:
            self._of_callers[ticket.caller_id] -= 1
            if not self._of_callers[ticket.caller_id]:
                del self._of_callers[ticket.caller_id]
        return ticket
