"""What comments say of limits, as JSON schemas have it."""

from __future__ import annotations

from typing import Any

import pytest

from steward_gateway.describe.limits import count_limits, number_limits, text_limits


@pytest.mark.parametrize(
    ("comment", "limits"),
    [
        ("1 to 1,000 characters.", {"minLength": 1, "maxLength": 1000}),
        ("Either this or `email`; up to 255 characters.", {"maxLength": 255}),
        ("Up to 100 characters.", {"maxLength": 100}),
        ('1 to 50 characters of a-z, 0-9, "-" and "_".', {"minLength": 1, "maxLength": 50}),
        ("The key's first four and last three characters.", {}),
        ("", {}),
    ],
)
def test_the_length_of_a_text(comment: str, limits: dict[str, Any]) -> None:
    assert text_limits(comment) == limits


@pytest.mark.parametrize(
    ("comment", "limits"),
    [
        ("1 to 1,000; 0 means 100.", {"minimum": 0, "maximum": 1000}),
        ("1 to 3,650; absent means that it does not expire.", {"minimum": 1, "maximum": 3650}),
        ("0 or more.", {"minimum": 0}),
        ("More than 0, up to 1,000,000 dollars.", {"exclusiveMinimum": 0, "maximum": 1_000_000}),
        ("More than 0; absent: the default.", {"exclusiveMinimum": 0}),
        ("Spent and overrun as a share of the limit, 0 to 100 and beyond.", {}),
        ("1, 2, 3 … within the lease; 0 leaves the numbering to the server.", {}),
    ],
)
def test_the_size_of_a_number(comment: str, limits: dict[str, Any]) -> None:
    assert number_limits(comment) == limits


def test_the_length_of_a_list() -> None:
    assert count_limits("Up to 1,000, in order.") == {"maxItems": 1000}
    assert count_limits("In order.") == {}
