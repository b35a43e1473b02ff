"""Usage, costs and bounds for any numbers a provider may say."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from steward_client.prices import Rates, Tariff, TokenUsage, cost_nanousd

COUNTS = st.integers(0, 10**7)
RATES = st.builds(Rates, *[st.integers(0, 10**9)] * 4)
USAGES = st.builds(TokenUsage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
TARIFFS = st.builds(
    lambda rates, longer: Tariff("m", rates, tuple(sorted(longer.items()))),
    RATES,
    st.dictionaries(st.integers(1, 10**6), RATES, max_size=3),
)


@given(prompt=COUNTS, output=COUNTS, data=st.data())
def test_the_parts_of_an_openai_usage_sum_to_its_total(
    prompt: int, output: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    usage = TokenUsage.from_openai(
        {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        }
    )

    assert usage.total == prompt + output
    assert usage.input_total == prompt
    assert (usage.cache_read, usage.cache_write) == (cached, written)


@given(counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), data=st.data())
def test_the_parts_of_an_anthropic_usage_sum_to_its_total(
    counts: tuple[int, int, int, int], data: st.DataObject
) -> None:
    fresh, output, read, written = counts
    hour = data.draw(st.integers(0, written))
    usage = TokenUsage.from_anthropic(
        {
            "input_tokens": fresh,
            "output_tokens": output,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": {"ephemeral_1h_input_tokens": hour},
        }
    )

    assert usage.total == sum(counts)
    assert usage.cache_write_total == written


@given(rates=RATES, usage=USAGES)
def test_a_cost_is_the_exact_sum_rounded_up_once(rates: Rates, usage: TokenUsage) -> None:
    exact = Fraction(
        rates.input_picousd * (usage.input + 2 * usage.cache_write_1h)
        + rates.output_picousd * usage.output
        + rates.cache_read_picousd * usage.cache_read
        + rates.cache_write_picousd * usage.cache_write,
        1_000,
    )
    cost = cost_nanousd(rates, usage)

    assert isinstance(cost, int)
    assert 0 <= cost - exact < 1


@given(tariff=TARIFFS, usage=USAGES, slack=st.tuples(COUNTS, COUNTS))
def test_no_call_within_its_bounds_costs_more_than_its_bound(
    tariff: Tariff, usage: TokenUsage, slack: tuple[int, int]
) -> None:
    bound = tariff.bound_nanousd(
        input_tokens=usage.input_total + slack[0],
        output_tokens=usage.output + slack[1],
        hour_writes=True,
    )

    assert tariff.cost_nanousd(usage) <= bound


@given(
    tariff=TARIFFS,
    available=st.integers(0, 10**12),
    input_tokens=COUNTS,
    choices=st.integers(1, 5),
)
def test_what_is_said_to_be_affordable_is_and_one_more_is_not(
    tariff: Tariff, available: int, input_tokens: int, choices: int
) -> None:
    tokens = tariff.affordable_output_tokens(
        available_nanousd=available, input_tokens=input_tokens, choice_count=choices
    )

    def bound(output_tokens: int) -> int:
        return tariff.bound_nanousd(
            input_tokens=input_tokens, output_tokens=output_tokens, choice_count=choices
        )

    if tokens is None:
        assert bound(10**9) <= available
        return
    if tokens >= 0:
        assert bound(tokens) <= available
    assert bound(tokens + 1) > available
