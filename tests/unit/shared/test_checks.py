"""Texts that are taken, and what is said of those that are not."""

from __future__ import annotations

import pytest

from steward_server.checks import Checks
from steward_server.errors import InvalidArgument


@pytest.mark.parametrize("character", ["\x00", "\t", "\n", "\x1b", "\x7f", "\x85", "\x9b", "\x9f"])
def test_no_text_holds_what_a_terminal_obeys(character: str) -> None:
    with pytest.raises(InvalidArgument) as refused, Checks() as checks:
        checks.text("name", f"a{character}b", 0, 10)
    assert refused.value.fields == {"name": f"holds the control character U+{ord(character):04X}"}


@pytest.mark.parametrize("text", ["", "Zoë", "東京", "a\xa0b", "emoji 🙂"])
def test_letters_of_every_kind_are_text(text: str) -> None:
    with Checks() as checks:
        checks.text("name", text, 0, 10)


def test_sentences_may_break_their_lines_and_nothing_else() -> None:
    with Checks() as checks:
        assert checks.prose("reason", "  one\n\ttwo\r\n", 1, 20) == "one\n\ttwo"
    with pytest.raises(InvalidArgument), Checks() as checks:
        checks.prose("reason", "one\x9btwo", 1, 20)
