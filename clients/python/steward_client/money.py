"""Dollars as people write them and nano-dollars as everything else counts them. Pure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

NANOUSD_PER_USD = 1_000_000_000
MAX_NANOUSD = 2**63 - 1


def nanousd(usd: str | Decimal | float) -> int:
    """The exact nano-dollars of an amount in dollars.

    A float stands for the shortest decimal that reads back as it, so 0.1 is ten cents.

    Raises:
        TypeError: not a number, or a bool.
        ValueError: not finite, below 0, finer than 9 decimals, or beyond what 64 bits hold.
    """
    if isinstance(usd, bool) or not isinstance(usd, int | str | Decimal | float):
        raise TypeError(f"an amount in dollars is an int, str, Decimal or float, not {usd!r}")
    try:
        amount = Decimal(repr(usd) if isinstance(usd, float) else usd)
    except InvalidOperation as error:
        raise ValueError(f"{usd!r} is not an amount in dollars; write it like '12.50'") from error
    if not amount.is_finite():
        raise ValueError(f"an amount in dollars is finite, not {usd!r}")
    if amount < 0:
        raise ValueError(f"an amount in dollars is 0 or more, not {usd!r}")
    if len(amount.as_tuple().digits) > 28:
        raise ValueError(f"{usd!r} has more digits than money does; round it to 9 decimals")
    scaled = amount.scaleb(9)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{usd!r} has more than 9 decimals; the smallest amount is 0.000000001")
    if scaled > MAX_NANOUSD:
        raise ValueError(f"{usd!r} dollars is more than can be counted")
    return int(scaled)


def usd(amount_nanousd: int) -> Decimal:
    """The amount in dollars, exactly."""
    return Decimal(amount_nanousd).scaleb(-9)


def usd_text(amount_nanousd: int) -> str:
    """The amount as people read it: at least two decimals, no more than it takes.

    >>> usd_text(1_500_000_000), usd_text(-12_345), usd_text(0)
    ('$1.50', '-$0.000012345', '$0.00')
    """
    whole, part = divmod(abs(amount_nanousd), NANOUSD_PER_USD)
    decimals = f"{part:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount_nanousd < 0 else ''}${whole}.{decimals}"
