"""Money between nano-dollars and JSON: nothing is lost on any way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward.budget.v1 import budget_pb2
from steward_gateway import money
from steward_gateway.codec import Codecs, FieldErrors, Style

CODEC = Codecs(Style.HOUSE).of(budget_pb2.ReportRequest.DESCRIPTOR)
amounts = st.integers(-(2**63), 2**63 - 1)


def read(text: str) -> int:
    message: Any = CODEC.from_json(f'{{"cost_usd":{text}}}')
    return int(message.cost_nanousd)


@given(amounts)
def test_every_amount_survives_printing_and_reading(nanousd: int) -> None:
    printed = CODEC.to_json(budget_pb2.ReportRequest(cost_nanousd=nanousd))
    message: Any = CODEC.from_json(printed)
    assert message.cost_nanousd == nanousd


@given(amounts)
def test_an_amount_is_printed_as_the_decimal_it_is(nanousd: int) -> None:
    printed = orjson.dumps(money.dollars(nanousd)).decode()
    assert Decimal(printed) * 10**9 == nanousd
    assert "e" not in printed
    assert not (("." in printed) and printed.endswith("0"))


@given(amounts, st.sampled_from(["plain", "text", "exponent", "zeros"]))
def test_an_amount_is_read_however_it_is_written(nanousd: int, form: str) -> None:
    exact = Decimal(nanousd).scaleb(-9)
    written = {
        "plain": f"{exact:f}",
        "text": f'"{exact:f}"',
        "exponent": f"{nanousd}e-9",
        "zeros": f"{exact:f}000" if "." in f"{exact:f}" else f"{exact:f}.000",
    }[form]
    assert read(written) == nanousd


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12))
def test_any_decimal_is_read_exactly_or_refused(amount: Decimal) -> None:
    nanos = amount * 10**9
    fits = nanos == nanos.to_integral_value() and abs(nanos) < 2**63
    try:
        got = read(f"{amount:f}")
    except FieldErrors:
        assert not fits
    else:
        assert fits
        assert got == nanos


@pytest.mark.parametrize(
    ("written", "nanousd"),
    [
        ("0.1", 100_000_000),
        ("0.3", 300_000_000),
        ("1e-9", 1),
        ("1.5E1", 15_000_000_000),
        ("-0", 0),
        ("-0.0", 0),
        ("9223372036.854775807", 2**63 - 1),
        ("-9223372036.854775808", -(2**63)),
        ("8388609.123456789", 8_388_609_123_456_789),
        ('"1.50"', 1_500_000_000),
    ],
)
def test_amounts_that_floats_would_spoil(written: str, nanousd: int) -> None:
    assert read(written) == nanousd


@pytest.mark.parametrize(
    "written",
    [
        "0.0000000001",
        "0.1000000000000000055",
        "0.30000000000000004",
        "1e-400",
        "1e-99999999",
        '"0.0000000001"',
        "123456.7890123456789",
        "4194304.00000000049",
    ],
)
def test_more_than_nine_decimals_are_refused_and_never_rounded(written: str) -> None:
    with pytest.raises(FieldErrors, match="at most 9 decimals"):
        read(written)


@pytest.mark.parametrize(
    "written",
    ["9223372036.854775808", "1e18", "1e300", '"1e999"', "99999999999999999999999999999999999999"],
)
def test_an_amount_beyond_64_bits_is_refused(written: str) -> None:
    with pytest.raises(FieldErrors, match="must be from"):
        read(written)


@pytest.mark.parametrize("written", ['"a lot"', '"1,5"', '"NaN"', "true", "[]", "{}", '""', '" 1"'])
def test_what_is_no_amount_is_refused(written: str) -> None:
    with pytest.raises(FieldErrors, match="an amount in dollars"):
        read(written)
