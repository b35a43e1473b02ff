"""Addresses of any shape: what passes is safe to call with a key."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from steward_server.providers.provider import BadAddress, checked_base_url, masked

PIECES = st.sampled_from(
    ["http", "https", ":", "//", "/", "@", "?", "#", "\\", " ", "localhost", "127.0.0.1", "[::1]",
     "a.example", ":80", "v1", "%2f", "\n", "é", ".."]
)  # fmt: skip


@given(st.lists(PIECES, max_size=10).map("".join) | st.text(max_size=60))
def test_what_passes_is_a_plain_address(text: str) -> None:
    try:
        kept = checked_base_url(text, allow_http=False)
    except BadAddress:
        return
    parts = urlsplit(kept)
    assert parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
    assert parts.hostname
    assert not kept.endswith("/")
    assert not set("@?#\\ \n") & set(kept.split("/", 3)[2])
    assert checked_base_url(kept, allow_http=False) == kept


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=500))
def test_a_mask_shows_at_most_seven_characters(key: str) -> None:
    shown = masked(key)
    assert len(shown) <= 10
    assert shown == "***" or (key.startswith(shown[:4]) and key.endswith(shown[-3:]))
