"""What calls cost: usage in disjoint parts, exact rates, the worst case of a call. Pure.

Prices are in pico-dollars (10^-12 USD) per token. A cost is summed exactly and rounded up once to
a nano-dollar. No clock, no I/O, no protobuf: server and runtime compute with this same code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

PICOUSD_PER_NANOUSD = 1000

LONG_CONTEXT = ":over-"
"""A row `<model>:over-<tokens>` holds the rates of calls with more input tokens than that.

Providers that have them charge the whole call by the higher rates, not just the part above.
"""

ADMINISTRATOR = "administrator"
"""The source of a price somebody set; it stands for every length of input."""

HOUR_WRITE_FACTOR = 2
"""Tokens written to Anthropic's one-hour cache cost twice the input rate.

https://docs.claude.com/en/docs/about-claude/pricing, 2026-11. Every such price that ships obeys it.
"""

_DATED = re.compile(r"-20\d{2}-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])$")


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call in parts that do not overlap; `output` includes reasoning.

    Raises:
        ValueError: a part is negative.
    """

    input: int = 0
    """Read afresh: neither from a cache nor into one."""
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    """Written to the usual cache, of five minutes where there are several."""
    cache_write_1h: int = 0

    def __post_init__(self) -> None:
        if min(self.input, self.output, self.cache_read, self.cache_write, self.cache_write_1h) < 0:
            raise ValueError(f"token counts are 0 or more: {self}")

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
            self.cache_write_1h + other.cache_write_1h,
        )

    @property
    def input_total(self) -> int:
        """Everything the model read."""
        return self.input + self.cache_read + self.cache_write + self.cache_write_1h

    @property
    def cache_write_total(self) -> int:
        return self.cache_write + self.cache_write_1h

    @property
    def total(self) -> int:
        return self.input_total + self.output

    @classmethod
    def from_openai(cls, usage: Mapping[str, Any]) -> Self:
        """From the `usage` of a chat completion, whose `prompt_tokens` include cached ones.

        Raises:
            ValueError: a count is missing, no whole number, or more is cached than was sent.
        """
        prompt = _count(usage, "prompt_tokens")
        details = usage.get("prompt_tokens_details") or {}
        cache_read = _count(details, "cached_tokens", default=0)
        cache_write = _count(details, "cache_write_tokens", default=0)
        if cache_read + cache_write > prompt:
            raise ValueError(
                f"{cache_read} tokens read from and {cache_write} written to a cache are more than "
                f"the {prompt} of the prompt"
            )
        return cls(
            input=prompt - cache_read - cache_write,
            output=_count(usage, "completion_tokens"),
            cache_read=cache_read,
            cache_write=cache_write,
        )

    @classmethod
    def from_anthropic(cls, usage: Mapping[str, Any]) -> Self:
        """From the `usage` of a message, whose `input_tokens` exclude cached ones.

        Raises:
            ValueError: a count is missing, no whole number, or the caches' parts exceed their sum.
        """
        cache_write = _count(usage, "cache_creation_input_tokens", default=0)
        parts = usage.get("cache_creation") or {}
        cache_write_1h = _count(parts, "ephemeral_1h_input_tokens", default=0)
        if cache_write_1h > cache_write:
            raise ValueError(
                f"{cache_write_1h} tokens written for an hour are more than the {cache_write} "
                "written in all"
            )
        return cls(
            input=_count(usage, "input_tokens"),
            output=_count(usage, "output_tokens"),
            cache_read=_count(usage, "cache_read_input_tokens", default=0),
            cache_write=cache_write - cache_write_1h,
            cache_write_1h=cache_write_1h,
        )


