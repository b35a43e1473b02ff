"""Credentials as values: what their text shows, and what may be an address."""

from __future__ import annotations

import pickle

import pytest

from steward_server.credential import Credential
from steward_server.credentials.credential import wrong_with_url

CREDENTIAL = Credential("my-gateway", "admin", "hunter2!", "http://localhost:8088", "the local one")


def test_no_text_made_of_it_shows_the_password() -> None:
    shown = [repr(CREDENTIAL), str(CREDENTIAL), f"{CREDENTIAL}", f"{[CREDENTIAL]}"]
    assert all("hunter2" not in text and "my-gateway" in text for text in shown)
    # It is not lost either.
    assert pickle.loads(pickle.dumps(CREDENTIAL)).password == "hunter2!"


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8088",
        "https://gateway.example.com/system/",
        "http://[::1]:8088",
        "HTTP://10.0.0.1",
        "https://" + "a" * 492,
    ],
)
def test_an_address_of_a_gateway_may_be_used(url: str) -> None:
    assert wrong_with_url(url) == ""


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8088", "must begin with http"),
        ("ftp://gateway", "must begin with http"),
        ("javascript:alert(1)", "must begin with http"),
        ("http://", "and a host"),
        ("http://admin:secret@gateway", "a user name or a password"),
        ("http://gateway?token=secret", "a query or a fragment"),
        ("http://gateway/#x", "a query or a fragment"),
        ("http://gate way", "characters that no URL has"),
        ("http://gate\nway", "characters that no URL has"),
        ("http://gateway\\..", "characters that no URL has"),
        ("http://gätewäy", "characters that no URL has"),
        ("http://[::1", "is not a URL"),
        ("http://gateway:99999", "is not a URL"),
        ("https://" + "a" * 493, "has 501 characters"),
    ],
)
def test_what_is_no_address_of_a_gateway_is_told_in_words(url: str, words: str) -> None:
    assert words in wrong_with_url(url)
    assert "secret" not in wrong_with_url(url)
