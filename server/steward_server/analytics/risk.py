"""How close an agent is to the end of its budget. Pure."""

from __future__ import annotations

from enum import StrEnum


class Risk(StrEnum):
    """By the share of the budget that is used."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"
    EXHAUSTED = "exhausted"


class Standing(StrEnum):
    """What an agent may do with its budget."""

    ACTIVE = "active"
    EXHAUSTED = "exhausted"
    INACTIVE = "inactive"


FROM_PERCENT = (
    (100.0, Risk.EXHAUSTED),
    (95.0, Risk.CRITICAL),
    (80.0, Risk.HIGH),
    (50.0, Risk.MEDIUM),
)


def risk_of(percent_used: float) -> Risk:
    return next((risk for least, risk in FROM_PERCENT if percent_used >= least), Risk.LOW)


def standing_of(percent_used: float, *, stop_wanted: bool) -> Standing:
    if risk_of(percent_used) is Risk.EXHAUSTED:
        return Standing.EXHAUSTED
    return Standing.INACTIVE if stop_wanted else Standing.ACTIVE