def _count(usage: Mapping[str, Any], name: str, *, default: int | None = None) -> int:
    value = usage.get(name)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} is a whole number, not {value!r}")  # noqa: TRY004 - bad data
    return value


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars per token.

    Raises:
        ValueError: a rate is negative.
    """

    input_picousd: int
    output_picousd: int
    cache_read_picousd: int
    cache_write_picousd: int

    def __post_init__(self) -> None:
        if (
            min(
                self.input_picousd,
                self.output_picousd,
                self.cache_read_picousd,
                self.cache_write_picousd,
            )
            < 0
        ):
            raise ValueError(f"rates are 0 or more: {self}")

    @property
    def worst_input_picousd(self) -> int:
        """The most a token of input can cost, wherever it is read from or written to."""
        return max(self.input_picousd, self.cache_read_picousd, self.cache_write_picousd)


def cost_picousd(rates: Rates, usage: TokenUsage) -> int:
    return (
        rates.input_picousd * (usage.input + HOUR_WRITE_FACTOR * usage.cache_write_1h)
        + rates.output_picousd * usage.output
        + rates.cache_read_picousd * usage.cache_read
        + rates.cache_write_picousd * usage.cache_write
    )


def cost_nanousd(rates: Rates, usage: TokenUsage) -> int:
    """What the usage costs, summed and then rounded up once."""
    return -(-cost_picousd(rates, usage) // PICOUSD_PER_NANOUSD)


def bound_nanousd(
    rates: Rates, *, input_tokens: int, output_tokens: int, choice_count: int = 1, hour_writes: bool
) -> int:
    """The most a call can cost with up to this many tokens read and, for each choice, written."""
    worst_picousd = _worst_input_picousd(rates, hour_writes=hour_writes) * input_tokens
    worst_picousd += rates.output_picousd * output_tokens * choice_count
    return -(-worst_picousd // PICOUSD_PER_NANOUSD)


def _worst_input_picousd(rates: Rates, *, hour_writes: bool) -> int:
    if not hour_writes:
        return rates.worst_input_picousd
    return max(rates.worst_input_picousd, HOUR_WRITE_FACTOR * rates.input_picousd)


@dataclass(frozen=True, slots=True)
class Price:
    """A row of the table: the rates of one model, or of its calls above some length."""

    provider: str
    """"openai" or "anthropic": the kind of provider, not its name."""
    model: str
    rates: Rates
    source: str = ""


@dataclass(frozen=True, slots=True)
class Tariff:
    """All rates of one model."""

    model: str
    rates: Rates
    long_context: tuple[tuple[int, Rates], ...] = ()
    """(input tokens, rates above that many), growing."""

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a call that reads this many tokens in all."""
        rates = self.rates
        for over_tokens, long_rates in self.long_context:
            if input_tokens > over_tokens:
                rates = long_rates
        return rates

    def cost_nanousd(self, usage: TokenUsage) -> int:
        return cost_nanousd(self.rates_for(usage.input_total), usage)

    def bound_nanousd(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        choice_count: int = 1,
        hour_writes: bool = False,
    ) -> int:
        """The most a call can cost that reads up to `input_tokens`: a short one may cost more."""
        return max(
            bound_nanousd(
                rates,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                choice_count=choice_count,
                hour_writes=hour_writes,
            )
            for rates in self._reachable(input_tokens)
        )

    def affordable_output_tokens(
        self,
        *,
        available_nanousd: int,
        input_tokens: int,
        choice_count: int = 1,
        hour_writes: bool = False,
    ) -> int | None:
        """The most output tokens per choice whose bound is within the money; below 0: none is.

        None means that output costs nothing and the input is paid for: any number will do.
        """
        fewest: int | None = None
        for rates in self._reachable(input_tokens):
            left_picousd = available_nanousd * PICOUSD_PER_NANOUSD
            left_picousd -= _worst_input_picousd(rates, hour_writes=hour_writes) * input_tokens
            if left_picousd < 0:
                return -1
            if rates.output_picousd == 0:
                continue
            tokens = left_picousd // (rates.output_picousd * choice_count)
            fewest = tokens if fewest is None else min(fewest, tokens)
        return fewest

    def _reachable(self, input_tokens: int) -> list[Rates]:
        longer = [rates for over_tokens, rates in self.long_context if input_tokens > over_tokens]
        return [self.rates, *longer]


@dataclass(frozen=True)
class PriceTable:
    """Which tariff a model has; `version` changes whenever a price does."""

    version: str
    tariffs: Mapping[tuple[str, str], Tariff] = field(default_factory=dict, repr=False)

    @classmethod
    def from_rows(cls, version: str, rows: Iterable[Price]) -> Self:
        """The table of these rows; of two for one model the later counts.

        A price set by an administrator replaces the long-context rates that shipped, too.
        """
        base: dict[tuple[str, str], Price] = {}
        longer: dict[tuple[str, str], dict[int, Price]] = {}
        for row in rows:
            model, mark, over = row.model.lower().partition(LONG_CONTEXT)
            key = (row.provider, model)
            if mark and over.isdecimal():
                longer.setdefault(key, {})[int(over)] = row
            else:
                base[key] = row
        tariffs = {
            key: Tariff(
                key[1],
                row.rates,
                tuple(
                    (over, long_row.rates)
                    for over, long_row in sorted(longer.get(key, {}).items())
                    if row.source != ADMINISTRATOR or long_row.source == ADMINISTRATOR
                ),
            )
            for key, row in base.items()
        }
        return cls(version, tariffs)

    def find(self, provider_kind: str, model: str) -> Tariff | None:
        """The tariff of a model, or of its undated name; None if it has no price.

        Fine-tuned models (`ft:<base>:<organisation>:…`) have the tariff of `ft:<base>`.
        """
        for name in _names(model):
            tariff = self.tariffs.get((provider_kind, name))
            if tariff is not None:
                return tariff
        return None


def _names(model: str) -> Iterable[str]:
    """The names a price may stand under, the most exact first."""
    name = model.strip().lower()
    yield name
    if name.startswith("ft:"):
        name = ":".join(name.split(":", 2)[:2])
        yield name
    undated = _DATED.sub("", name)
    if undated != name:
        yield undated
    if name.endswith("-latest"):
        yield name.removesuffix("-latest")
