"""What a room of the server's sells to an agent."""

from __future__ import annotations

from typing import NamedTuple


class Sale(NamedTuple):
    """One entry of a bill.

    Attributes:
        request_id: of the seller's choosing; what is booked again under it is booked once.
        item: what it was: stands where the model of a call does.
        at_us: when it was delivered.
    """

    request_id: str
    item: str
    cost_nanousd: int
    at_us: int
