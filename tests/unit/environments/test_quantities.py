"""Quantities: what is read, what is refused, and that writing undoes reading."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.environments.quantities import (
    BadQuantity,
    bytes_text,
    cpu_text,
    parse_bytes,
    parse_cpu,
    room_text,
)


@pytest.mark.parametrize(
    ("text", "millicores"),
    [("500m", 500), ("1", 1000), ("0.5", 500), ("2.25", 2250), ("0", 0), ("0.001", 1)],
)
def test_cores_are_read(text: str, millicores: int) -> None:
    assert parse_cpu(text) == millicores


@pytest.mark.parametrize(
    "text", ["", "half", "-1", "1.5m", "0.0001", "1e3", "5 m", "1,5", "٣", "1M", "9" * 30]
)
def test_what_is_no_number_of_cores_is_refused(text: str) -> None:
    with pytest.raises(BadQuantity, match="is"):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("512Mi", 536_870_912),
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        ("500M", 500_000_000),
        ("1k", 1000),
        ("1K", 1000),
        ("128974848", 128_974_848),
        ("2Ti", 2**41),
    ],
)
def test_amounts_are_read(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text", ["", "lots", "-1Gi", "1gi", "1GiB", "0.3", "1Ei", "9" * 25, "2000000Ti"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(BadQuantity):
        parse_bytes(text)


@given(st.integers(0, 10**9))
def test_cores_that_are_written_are_read_the_same(millicores: int) -> None:
    assert parse_cpu(cpu_text(millicores)) == millicores


@given(st.integers(0, 2**60) | st.integers(0, 1000).map(lambda n: n << 30))
def test_amounts_that_are_written_are_read_the_same(amount: int) -> None:
    assert parse_bytes(bytes_text(amount)) == amount


def test_what_the_guide_prints_is_written_the_same() -> None:
    assert [cpu_text(parse_cpu(each)) for each in ("500m", "1", "24")] == ["500m", "1", "24"]
    assert [bytes_text(parse_bytes(each)) for each in ("512Mi", "1Gi")] == ["512Mi", "1Gi"]
    assert room_text(48 << 30) == "48Gi"
    assert room_text((48 << 30) - 1) == "47Gi"
    assert room_text(900 << 20) == "900Mi"
