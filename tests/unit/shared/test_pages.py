"""Page tokens."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.checks import Checks
from steward_server.pages import from_page_token, page_size, to_page_token


@given(st.integers(-(2**63), 2**63 - 1), st.text(max_size=100))
def test_a_token_gives_back_what_it_stands_for(at_us: int, name: str) -> None:
    checks = Checks()
    assert from_page_token(checks, "page_token", to_page_token(at_us, name)) == (at_us, name)
    assert checks.wrong == {}


@given(
    st.text(max_size=300) | st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode())
)
def test_any_text_is_a_token_or_is_refused(text: str) -> None:
    checks = Checks()
    found = from_page_token(checks, "page_token", text)
    assert (found is None) == (not text or "page_token" in checks.wrong)


@pytest.mark.parametrize(
    "content",
    [
        b"[1]",
        b"[1,2]",
        b'["1","a"]',
        b'[true,"a"]',
        b"{}",
        b'[1e300,"a"]',
        b'[9223372036854775808,"a"]',
    ],
)
def test_what_is_no_position_is_refused(content: bytes) -> None:
    checks = Checks()
    assert from_page_token(checks, "t", base64.urlsafe_b64encode(content).decode()) is None
    assert checks.wrong.keys() == {"t"}


@pytest.mark.parametrize(
    ("wanted", "size", "is_wrong"),
    [(0, 100, False), (1, 1, False), (1_000, 1_000, False), (1_001, 1_001, True), (-1, -1, True)],
)
def test_sizes_have_bounds(wanted: int, size: int, is_wrong: bool) -> None:  # noqa: FBT001
    checks = Checks()
    assert page_size(checks, "page_size", wanted) == size
    assert bool(checks.wrong) == is_wrong
