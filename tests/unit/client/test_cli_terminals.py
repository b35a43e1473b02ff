"""What is typed to leave a terminal, and what is undone at it."""

from __future__ import annotations

import pytest

from steward_client.cli.environments import Duration, size
from steward_client.cli.environments_terminal import DetachKeys, Modes
from steward_client.cli.output import without_controls

KEYS = b"\x10\x11"


@pytest.mark.parametrize(
    ("typed", "passed", "leaves"),
    [
        ([b"ls\n"], b"ls\n", False),
        ([b"a\x10\x11b"], b"a", True),
        ([b"\x10", b"\x11"], b"", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10\x10", b"\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
        ([b"x\x10x\x10\x11"], b"x\x10x", True),
    ],
)
def test_keys_to_leave_are_found_wherever_they_are_typed(
    typed: list[bytes],
    passed: bytes,
    leaves: bool,  # noqa: FBT001 - of the table above
) -> None:
    keys = DetachKeys(KEYS)
    fed = [keys.feed(each) for each in typed]

    assert b"".join(each for each, _ in fed) == passed
    assert fed[-1][1] is leaves


def test_keys_to_leave_are_read_by_their_names() -> None:
    assert DetachKeys(b"aab").feed(b"aaab") == (b"a", True)
    assert DetachKeys.parse("ctrl-p,ctrl-q") == KEYS
    assert DetachKeys.parse("Ctrl-], q") == b"\x1dq"
    for wrong in ("", "ctrl-", "shift-a", "ab", "\u00e4", "ctrl-p,"):
        with pytest.raises(ValueError, match="no key"):
            DetachKeys.parse(wrong)


def test_what_a_program_left_set_is_undone() -> None:
    modes = Modes()
    modes.saw(b"text \x1b[?1049h\x1b[?1h\x1b[?25")
    modes.saw(b"l\x1b[?1000;1006h more \x1b[?1l\x1b[31m")

    assert modes.undoing() == b"\x1b[0m\x1b[?1000l\x1b[?1006l\x1b[?1049l\x1b[?25h"
    modes.saw(b"\x1b[?1049;1000;1006l\x1b[?25h")
    assert modes.undoing() == b"\x1b[0m"


def test_what_is_no_mode_of_a_terminal_is_no_business_of_ours() -> None:
    modes = Modes()
    modes.saw(b"\x1b[?" + b"9" * 10_000 + b"h\x1b[?7777h\x1b]0;title\x07\x1b")

    assert modes.undoing() == b"\x1b[0m"


def test_sizes_and_times_are_written_as_people_do() -> None:
    sizes = {0: "0 B", 1_023: "1023 B", 1_024: "1.0 KiB", 150 * 2**20: "150 MiB", 2**41: "2.0 TiB"}
    times = {"90": 90, "15m": 900, "2h": 7_200, "1d": 86_400}

    assert {count: size(count) for count in sizes} == sizes
    assert {text: Duration().convert(text, None, None) for text in times} == times


def test_texts_of_strangers_move_no_cursor() -> None:
    assert without_controls("a\tb\x1b[2J\x07\x9bm\u00e9") == "a\tb\\x1b[2J\\x07\\x9bm\u00e9"
