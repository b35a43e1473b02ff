"""API keys by themselves: their text and when they end."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest

from steward_server.api_keys.key import Key, KeyKind, KeyRole, KeyText


@pytest.mark.parametrize("kind", KeyKind)
def test_a_new_text_is_parsed_back(kind: KeyKind) -> None:
    text = KeyText.new(kind)

    assert KeyText.parse(text.text) == text
    assert re.fullmatch(rf"{kind.value}_[0-9a-f]{{16}}_[A-Za-z0-9_-]{{43}}", text.text)
    assert text.digest == hashlib.sha256(text.text.encode()).digest()


def test_no_two_texts_are_alike() -> None:
    texts = [KeyText.new(KeyKind.ITK).text for _ in range(1_000)]

    assert len({text[-43:] for text in texts}) == 1_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],
        lambda text: text + "x",
        lambda text: text + "\n",
        lambda text: text.upper(),
        lambda text: " " + text,
        lambda text: text.replace("agentbox_", "ak_live_"),
        lambda text: text.replace("agentbox_", "ic_"),
        lambda text: text.removeprefix("agentbox_"),
        lambda text: text[:-1] + "!",
        lambda text: "",
    ],
    ids=[
        *("cut", "too long", "a newline", "capitals", "a space", "another prefix", "an IC token's"),
        *("no prefix", "a strange character", "nothing"),
    ],
)
def test_a_damaged_text_is_none_of_ours(damage: Callable[[str], str]) -> None:
    assert KeyText.parse(damage(KeyText.new(KeyKind.AGENTBOX).text)) is None


def test_a_secret_does_not_show_itself() -> None:
    text = KeyText.new(KeyKind.AGENTBOX)
    key = Key(
        "key_1", "user_1", text.kind, text.public_part, text.digest, "", KeyRole.USER, {}, 0, None
    )

    assert text.text not in repr(text)
    assert repr(text.digest) not in repr(key)
    assert text.text.startswith(f"{key.prefix}_")


def test_a_key_expires_when_its_time_has_come() -> None:
    key = Key("key_1", "user_1", KeyKind.ITK, "0" * 16, b"", "", KeyRole.USER, {}, 0, 100)

    assert [key.is_expired(now_us) for now_us in (0, 99, 100, 101)] == [False, False, True, True]
