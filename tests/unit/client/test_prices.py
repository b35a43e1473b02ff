"""What calls cost and could cost."""

from __future__ import annotations

import pytest

from steward_client.prices import (
    ADMINISTRATOR,
    Price,
    PriceTable,
    Rates,
    Tariff,
    TokenUsage,
    cost_nanousd,
)

RATES = Rates(
    input_picousd=2_500_000,
    output_picousd=10_000_000,
    cache_read_picousd=1_250_000,
    cache_write_picousd=3_125_000,
)
LONG = Rates(
    input_picousd=5_000_000,
    output_picousd=15_000_000,
    cache_read_picousd=2_500_000,
    cache_write_picousd=6_250_000,
)


def test_each_part_of_a_usage_is_charged_once_by_its_own_rate() -> None:
    usage = TokenUsage(input=1_000, output=100, cache_read=10, cache_write=4, cache_write_1h=2)

    assert cost_nanousd(RATES, usage) == 2_500_000 + 1_000_000 + 12_500 + 12_500 + 10_000


def test_a_cost_is_rounded_up_once() -> None:
    cheap = Rates(1, 1, 1, 1)

    assert cost_nanousd(cheap, TokenUsage(input=1)) == 1
    assert cost_nanousd(cheap, TokenUsage(1, 1, 1, 1)) == 1
    assert cost_nanousd(cheap, TokenUsage(input=1_000)) == 1
    assert cost_nanousd(cheap, TokenUsage(input=1_001)) == 2
    assert cost_nanousd(cheap, TokenUsage()) == 0


def test_openai_counts_cached_tokens_inside_the_prompt() -> None:
    usage = TokenUsage.from_openai(
        {
            "prompt_tokens": 100,
            "completion_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    )

    assert usage == TokenUsage(input=30, output=7, cache_read=60, cache_write=10)
    assert usage.total == 107


def test_anthropic_counts_cached_tokens_outside_the_input() -> None:
    usage = TokenUsage.from_anthropic(
        {
            "input_tokens": 30,
            "output_tokens": 7,
            "cache_read_input_tokens": 60,
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
        }
    )

    assert usage == TokenUsage(input=30, output=7, cache_read=60, cache_write=4, cache_write_1h=6)
    assert usage.total == 107


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1.5, "completion_tokens": 1},
        {"prompt_tokens": True, "completion_tokens": 1},
        {
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    ],
)
def test_a_usage_that_makes_no_sense_is_refused(usage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tokens|counts"):
        TokenUsage.from_openai(usage)


def test_a_long_call_is_charged_by_the_long_rates_in_whole() -> None:
    tariff = Tariff("m", RATES, ((200_000, LONG),))

    assert tariff.cost_nanousd(TokenUsage(input=200_000)) == 200_000 * 2_500
    assert tariff.cost_nanousd(TokenUsage(input=150_000, cache_read=50_001)) == (
        150_000 * 5_000 + -(-50_001 * 2_500_000 // 1_000)
    )


def test_a_bound_takes_the_dearest_rate_that_may_apply() -> None:
    tariff = Tariff("m", RATES, ((200_000, LONG),))

    assert tariff.bound_nanousd(input_tokens=1_000, output_tokens=10) == 3_125_000 + 100_000
    assert tariff.bound_nanousd(input_tokens=1_000, output_tokens=10, choice_count=3) == (
        3_125_000 + 300_000
    )
    assert tariff.bound_nanousd(input_tokens=1_000, output_tokens=0, hour_writes=True) == 5_000_000
    assert tariff.bound_nanousd(input_tokens=200_001, output_tokens=0) == -(
        -200_001 * 6_250_000 // 1_000
    )


def test_what_is_affordable_is_bounded_by_the_money_and_one_more_is_not() -> None:
    tariff = Tariff("m", RATES)
    affordable = tariff.affordable_output_tokens(available_nanousd=1_000_000, input_tokens=100)

    assert affordable is not None
    assert tariff.bound_nanousd(input_tokens=100, output_tokens=affordable) <= 1_000_000
    assert tariff.bound_nanousd(input_tokens=100, output_tokens=affordable + 1) > 1_000_000


def test_nothing_is_affordable_when_the_input_is_not() -> None:
    tariff = Tariff("m", RATES)

    assert tariff.affordable_output_tokens(available_nanousd=1, input_tokens=100) == -1


def test_output_without_a_price_may_be_as_long_as_it_likes() -> None:
    tariff = Tariff("m", Rates(1_000, 0, 1_000, 1_000))

    assert tariff.affordable_output_tokens(available_nanousd=100, input_tokens=100) is None


def test_a_dated_name_has_the_price_of_the_undated_one_unless_it_has_its_own() -> None:
    table = PriceTable.from_rows(
        "v1",
        [
            Price("openai", "gpt-x", RATES),
            Price("openai", "gpt-x-2024-05-13", LONG),
            Price("anthropic", "claude-x", RATES),
            Price("openai", "ft:gpt-x", LONG),
        ],
    )

    def rates(kind: str, model: str) -> Rates | None:
        tariff = table.find(kind, model)
        return tariff.rates if tariff else None

    assert rates("openai", "gpt-x-2024-08-06") == RATES
    assert rates("openai", "gpt-x-2024-05-13") == LONG
    assert rates("anthropic", "claude-x-20250929") == RATES
    assert rates("anthropic", "claude-x-latest") == RATES
    assert rates("openai", "ft:gpt-x-2024-07-18:acme::8a") == LONG
    assert rates("openai", "GPT-X") == RATES
    assert rates("openai", "claude-x") is None
    assert rates("openai", "gpt-x-mini") is None
    assert rates("openai", "gpt-x-2024-13-13") is None


def test_a_price_somebody_set_stands_for_every_length() -> None:
    shipped = [Price("openai", "m", RATES, "shipped"), Price("openai", "m:over-9", LONG, "shipped")]
    own = Price("openai", "m", Rates(1, 1, 1, 1), ADMINISTRATOR)

    before = PriceTable.from_rows("v1", shipped).find("openai", "m")
    after = PriceTable.from_rows("v2", [*shipped, own]).find("openai", "m")

    assert before is not None
    assert after is not None
    assert before.long_context == ((9, LONG),)
    assert after.long_context == ()
    assert after.rates.input_picousd == 1


@pytest.mark.parametrize("part", ["input", "output", "cache_read", "cache_write", "cache_write_1h"])
def test_a_negative_count_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        TokenUsage(**{part: -1})
