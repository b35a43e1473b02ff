"""Messages in envelopes: what goes in comes out, and what is broken is said to be."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_gateway.rpc import envelope

MESSAGES = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=5)


def packed(messages: list[tuple[int, bytes]]) -> bytes:
    return b"".join(envelope.pack(payload, flags) for flags, payload in messages)


@given(MESSAGES)
def test_messages_come_out_as_they_went_in(messages: list[tuple[int, bytes]]) -> None:
    assert list(envelope.unpack(packed(messages))) == messages


@given(MESSAGES.filter(bool), st.data())
def test_a_body_that_is_cut_is_broken_unless_between_messages(
    messages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    whole = packed(messages)
    end = data.draw(st.integers(0, len(whole)))
    ends = {len(packed(messages[:count])) for count in range(len(messages) + 1)}
    if end in ends:
        assert len(list(envelope.unpack(whole[:end]))) <= len(messages)
        return
    with pytest.raises(envelope.BrokenEnvelope):
        list(envelope.unpack(whole[:end]))


@given(st.binary(max_size=5000))
def test_compression_is_undone(data: bytes) -> None:
    assert envelope.inflate(envelope.deflate(data), len(data)) == data
    assert gzip.decompress(envelope.deflate(data)) == data


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 3000))
def test_never_more_comes_out_than_is_allowed(data: bytes, less: int) -> None:
    limit = max(0, len(data) - less)
    with pytest.raises(envelope.TooLarge):
        envelope.inflate(envelope.deflate(data), limit)


@given(st.binary(min_size=1, max_size=200))
def test_what_is_cut_or_longer_than_it_says_is_broken(data: bytes) -> None:
    whole = envelope.deflate(data)
    for broken in (whole[:-1], whole + b"x", data):
        with pytest.raises(envelope.BrokenEnvelope):
            envelope.inflate(broken, 10_000)


@pytest.mark.parametrize(
    ("header", "accepts"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("identity", False),
        ("", False),
    ],
)
def test_whether_gzip_is_accepted(header: str, *, accepts: bool) -> None:
    assert envelope.accepts_gzip(header) == accepts
