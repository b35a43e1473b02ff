"""Sums of what was asked of LLMs, and what is read off them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

NO_LEAST = 2**63 - 1
NO_MOST = -1
"""What the cheapest and the dearest call cost where no call was paid."""


class Sums(NamedTuple):
    """What some calls add up to."""

    request_count: int = 0
    """Calls that were booked."""
    unbilled_count: int = 0
    """Calls that succeeded by what an event tells, and were not booked."""
    failed_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    unbilled_tokens: int = 0
    """Of the calls that were not booked; counted in the columns before, too."""
    cost_nanousd: int = 0
    """What was booked, overrun included."""
    least_nanousd: int = NO_LEAST
    most_nanousd: int = NO_MOST

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            self.request_count + other.request_count,
            self.unbilled_count + other.unbilled_count,
            self.failed_count + other.failed_count,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.unbilled_tokens + other.unbilled_tokens,
            self.cost_nanousd + other.cost_nanousd,
            min(self.least_nanousd, other.least_nanousd),
            max(self.most_nanousd, other.most_nanousd),
        )

    @property
    def successful_count(self) -> int:
        return self.request_count + self.unbilled_count

    @property
    def total_count(self) -> int:
        return self.successful_count + self.failed_count

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.cached_tokens

    @property
    def average_nanousd(self) -> int:
        """Of a paid call, rounded half to even; 0 without any."""
        return rounded_share(self.cost_nanousd, self.request_count)


NOTHING = Sums()


class Key(NamedTuple):
    """Whose sums; an empty text stands for all there are."""

    agent_id: str
    provider: str
    model: str


class Grain(StrEnum):
    """Which of agents, providers and models a series tells apart. The values are in the tables."""

    AGENT = "agent"
    PROVIDER_OF_AGENT = "provider of agent"
    MODEL_OF_AGENT = "model of agent"
    MODEL = "model"


def grain_for(*, agent: bool, provider: bool, model: bool) -> Grain:
    """The coarsest that tells apart what must be."""
    if not agent:
        return Grain.MODEL
    if model:
        return Grain.MODEL_OF_AGENT
    return Grain.PROVIDER_OF_AGENT if provider else Grain.AGENT


def series_of(key: Key) -> tuple[tuple[Grain, Key], ...]:
    """The series that calls of one agent, provider and model count in."""
    agent_id, provider, model = key
    return (
        (Grain.MODEL_OF_AGENT, key),
        (Grain.PROVIDER_OF_AGENT, Key(agent_id, provider, "")),
        (Grain.AGENT, Key(agent_id, "", "")),
        (Grain.MODEL, Key("", provider, model)),
    )


def total(parts: Iterable[Sums]) -> Sums:
    """All of them together."""
    sums = NOTHING
    for part in parts:
        sums = sums.plus(part)
    return sums


def rounded_share(amount: int, count: int) -> int:
    """`amount` divided by `count`, rounded half to even; 0 if there is nothing to divide by."""
    if not count:
        return 0
    whole, rest = divmod(amount, count)
    return whole + (2 * rest > count or (2 * rest == count and whole % 2 == 1))


def percent(part: float, whole: float) -> float:
    """A share in percent; 0 of nothing."""
    return part * 100 / whole if whole else 0.0
