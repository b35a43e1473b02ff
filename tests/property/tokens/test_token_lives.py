"""IC tokens over time: states only move forward."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from steward_server.tokens.token import Token, TokenStatus, TokenText

ORDER = [TokenStatus.ACTIVE, TokenStatus.EXPIRED, TokenStatus.REVOKED]
TIMES = st.none() | st.integers(11, 100)


@given(TIMES, TIMES, st.lists(st.integers(10, 120), min_size=2))
def test_a_state_never_goes_back(
    expires_at_us: int | None, revoked_at_us: int | None, looks_us: list[int]
) -> None:
    token = Token("token_1", "agent_1", "", "0" * 16, b"", ("budget",), 10, expires_at_us)
    seen = []
    for now_us in sorted(looks_us):
        is_revoked = revoked_at_us is not None and now_us >= revoked_at_us
        seen.append(
            replace(token, revoked_at_us=revoked_at_us if is_revoked else None).status(now_us)
        )
    assert seen == sorted(seen, key=ORDER.index)


@given(st.text(max_size=80))
def test_a_text_of_any_shape_is_parsed_to_itself_or_not_at_all(text: str) -> None:
    parsed = TokenText.parse(text)
    assert parsed is None or parsed.text == text
