"""The prices that ship, read out of the pinned genai-prices package as exact pico-dollars.

The server seeds its versioned table with them. Nothing on a runtime's path imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from functools import cache
from importlib.metadata import version

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import (
    ClauseEquals,
    ClauseOr,
    ClauseStartsWith,
    ModelInfo,
    ModelPrice,
    Provider,
    TieredPrices,
)

from steward_client.prices import LONG_CONTEXT, Price, PriceTable, Rates

SOURCE = f"genai-prices {version('genai-prices')}"
PROVIDER_KINDS = ("openai", "anthropic")

_PICOUSD_PER_TOKEN = 10**6
"""A dollar per million tokens is a million pico-dollars per token."""

_OTHER_MEDIA = ("audio", "image", "characters", "video")
_NOT_BY_TOKENS_ALONE = ("audio", "image", "realtime", "search")
"""Words in the names of models that charge for more than tokens of text, whatever the data says."""


def shipped_prices(at: datetime) -> list[Price]:
    """A row for each name of each model whose calls are text in and text out, as priced at `at`.

    Models that also charge for sounds, pictures or searches are left out: tokens alone do not
    price them.
    """
    return [row for provider, model, names in _named() for row in _rows(provider, model, names, at)]


def shipped_table(at: datetime) -> PriceTable:
    return PriceTable.from_rows(f"{SOURCE.replace(' ', '-')}-{at:%Y-%m-%d}", shipped_prices(at))


@cache
def _named() -> list[tuple[Provider, ModelInfo, list[str]]]:
    """Every model with its names, which to find takes longer than all else."""
    providers = {provider.id: provider for provider in get_snapshot().providers}
    return [
        (providers[kind], model, _names(providers[kind], model))
        for kind in PROVIDER_KINDS
        for model in providers[kind].models
    ]


def _rows(
    provider: Provider, model: ModelInfo, names: Sequence[str], at: datetime
) -> Iterator[Price]:
    prices = model.get_prices(at)
    charged = [name for name, value in vars(prices).items() if value is not None]
    if "input_mtok" not in charged or "output_mtok" not in charged:
        return
    if any(medium in name for name in charged for medium in _OTHER_MEDIA):
        return
    if any(word in model.id for word in _NOT_BY_TOKENS_ALONE):
        return
    for name in names:
        yield Price(provider.id, name, _rates(prices, over_tokens=0), SOURCE)
        for over_tokens in _thresholds(prices):
            rates = _rates(prices, over_tokens=over_tokens)
            yield Price(provider.id, f"{name}{LONG_CONTEXT}{over_tokens}", rates, SOURCE)


def _names(provider: Provider, model: ModelInfo) -> list[str]:
    clauses = model.match.or_ if isinstance(model.match, ClauseOr) else [model.match]
    names = {model.id.removesuffix("-")}
    for clause in clauses:
        if isinstance(clause, ClauseEquals):
            names.add(clause.equals)
        elif isinstance(clause, ClauseStartsWith):
            names.add(clause.starts_with.removesuffix("-"))
    return sorted(
        name.lower()
        for name in names
        # The first model that matches a name has it. Fine-tuned ones match with more behind only.
        if provider.find_model(name) is model or name.startswith("ft:")
    )


def _thresholds(prices: ModelPrice) -> list[int]:
    tiered = (value for value in vars(prices).values() if isinstance(value, TieredPrices))
    return sorted({tier.start for value in tiered for tier in value.tiers})


def _rates(prices: ModelPrice, *, over_tokens: int) -> Rates:
    def picousd(name: str) -> int | None:
        value = getattr(prices, name)
        if value is None:
            return None
        if isinstance(value, TieredPrices):
            tiers = [tier.price for tier in value.tiers if 0 < tier.start <= over_tokens]
            value = tiers[-1] if tiers else value.base
        return _picousd(value)

    input_picousd = picousd("input_mtok") or 0
    cache_read_picousd = picousd("cache_read_mtok")
    cache_write_picousd = picousd("cache_write_mtok")
    return Rates(
        input_picousd=input_picousd,
        output_picousd=picousd("output_mtok") or 0,
        # Where caching has no price of its own it is billed as input.
        cache_read_picousd=input_picousd if cache_read_picousd is None else cache_read_picousd,
        cache_write_picousd=input_picousd if cache_write_picousd is None else cache_write_picousd,
    )


def _picousd(usd_per_million: Decimal) -> int:
    """Exact for up to six decimals; finer prices are rounded up, never down."""
    return int((usd_per_million * _PICOUSD_PER_TOKEN).to_integral_value(ROUND_CEILING))
