"""Dollars and nano-dollars."""

from __future__ import annotations

from decimal import Decimal

import pytest

from steward_client.money import nanousd, usd, usd_text


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        (50, 50_000_000_000),
        (0, 0),
        ("0.000000001", 1),
        (" 12.50 ", 12_500_000_000),
        (0.1, 100_000_000),
        (0.1 + 0.2, None),
        (1e-9, 1),
        (Decimal("1E+2"), 100_000_000_000),
        ("9223372036.854775807", 2**63 - 1),
    ],
)
def test_an_amount_is_taken_exactly_or_refused(
    dollars: float | str | Decimal, nano: int | None
) -> None:
    if nano is None:
        with pytest.raises(ValueError, match="more than 9 decimals"):
            nanousd(dollars)
        return
    assert nanousd(dollars) == nano


@pytest.mark.parametrize(
    "dollars",
    [
        float("nan"),
        float("inf"),
        float("-inf"),
        "NaN",
        "Infinity",
        -1,
        "-0.000000001",
        "0.0000000001",
        "a lot",
        "",
        "9223372036.854775808",
        "1e400",
        Decimal("1e-400"),
    ],
)
def test_what_is_no_amount_is_refused(dollars: float | str | Decimal) -> None:
    with pytest.raises(ValueError, match=r"dollars|decimals|digits|amount"):
        nanousd(dollars)


@pytest.mark.parametrize("thing", [True, None, b"1", [1]])
def test_what_is_no_number_is_refused(thing: object) -> None:
    with pytest.raises(TypeError):
        nanousd(thing)  # type: ignore[arg-type]


def test_nano_dollars_become_dollars_exactly() -> None:
    assert usd(1) == Decimal("0.000000001")
    assert usd(12_500_000_000) == Decimal("12.5")


def test_people_read_at_least_two_decimals_and_no_more_than_it_takes() -> None:
    assert [usd_text(nano) for nano in (0, 1, 1_500_000_000, -20_000_000_000)] == [
        "$0.00",
        "$0.000000001",
        "$1.50",
        "-$20.00",
    ]
