from __future__ import annotations

import struct
from pathlib import Path

import pytest

from steward_server.environments.container import engine_log
from steward_server.environments.container.engine import Engine
from steward_server.environments.container.engine_log import Piece, nanoseconds
from steward_server.environments.container.recording import Cursor, KeptRing, Recorder
from steward_server.environments.sandbox.inside.log_ring import decode


def _read(folder: Path) -> list[tuple[int, str, str]]:
    found = []
    for path in sorted(folder.glob("*.log")):
        for record, _ in decode(path.read_bytes()):
            for place, text in enumerate(record.payload.decode().split("\n")):
                found.append((record.sequence + place, record.stream, text))
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:02Z", 2_000_000_000),
        ("1970-01-01T01:00:01.000000007+01:00", 1_000_000_007),
        ("no time", 0),
    ],
)
def test_times_of_engines_are_read(text: str, expected: int) -> None:
    assert nanoseconds(text) == expected


def test_a_ring_goes_on_where_another_has_ended(tmp_path: Path) -> None:
    for number in range(5):
        ring = KeptRing(tmp_path, log_bytes=16 * 1024)
        assert ring.next_sequence == 2 * number + 1
        ring.write("stdout", 2, b"a\nb", 1)
        ring.close()

    assert [sequence for sequence, _, _ in _read(tmp_path)] == list(range(1, 11))


def test_a_ring_forgets_the_oldest_after_a_restart_too(tmp_path: Path) -> None:
    for _ in range(40):
        ring = KeptRing(tmp_path, log_bytes=16 * 1024)
        ring.write("stdout", 1, b"x" * 900, 1)
        ring.close()

    assert len(list(tmp_path.glob("*.log"))) <= 16
    assert _read(tmp_path)[-1][0] == 40


def test_a_cursor_believes_what_the_ring_has(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path, 1)
    assert cursor.position == (0, 0)
    cursor.move((7, 1), next_sequence=2)
    cursor.move((7, 2), next_sequence=3)
    cursor.close()

    assert Cursor(tmp_path, 3).position == (7, 2)
    # Killed after it was written and before the ring was.
    cursor = Cursor(tmp_path, 2)
    assert cursor.position in ((7, 1), (0, 0))


def test_a_cursor_that_was_ahead_is_never_believed_later(tmp_path: Path) -> None:
    cursor = Cursor(tmp_path, 1)
    cursor.move((7, 1), next_sequence=2)
    cursor.move((7, 2), next_sequence=3)
    cursor.close()
    Cursor(tmp_path, 2).close()

    # Lines of other commands have come, none of the main one.
    assert Cursor(tmp_path, 9).position == (7, 1)


async def test_podmans_file_is_read_and_goes_on_when_it_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    path.write_text(
        "2026-01-22T10:00:15.000000001+00:00 stdout F one\n"
        "2026-01-22T10:00:15.000000002+00:00 stderr P tw\n"
        "2026-01-22T10:00:15.000000003+00:00 stderr F o\n"
        "half a row"
    )
    found: list[Piece] = []
    async for some in engine_log.written(path, (0, 0), follow=False):
        found += some

    assert [(each.stream, each.content) for each in found] == [
        ("stdout", b"one\n"), ("stderr", b"tw"), ("stderr", b"o\n"),
    ]  # fmt: skip
    rest = [some async for some in engine_log.written(path, found[-1].position, follow=False)]
    assert rest == []

    path.with_name("new").write_text("2026-01-22T10:00:16+00:00 stdout F three\n")
    path.with_name("new").replace(path)
    (again,) = [some async for some in engine_log.written(path, found[-1].position, follow=False)]
    assert [each.content for each in again] == [b"three\n"]


def _frame(kind: int, text: str) -> bytes:
    return struct.pack(">BxxxL", kind, len(text)) + text.encode()


def test_dockers_frames_are_cut_wherever_they_were_torn() -> None:
    whole = b"".join(
        [
            _frame(1, "2026-01-22T10:00:15.000000001Z one\n"),
            _frame(1, "2026-01-22T10:00:15.000000001Z two\n"),
            _frame(2, "2026-01-22T10:00:16.000000001Z three\n"),
        ]
    )
    for cut in range(len(whole)):
        frames = engine_log._Frames()
        found = [*frames.add(whole[:cut]), *frames.add(whole[cut:])]
        assert [(each.stream, each.content) for each in found] == [
            ("stdout", b"one\n"), ("stdout", b"two\n"), ("stderr", b"three\n"),
        ]  # fmt: skip
        assert [each.position[1] for each in found] == [1, 2, 1]


async def test_a_recorder_that_comes_later_records_the_rest_once(tmp_path: Path) -> None:
    path = tmp_path / "ctr.log"
    rows = [f"2026-01-22T10:00:15.{n:09}+00:00 stdout F {n}\n" for n in range(100)]
    for end in (10, 10, 55, 100):
        path.write_text("".join(rows[:10]))
        with path.open("w") as file:
            file.write("".join(rows[:end]))
        recorder = Recorder(tmp_path / "logs", Engine("unix:///none"), "c", log_bytes=1 << 20)
        recorder.engine_file = path
        await recorder.catch_up(follow=False)
        recorder.add("stdout", ["of another command"])
        recorder.close()

    told = [text for _, _, text in _read(tmp_path / "logs") if "another" not in text]
    assert told == [str(number) for number in range(100)]
    assert [sequence for sequence, _, _ in _read(tmp_path / "logs")] == list(range(1, 105))
