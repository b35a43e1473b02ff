from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as some

from steward_server.environments.sandbox.inside.log_ring import (
    HEADER,
    MOST_RECORD_BYTES,
    Lines,
    Record,
    Ring,
    decode,
    encode,
    segment_name,
    segment_start,
)


def _ring(folder: Path, segment_bytes: int = 1000, segment_count: int = 4) -> Ring:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    return Ring(fd, segment_bytes=segment_bytes, segment_count=segment_count)


def _read(folder: Path) -> list[Record]:
    files = sorted(path for path in folder.iterdir() if segment_start(path.name) is not None)
    return [record for path in files for record, _ in decode(path.read_bytes())]


def test_a_record_is_read_as_it_was_written() -> None:
    record = Record(7, 123456, "stderr", 2, b"a\nb")

    assert list(decode(encode(record))) == [(record, HEADER.size + 3)]


def test_what_is_torn_is_not_there_yet() -> None:
    content = encode(Record(1, 1, "stdout", 1, b"whole")) + encode(Record(2, 1, "stdout", 1, b"x"))

    for cut in range(1, 25):
        assert [record.payload for record, _ in decode(content[:-cut])] == [b"whole"]


def test_nonsense_ends_the_reading() -> None:
    assert list(decode(os.urandom(3))) == []
    assert list(decode(b"\xff" * 100)) == []


@given(some.lists(some.binary(max_size=200)))
def test_lines_are_the_same_however_they_come(parts: list[bytes]) -> None:
    lines = Lines()
    found: list[bytes] = []
    for part in parts:
        for count, payload in lines.add(part):
            assert payload.count(b"\n") + 1 == count
            found += payload.split(b"\n")
    for count, payload in lines.flush():
        assert count == 1
        found.append(payload)

    whole = b"".join(parts).split(b"\n")
    assert found == (whole[:-1] if whole[-1] == b"" else whole)


def test_a_long_line_is_cut() -> None:
    lines = Lines()
    found = list(lines.add(b"x" * (2 * MOST_RECORD_BYTES + 5) + b"\ny\n"))

    assert [(count, len(payload)) for count, payload in found] == [
        (1, MOST_RECORD_BYTES),
        (1, MOST_RECORD_BYTES),
        (2, 7),
    ]
    assert not lines.is_open


def test_a_ring_keeps_the_newest_lines_without_holes(tmp_path: Path) -> None:
    ring = _ring(tmp_path)
    for number in range(1, 501):
        ring.write("stdout", 2, f"{number}\n{number}".encode(), number)

    records = _read(tmp_path)

    assert records[-1].sequence == 999
    assert [each.sequence for each in records] == list(range(records[0].sequence, 1000, 2))
    assert records[0].sequence > 1
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4000
    assert len(list(tmp_path.iterdir())) == 4


def test_a_segment_is_named_after_its_first_line(tmp_path: Path) -> None:
    ring = _ring(tmp_path, segment_bytes=30)
    ring.write("stdout", 3, b"a\nb\nc", 1)
    ring.write("stdout", 1, b"d", 1)

    assert sorted(path.name for path in tmp_path.iterdir()) == [segment_name(1), segment_name(4)]
    assert segment_start("exit") is None
    assert segment_start("x.log") is None


def test_a_folder_that_is_gone_loses_lines_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    ring = _ring(folder, segment_bytes=10)
    folder.rmdir()

    ring.write("stdout", 1, b"x", 1)

    assert ring.next_sequence == 1


def test_a_line_whose_beginning_was_given_already_ends_without_an_empty_one() -> None:
    lines = Lines()
    found = [*lines.add(b"begun"), *lines.flush(), *lines.add(b"\nnext\n\n")]

    assert found == [(1, b"begun"), (2, b"next\n")]
