"""Whom `X-Forwarded-For` is believed about, and how far."""

from __future__ import annotations

import pytest

from steward_gateway.forwarding import parse_proxies, read_address

PROXIES = parse_proxies("127.0.0.1, 10.0.0.0/8, 2001:db8:f::/48")


def caller_of(peer: str, forwarded: str) -> str | None:
    caller = PROXIES.caller_of(read_address(peer), forwarded)
    return str(caller) if caller else None


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.9.9.9", " 203.0.113.7 ", "203.0.113.7"),
        ("::ffff:10.9.9.9", "203.0.113.7", "203.0.113.7"),
        ("2001:db8:f::1", "2001:db8:a::7", "2001:db8:a::7"),
        ("127.0.0.1", "[2001:db8:a::7]:4444", "2001:db8:a::7"),
        ("127.0.0.1", "203.0.113.7:4444", "203.0.113.7"),
        ("127.0.0.1", "::ffff:203.0.113.7", "203.0.113.7"),
        # Through several proxies: the first from the right that is none of ours.
        ("127.0.0.1", "203.0.113.7, 10.0.0.3", "203.0.113.7"),
        ("127.0.0.1", "203.0.113.7,,10.0.0.3,", "203.0.113.7"),
        # What stands left of it was written by that caller.
        ("127.0.0.1", "192.0.2.1, 203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "10.0.0.9, 203.0.113.7, 10.0.0.3", "203.0.113.7"),
        ("127.0.0.1", "localhost, unknown, 203.0.113.7", "203.0.113.7"),
        # As far as can be seen.
        ("127.0.0.1", "192.0.2.1, unknown, 10.0.0.3", "10.0.0.3"),
        ("127.0.0.1", "10.0.0.4, 10.0.0.3", "10.0.0.4"),
    ],
)
def test_the_caller_is_the_right_most_hop_that_is_no_proxy_of_ours(
    peer: str, forwarded: str, caller: str
) -> None:
    assert caller_of(peer, forwarded) == caller


@pytest.mark.parametrize(
    ("peer", "forwarded"),
    [
        ("203.0.113.7", "192.0.2.1"),  # it may say what it likes
        ("203.0.113.7", "10.0.0.3"),
        ("127.0.0.1", ""),
        ("127.0.0.1", " , "),
        ("127.0.0.1", "192.0.2.1, unknown"),
        ("127.0.0.1", "192.0.2.1, <script>"),
        ("", "192.0.2.1"),
        ("in-process", "192.0.2.1"),
    ],
)
def test_the_peer_is_the_caller_where_it_is_no_proxy_or_names_nobody(
    peer: str, forwarded: str
) -> None:
    assert caller_of(peer, forwarded) is None


def test_no_proxy_is_believed_unless_it_is_named() -> None:
    assert parse_proxies(" , ").caller_of(read_address("127.0.0.1"), "203.0.113.7") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1/8", "host bits"),
        ("proxy.example", "'proxy.example' does not appear"),
        ("127.0.0.1 10.0.0.1", "does not appear"),
        ("0.0.0.0/0", "any address"),
        ("127.0.0.1, ::/0", "any address"),
    ],
)
def test_what_is_no_network_or_everybodys_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse_proxies(text)
