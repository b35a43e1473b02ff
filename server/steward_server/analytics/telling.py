"""What runtimes tell of LLM calls, looked over. Pure."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

COMPLETED, FAILED = "llm_request_completed", "llm_request_failed"
EVENT_TYPES = (COMPLETED, FAILED)

MAX_SKEW_US = 5 * 60 * 1_000_000
"""How far the clocks of runtimes may be off."""

MAX_AGE_US = 400 * 86_400 * 1_000_000

MAX_TOKENS = 10**12
MAX_COST_NANOUSD = 1_000_000 * 10**9
MAX_DURATION_MS = 7 * 86_400 * 1_000

TEXTS = {
    "event_id": (1, 100),
    "model": (1, 100),
    "provider": (1, 50),
    "error_code": (0, 100),
    "error_message": (0, 500),
}
"""How long each text may be."""

NUMBERS = {
    "input_tokens": MAX_TOKENS,
    "output_tokens": MAX_TOKENS,
    "duration_ms": MAX_DURATION_MS,
}
"""How large each number may be."""


class Told(NamedTuple):
    """An event as it was sent."""

    event_id: str
    event_type: str
    at_us: int | None
    """When the call ended by the runtime's clock; None if it did not say."""
    model: str
    provider: str
    input_tokens: int
    output_tokens: int
    cost_nanousd: int | None
    error_code: str
    error_message: str
    duration_ms: int

    @property
    def digest(self) -> bytes:
        """What makes a repetition the same event."""
        return hashlib.sha256(repr(tuple(self)).encode()).digest()


def faults_of(told: Told, *, known_since_us: int, now_us: int) -> dict[str, str]:
    """What is wrong with an event of an agent known since then, by field; empty if nothing is."""
    faults: dict[str, str] = {}
    for field, (least, most) in TEXTS.items():
        text = getattr(told, field)
        if len(text) < least:
            faults[field] = "is missing"
        elif len(text) > most:
            faults[field] = f"has {len(text)} characters; at most {most} are allowed"
        elif not text.isprintable() and field != "error_message":
            faults[field] = "holds a character that cannot be printed"
    if told.event_type not in EVENT_TYPES:
        given = f"is {told.event_type[:50]!r}" if told.event_type else "is missing"
        faults["event_type"] = f"{given}; it must be one of {', '.join(EVENT_TYPES)}"
    for field, most in NUMBERS.items():
        number = getattr(told, field)
        if not 0 <= number <= most:
            faults[field] = f"is {number}; it must be from 0 to {most}"
    if told.cost_nanousd is not None and not 0 <= told.cost_nanousd <= MAX_COST_NANOUSD:
        faults["cost_usd"] = (
            f"is {told.cost_nanousd} nano-dollars; it must be from $0 to $1,000,000"
        )
    if told.event_type == COMPLETED and (told.error_code or told.error_message):
        faults["error_code"] = f"goes with {FAILED} only"
    if fault := _fault_of_time(told.at_us, known_since_us=known_since_us, now_us=now_us):
        faults["timestamp"] = fault
    return faults


def _fault_of_time(at_us: int | None, *, known_since_us: int, now_us: int) -> str:
    if at_us is None:
        return "is missing"
    if at_us > now_us + MAX_SKEW_US:
        return "is more than 5 minutes in the future; set the runtime's clock"
    if at_us < now_us - MAX_AGE_US:
        return "is more than 400 days ago"
    if at_us < known_since_us - MAX_SKEW_US:
        return "is before the agent was created"
    return ""
