"""One folder of playbooks: its files listed, read and written, and nothing outside of it touched.

Links are followed where they stay inside, as those of mounted config maps do. A file is opened from
the folder down, part by part and without links, so that none can be put in between; what is no
regular file is not opened at all.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Self

from steward_server.playbooks.document import MAX_BYTES
from steward_server.playbooks.paths import SUFFIXES, is_hidden, unescaped, why_unsafe

MAX_ENTRIES = 20_000
"""How much of a folder is looked at, whatever it is."""
MAX_FILES = 2_000
"""Of which a list is one message yet."""
MAX_FOLDERS_DEEP = 8

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = _READ | os.O_DIRECTORY
_FILE = _READ | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class LeadsOut(Exception):
    """A link at this path leads out of the folder."""


class NoFile(Exception):
    """What is at this path is there, and cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What differs once somebody has written to a file."""

    device: int
    inode: int
    size: int
    modified_at_ns: int
    changed_at_ns: int

    @classmethod
    def of(cls, state: os.stat_result) -> Self:
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


class OpenFile:
    """A file that may be read. `close` it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.stamp = Stamp.of(os.fstat(descriptor))

    def content(self) -> bytes:
        """Its bytes; of one that is too long one more than may be."""
        with os.fdopen(self._descriptor, "rb", closefd=False) as opened:
            return opened.read(MAX_BYTES + 1)

    def close(self) -> None:
        os.close(self._descriptor)


class PlaybookFolder:
    """A folder of playbooks, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def paths(self) -> tuple[list[str], bool]:
        """Those of all files that may be playbooks; and whether there are more than were looked at.

        Hidden files and backups are left out, links to folders are not gone into.
        """
        found: list[str] = []
        waiting = [""]
        looked_at = 0
        while waiting:
            folder = waiting.pop()
            with suppress(OSError), os.scandir(self._root / folder) as entries:
                for entry in entries:
                    looked_at += 1
                    if looked_at > MAX_ENTRIES or len(found) >= MAX_FILES:
                        return found, True
                    path = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if path.count("/") < MAX_FOLDERS_DEEP and not is_hidden(path):
                            waiting.append(f"{path}/")
                    elif _is_playbook(path):
                        found.append(path)
        return found, False

    def open(self, path: str) -> OpenFile:
        """Open a file at a safe path for reading.

        Raises:
            FileNotFoundError: there is none.
            LeadsOut: there is one elsewhere.
            NoFile: it is no file, or may not be read.
        """
        try:
            return self._open(path)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise FileNotFoundError(path) from None
            raise NoFile(f"it cannot be read: {os.strerror(error.errno or 0)}") from None

    def write(self, path: str, content: bytes, *, replace: bool) -> None:
        """Write a file at a safe path, whole or not at all, and the folders around it.

        Raises:
            FileExistsError: there is one, and it is not to be replaced.
            NotADirectoryError: a part of the path is no folder but a file or a link.
            OSError: it cannot be written.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        *folders, name = path.split("/")
        within = os.open(os.path.realpath(self._root), _FOLDER)
        try:
            for folder in folders:
                with suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=within)
                within = _entered(within, folder)
            staged = f".{token_hex(8)}.tmp"
            try:
                _write_whole(within, staged, content)
                if replace:
                    os.replace(staged, name, src_dir_fd=within, dst_dir_fd=within)
                else:
                    os.link(staged, name, src_dir_fd=within, dst_dir_fd=within)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(staged, dir_fd=within)
            os.fsync(within)
        finally:
            os.close(within)

    def delete(self, path: str) -> None:
        """Delete a file at a safe path; of a link the link.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be deleted.
        """
        *folders, name = path.split("/")
        within = os.open(os.path.realpath(self._root), _FOLDER)
        try:
            for folder in folders:
                within = _entered(within, folder)
            os.unlink(name, dir_fd=within)
            os.fsync(within)
        finally:
            os.close(within)

    def _open(self, path: str) -> OpenFile:
        root = os.path.realpath(self._root)
        real = os.path.realpath(self._root / path)
        if os.path.commonpath((root, real)) != root:
            raise LeadsOut
        *folders, name = os.path.relpath(real, root).split("/")
        within = os.open(root, _FOLDER)
        try:
            for folder in folders:
                within = _entered(within, folder)
            kind = os.stat(name, dir_fd=within, follow_symlinks=False).st_mode
            if stat.S_ISDIR(kind) or stat.S_ISLNK(kind):  # one that leads back to itself
                raise FileNotFoundError(errno.ENOENT, path)
            if not stat.S_ISREG(kind):
                raise NoFile("it is no regular file")
            opened = OpenFile(os.open(name, _FILE, dir_fd=within))
        finally:
            os.close(within)
        return opened


def _is_playbook(path: str) -> bool:
    if not path.endswith(SUFFIXES) or why_unsafe(path) or is_hidden(path):
        return False
    # What no caller can spell: bytes that are no text, and what would be read as a slash.
    return path.isprintable() and unescaped(path) == path


def _entered(within: int, folder: str) -> int:
    """Go on to a folder inside of an open one, which is closed then."""
    inner = os.open(folder, _FOLDER, dir_fd=within)
    os.close(within)
    return inner


def _write_whole(within: int, name: str, content: bytes) -> None:
    descriptor = os.open(name, _NEW, 0o644, dir_fd=within)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
