"""`steward prices`: what models' tokens cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import click
from rich.table import Table

from steward_client.cli.output import card, decimal_text, table
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.values import Price, ProviderKind

KINDS = click.Choice(["openai", "anthropic"])


@click.group()
def prices() -> None:
    """See and set prices, in dollars per million tokens."""


@prices.command("list")
@click.option("--provider", type=KINDS, help="Only of this kind of provider.")
@click.option("--model", default="", help="Only models whose name contains this.")
@calls_server
def list_prices(steward: Steward, *, provider: ProviderKind | None, model: str) -> None:
    """List the prices in force."""
    listed = steward.client.prices.list(provider=provider)
    steward.show([price for price in listed if model in price.model], _price_table)


@prices.command("set")
@click.argument("provider", type=KINDS)
@click.argument("model")
@click.option("--input", "input_usd", type=Usd(), required=True, help="Of plain input.")
@click.option("--output", "output_usd", type=Usd(), required=True, help="Of output.")
@click.option(
    "--cache-read", "read_usd", type=Usd(), help="Of cached input; as input if not given."
)
@click.option(
    "--cache-write", "write_usd", type=Usd(), help="Of caching it; as input if not given."
)
@calls_server
def set_price(
    steward: Steward,
    provider: ProviderKind,
    model: str,
    *,
    input_usd: Decimal,
    output_usd: Decimal,
    read_usd: Decimal | None,
    write_usd: Decimal | None,
) -> None:
    """Set the price of a model from now on."""
    try:
        price = steward.client.prices.set(
            provider,
            model,
            input_usd_per_million=input_usd,
            output_usd_per_million=output_usd,
            cache_read_usd_per_million=read_usd,
            cache_write_usd_per_million=write_usd,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    steward.show(price, _price_card)


def _price_table(listed: Sequence[Price]) -> Table:
    return table(
        ["PROVIDER", "MODEL", "#INPUT", "#OUTPUT", "#CACHE READ", "#CACHE WRITE", "SOURCE"],
        [(price.provider, price.model, *_amounts(price), price.source) for price in listed],
    )


def _price_card(price: Price) -> Table:
    names = ("input", "output", "cache read", "cache write")
    return card(
        [
            ("provider", price.provider),
            ("model", price.model),
            *zip(names, _amounts(price), strict=True),
        ]
    )


def _amounts(price: Price) -> tuple[str, str, str, str]:
    return (
        decimal_text(price.input_usd_per_million),
        decimal_text(price.output_usd_per_million),
        decimal_text(price.cache_read_usd_per_million),
        decimal_text(price.cache_write_usd_per_million),
    )
