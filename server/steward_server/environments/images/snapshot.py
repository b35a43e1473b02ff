"""Make an image of what a machine has written over another one.

What it has written is the upper layer of an overlay. A stranger has made it: nothing in it is
followed, run or believed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from steward_server.environments.images.room import Room
from steward_server.environments.images.tree import MOST_LEVELS, bad, too_deep

_IDS = 65_536
"""How many user ids a machine has."""
_NOBODY = 65_534
_BLOCK_BYTES = 512
"""What `st_blocks` counts."""
_CHUNK_BYTES = 16 * 1024 * 1024
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_REDIRECTS = (
    "trusted.overlay.redirect",
    "user.overlay.redirect",
    "trusted.overlay.metacopy",
    "user.overlay.metacopy",
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Merger:
    """Writes an upper layer over a lower one into a new root.

    What comes from the lower layer shares its space on disk: it is never changed.
    """

    def __init__(self, room: Room, *, first_id: int, halted: Callable[[], bool]) -> None:
        self._room = room
        self._first_id = first_id
        self._halted = halted
        self._linked: dict[tuple[int, int], str] = {}
        self._root = -1

    def merge(self, lower: Path, upper: Path, root: Path) -> None:
        """Do so; `root` is an empty folder on the file system of `lower`.

        Raises:
            Unusable: reason BAD_IMAGE, too large, nested too deep or an overlay of another kind; or
                DISK_FULL.
        """
        opened = [os.open(each, _FOLDER & ~os.O_NOFOLLOW) for each in (lower, upper, root)]
        self._root = opened[2]
        try:
            self._folder(opened[0], opened[1], opened[2], ".")
        finally:
            for each in opened:
                os.close(each)

    def _folder(self, lower: int | None, upper: int, into: int, path: str) -> None:
        _must_not_be_deep(path)
        for name in _REDIRECTS:
            with suppress(OSError):
                os.getxattr(upper, name)
                raise bad(f"{path!r} is only told of in the machine's layer ({name})")
        if any(_attribute(upper, name) in (b"y", b"x") for name in _OPAQUE):
            lower = None
        above = set(os.listdir(upper))
        if lower is not None:
            for name in os.listdir(lower):  # noqa: PTH208
                if name not in above:
                    self._take_over(lower, into, name, f"{path}/{name}")
        for name in above:
            self._take(lower, upper, into, name, f"{path}/{name}")
        self._dress(os.fstat(upper), into, ".")

    def _go_on(self) -> None:
        if self._halted():
            raise InterruptedError

    def _take(self, lower: int | None, upper: int, into: int, name: str, path: str) -> None:
        self._go_on()
        found = os.stat(name, dir_fd=upper, follow_symlinks=False)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            return  # the overlay's word for: removed
        if stat.S_ISDIR(found.st_mode):
            self._room.take(0)
            os.mkdir(name, 0o700, dir_fd=into)
            below = None if lower is None else _opened(lower, name)
            inner = [os.open(name, _FOLDER, dir_fd=each) for each in (upper, into)]
            try:
                self._folder(below, inner[0], inner[1], path)
            finally:
                for each in (*inner, *(() if below is None else (below,))):
                    os.close(each)
            return
        if stat.S_ISLNK(found.st_mode):
            self._room.take(0)
            os.symlink(os.readlink(name, dir_fd=upper), name, dir_fd=into)
        elif stat.S_ISFIFO(found.st_mode):
            self._room.take(0)
            os.mkfifo(name, 0o600, dir_fd=into)
        elif not stat.S_ISREG(found.st_mode):
            return  # devices and sockets mean nothing without their machine
        elif (known := self._linked.get((found.st_dev, found.st_ino))) is not None:
            os.link(known, name, src_dir_fd=self._root, dst_dir_fd=into, follow_symlinks=False)
            return
        else:
            self._copy(upper, into, name)
            if found.st_nlink > 1:
                self._linked[found.st_dev, found.st_ino] = path
        self._dress(found, into, name)

    def _copy(self, upper: int, into: int, name: str) -> None:
        # Not blocking: who makes a named pipe of it meanwhile gets an empty file of it.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=upper)
        with os.fdopen(source, "rb"):
            found = os.fstat(source)
            size_bytes = found.st_size
            self._room.take(size_bytes)
            self._room.must_fit(min(size_bytes, found.st_blocks * _BLOCK_BYTES))
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=into)
            with os.fdopen(made, "wb"):
                os.truncate(made, size_bytes)
                for count in _copied(source, made, size_bytes):
                    self._go_on()
                    self._room.must_fit(count)

    def _take_over(self, lower: int, into: int, name: str, path: str) -> None:
        """Take what only the lower layer has, as deep as it goes."""
        self._go_on()
        found = os.stat(name, dir_fd=lower, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            self._room.take(found.st_size)
            os.link(name, name, src_dir_fd=lower, dst_dir_fd=into, follow_symlinks=False)
            return
        _must_not_be_deep(path)
        self._room.take(0)
        os.mkdir(name, 0o700, dir_fd=into)
        inner = [os.open(name, _FOLDER, dir_fd=each) for each in (lower, into)]
        try:
            for child in os.listdir(inner[0]):  # noqa: PTH208
                self._take_over(inner[0], inner[1], child, f"{path}/{child}")
        finally:
            for each in inner:
                os.close(each)
        if os.geteuid() == 0:
            os.chown(name, found.st_uid, found.st_gid, dir_fd=into, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=into)

    def _dress(self, found: os.stat_result, into: int, name: str) -> None:
        """Give it owner, mode and time as they were inside."""
        if os.geteuid() == 0:
            user, group = self._inside(found.st_uid), self._inside(found.st_gid)
            os.chown(name, user, group, dir_fd=into, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            return
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISDIR(found.st_mode):
            mode &= 0o1777
        os.chmod(name, mode, dir_fd=into)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=into, follow_symlinks=False)

    def _inside(self, host_id: int) -> int:
        if not self._first_id:
            return host_id
        inside = host_id - self._first_id
        return inside if 0 <= inside < _IDS else _NOBODY


def _must_not_be_deep(path: str) -> None:
    """Refuse to go further down: each level holds descriptors until it is left."""
    if path.count("/") > MOST_LEVELS:
        raise too_deep(path)


def _opened(folder: int, name: str) -> int | None:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError:  # not there, or no folder: what is above hides it
        return None


def _attribute(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""


def _copied(source: int, target: int, size_bytes: int) -> Iterator[int]:
    """Copy what was written, and leave holes: they cost a machine nothing, and may be vast.

    Tells of each portion how many bytes it has, before it is copied.
    """
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole is left
        end = min(os.lseek(source, start, os.SEEK_HOLE), size_bytes)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            count = min(end - start, _CHUNK_BYTES)
            yield count
            copied = os.sendfile(target, source, start, count)
            if not copied:  # it has become shorter
                return
            start += copied
