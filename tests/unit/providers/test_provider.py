"""Addresses and masks of providers."""

from __future__ import annotations

import pytest

from steward_server.providers.provider import (
    MAX_URL,
    BadAddress,
    Provider,
    ProviderKey,
    ProviderKind,
    checked_base_url,
    masked,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com//", "https://api.example.com"),
        ("https://10.0.0.7:8443", "https://10.0.0.7:8443"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://" + "a" * (MAX_URL - 8), "https://" + "a" * (MAX_URL - 8)),
    ],
)
def test_good_addresses_are_kept_without_a_trailing_slash(given: str, kept: str) -> None:
    assert checked_base_url(given, allow_http=False) == kept


@pytest.mark.parametrize(
    "given",
    [
        "",
        "api.example.com",
        "//api.example.com",
        "https://",
        "https:///v1",
        "https://:443",
        "ftp://api.example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user@api.example.com",
        "https://user:pass@api.example.com",
        "https://@api.example.com",
        "https://api.example.com/?",
        "https://api.example.com/?key=1",
        "https://api.example.com/#",
        "https://api.example.com:99999",
        "https://api.example.com:port",
        "https://[::1",
        "https://api.example.com/a b",
        "https://api.example.com\\@other.example",
        "https://api.example.com\r\nX: 1",
        "https://bücher.example",
        "https://" + "a" * (MAX_URL - 7),
    ],
)
def test_bad_addresses_are_refused(given: str) -> None:
    for allow_http in (False, True):
        with pytest.raises(BadAddress):
            checked_base_url(given, allow_http=allow_http)


@pytest.mark.parametrize(
    "given", ["http://api.example.com", "http://127.0.0.1.example.com", "http://0.0.0.0:1"]
)
def test_plain_http_beyond_this_machine_is_for_development(given: str) -> None:
    with pytest.raises(BadAddress, match="in clear"):
        checked_base_url(given, allow_http=False)
    assert checked_base_url(given, allow_http=True) == given


@pytest.mark.parametrize(
    ("key", "shown"),
    [("sk-123456789", "sk-1...789"), ("123456789", "1234...789"), ("12345678", "***"), ("", "***")],
)
def test_a_masked_key_shows_its_ends_if_enough_is_hidden(key: str, shown: str) -> None:
    assert masked(key) == shown


def test_no_key_is_printed() -> None:
    provider = Provider("ip_1", "a", ProviderKind.OPENAI, "u", b"sealed-bytes", "***", 0)
    assert "sealed-bytes" not in repr(provider)
    assert "sk-1" not in repr(ProviderKey("a", "openai", "u", "sk-1"))
