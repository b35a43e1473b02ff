"""The worst case of one call, in money and in tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from steward_client.prices import Tariff


@dataclass(frozen=True, slots=True)
class CallBound:
    """What bounds a call, and how far its answer may be shortened."""

    model: str
    tariff: Tariff
    input_tokens: int
    output_tokens: int
    least_output_tokens: int
    choice_count: int = 1
    hour_writes: bool = False

    def nanousd(self, output_tokens: int) -> int:
        return self.tariff.bound_nanousd(
            input_tokens=self.input_tokens,
            output_tokens=output_tokens,
            choice_count=self.choice_count,
            hour_writes=self.hour_writes,
        )

    def tokens(self, output_tokens: int) -> int:
        """The most it can use with so many for each choice."""
        return self.input_tokens + output_tokens * self.choice_count

    def within(self, available_tokens: int | None) -> CallBound:
        """The same call, its answer shortened to what a limit on tokens leaves."""
        if available_tokens is None:
            return self
        left = (available_tokens - self.input_tokens) // self.choice_count
        return self if left >= self.output_tokens else replace(self, output_tokens=left)

    def fitting(self, available_nanousd: int) -> int:
        """The most output tokens that are wanted and paid for; below 0 if none are."""
        affordable = self.tariff.affordable_output_tokens(
            available_nanousd=available_nanousd,
            input_tokens=self.input_tokens,
            choice_count=self.choice_count,
            hour_writes=self.hour_writes,
        )
        return self.output_tokens if affordable is None else min(self.output_tokens, affordable)
