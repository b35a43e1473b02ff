"""What rooms are asked when a person goes: what they keep of people is handed on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from steward_server.audit import Change
from steward_server.db import Transaction


@dataclass(frozen=True, slots=True)
class Handover:
    """What a room did with a deleted person's things."""

    changes: Sequence[Change] = ()
    """For the audit log."""
    after_commit: Callable[[], None] = lambda: None
    """What must follow the commit."""


class Belongings(Protocol):
    """A room that keeps things of people."""

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Give the heir, or end, what the deleted person had."""
        ...
