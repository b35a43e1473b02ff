"""The prices that ship against the package they are read from."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

from steward_client.price_snapshot import PROVIDER_KINDS, SOURCE, shipped_prices, shipped_table
from steward_client.prices import LONG_CONTEXT, TokenUsage

AT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "model", "rates"),
    [
        ("openai", "gpt-4o", (2_500_000, 10_000_000, 1_250_000, 2_500_000)),
        ("openai", "gpt-4o-mini", (150_000, 600_000, 75_000, 150_000)),
        ("openai", "gpt-4o-2024-05-13", (5_000_000, 15_000_000, 5_000_000, 5_000_000)),
        ("anthropic", "claude-haiku-4-5", (1_000_000, 5_000_000, 100_000, 1_250_000)),
        ("anthropic", "claude-3-opus-20240229", (15_000_000, 75_000_000, 1_500_000, 18_750_000)),
    ],
)
def test_well_known_prices_are_exact(
    kind: str, model: str, rates: tuple[int, int, int, int]
) -> None:
    tariff = shipped_table(AT).find(kind, model)

    assert tariff is not None
    assert (
        tariff.rates.input_picousd,
        tariff.rates.output_picousd,
        tariff.rates.cache_read_picousd,
        tariff.rates.cache_write_picousd,
    ) == rates


def test_every_row_costs_what_the_package_says() -> None:
    table = shipped_table(AT)
    rows = [row for row in shipped_prices(AT) if LONG_CONTEXT not in row.model]

    assert len(rows) > 150
    for row in rows:
        tariff = table.find(row.provider, row.model)
        assert tariff is not None
        for over_tokens in (0, *(over for over, _ in tariff.long_context)):
            usage = TokenUsage(input=over_tokens + 1, output=1_000, cache_read=100)
            expected = calc_price(
                Usage(
                    input_tokens=usage.input_total,
                    output_tokens=usage.output,
                    cache_read_tokens=usage.cache_read,
                ),
                f"{row.model}-2024-08-06:acme::1" if row.model.startswith("ft:") else row.model,
                provider_id=row.provider,
                genai_request_timestamp=AT,
            ).total_price
            cost = Decimal(tariff.cost_nanousd(usage)).scaleb(-9)
            assert 0 <= cost - expected < Decimal("1e-9"), row


def test_prices_change_on_their_day() -> None:
    before = shipped_table(datetime(2025, 6, 9, tzinfo=UTC)).find("openai", "o3")
    after = shipped_table(datetime(2025, 6, 10, tzinfo=UTC)).find("openai", "o3")

    assert before is not None
    assert after is not None
    assert before.rates.input_picousd == 10_000_000
    assert after.rates.input_picousd == 2_000_000


def test_models_that_charge_for_more_than_tokens_have_no_price() -> None:
    table = shipped_table(AT)

    for model in ("gpt-4o-audio-preview", "gpt-image-1", "tts-1", "gpt-4o-search-preview"):
        assert table.find("openai", model) is None


def test_writing_to_the_hour_cache_costs_twice_the_input_everywhere() -> None:
    providers = {provider.id: provider for provider in get_snapshot().providers}

    for model in providers["anthropic"].models:
        prices = model.get_prices(AT)
        hour = prices.cache_write_1h_mtok
        fresh = prices.input_mtok
        if isinstance(hour, Decimal) and isinstance(fresh, Decimal):
            assert hour == 2 * fresh, model.id


def test_no_rate_is_negative_and_every_source_is_named() -> None:
    for row in shipped_prices(AT):
        assert row.provider in PROVIDER_KINDS
        assert row.source == SOURCE == "genai-prices 0.2.3"
        assert row.rates.input_picousd > 0
