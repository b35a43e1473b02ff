"""What strangers have made is removed, however they made it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steward_server.environments.removal import remove_tree


def nested(top: Path, count: int, mode: int = 0o755) -> None:
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(count):
        os.mkdir("folder", dir_fd=here)
        os.close(os.open("file", os.O_CREAT, dir_fd=here))
        inner = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.chmod("folder", mode, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


def test_a_tree_of_three_thousand_levels_is_removed(tmp_path: Path) -> None:
    nested(tmp_path / "deep", 3000)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_folders_that_are_closed_to_everybody_are_removed(tmp_path: Path) -> None:
    nested(tmp_path / "closed", 5, mode=0o300)
    (tmp_path / "closed/none").mkdir(mode=0)
    remove_tree(tmp_path / "closed")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    (tmp_path / "top").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "gone")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "top", ignore_errors=True)
    assert (tmp_path / "kept/file").exists()


def test_what_is_not_there_is_said_or_not_as_asked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "nothing")
    remove_tree(tmp_path / "nothing", ignore_errors=True)
