"""What is kept of logs that were read, for others who follow them."""

from __future__ import annotations

from pathlib import Path

import pytest

from steward_server.environments.sandbox import logs
from steward_server.environments.sandbox.inside.log_ring import Record, encode
from steward_server.environments.sandbox.logs import Cache


def segment(folder: Path, name: str, lines: int) -> Path:
    path = folder / name
    path.write_bytes(encode(Record(1, 0, "stdout", lines, b"\n".join([b"x"] * lines))))
    return path


async def test_what_was_read_is_kept_up_to_a_number_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_CACHED_LINES", 100)
    cache = Cache()
    for number in range(10):
        lines, _ = await cache.read(segment(tmp_path, f"{number}.log", 40), 0)
        assert len(lines) == 40
    assert cache.line_count == 80


async def test_one_read_is_kept_however_many_lines_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_CACHED_LINES", 100)
    cache, path = Cache(), segment(tmp_path, "1.log", 400)
    first, end = await cache.read(path, 0)
    path.unlink()
    assert await cache.read(path, 0) == (first, end)


async def test_nothing_is_kept_of_what_is_forgotten(tmp_path: Path) -> None:
    cache = Cache()
    await cache.read(segment(tmp_path, "1.log", 40), 0)
    cache.forget(tmp_path)
    assert cache.line_count == 0
