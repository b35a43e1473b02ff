"""A folder that strangers name paths in: every step is taken without ever leaving it."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from steward_server.environments.driver import Unusable
from steward_server.environments.removal import remove_tree

_LIBC = ctypes.CDLL(None, use_errno=True)
_MOST_LINKS = 40
"""As many as the kernel follows."""
MOST_PATH_BYTES = 4_095
MOST_LEVELS = 128
"""How deep folders are nested; each level holds descriptors while it is gone through."""
_OPEN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def bad(text: str) -> Unusable:
    """The refusal of an archive or a layer."""
    return Unusable("BAD_IMAGE", text)


def too_deep(path: str) -> Unusable:
    """The refusal of folders that are nested deeper than they may be."""
    return bad(f"the path {path[:200]!r} has more than {MOST_LEVELS} levels; nest it less deep")


def parts(path: str) -> tuple[str, ...]:
    """The names a path goes through, from the top of the image.

    Raises:
        Unusable: it goes up, is nested too deep, or is no path.
    """
    if "\0" in path or len(os.fsencode(path)) > MOST_PATH_BYTES:
        raise bad(f"the path {path[:200]!r} is none: it is too long or holds a zero")
    steps = tuple(each for each in path.split("/") if each not in ("", "."))
    if ".." in steps:
        raise bad(f"the path {path!r} leads out of the image; take it out of the archive")
    if len(steps) > MOST_LEVELS:
        raise too_deep(path)
    return steps


class Tree:
    """A root file system on disk. Links are followed as a process rooted there would see them.

    Nobody else changes it meanwhile.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_DIRECTORY | os.O_PATH | os.O_CLOEXEC)
        self._last: tuple[tuple[str, ...], int] | None = None
        """Neighbours in an archive mostly lie in one folder."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.forget()
        os.close(self._root)

    def forget(self) -> None:
        """Look anew next time: a folder on the way may have been replaced."""
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def folder(self, steps: tuple[str, ...], *, make: bool) -> int:
        """A descriptor of a folder, which stays good until the next call.

        Raises:
            Unusable: something else stands in the way; or it is not there and not to be made.
        """
        if self._last is not None and self._last[0] == steps:
            return self._last[1]
        found = self._walk(steps, make=make)
        self.forget()
        self._last = (steps, found)
        return found

    def _walk(self, steps: tuple[str, ...], *, make: bool) -> int:
        opened = [os.dup(self._root)]
        waiting = list(reversed(steps))
        links = 0
        told = "/".join(steps)
        try:
            while waiting:
                step = waiting.pop()
                if step == "..":
                    if len(opened) > 1:
                        os.close(opened.pop())
                    continue
                if len(opened) > MOST_LEVELS:  # links make a short way long
                    raise too_deep(told)
                try:
                    found = os.open(step, _OPEN, dir_fd=opened[-1])
                except FileNotFoundError:
                    if not make:
                        raise bad(f"there is no folder {told!r} in the image") from None
                    os.mkdir(step, 0o755, dir_fd=opened[-1])
                    found = os.open(step, _OPEN, dir_fd=opened[-1])
                opened.append(found)
                mode = os.fstat(found).st_mode
                if stat.S_ISLNK(mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise bad(f"the way to {told!r} is a ring of links")
                    target = os.readlink("", dir_fd=found)
                    os.close(opened.pop())
                    if target.startswith("/"):
                        while len(opened) > 1:
                            os.close(opened.pop())
                    way = [each for each in target.split("/") if each not in ("", ".")]
                    waiting.extend(reversed(way))
                elif not stat.S_ISDIR(mode):
                    raise bad(f"{told!r} leads through {step!r}, which is no folder")
            return opened.pop()
        finally:
            for each in opened:
                os.close(each)

    @contextmanager
    def held(self, steps: tuple[str, ...], *, make: bool = True) -> Iterator[int]:
        """A folder, for as long as the block lasts."""
        descriptor = os.dup(self.folder(steps, make=make))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def existing(self, steps: tuple[str, ...]) -> Iterator[int | None]:
        """A folder, or None where there is none."""
        try:
            descriptor = os.dup(self.folder(steps, make=False))
        except Unusable:
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def remove(self, folder: int, name: str) -> None:
        """Remove what has a name in a folder, with all that is in it; nothing if it is not there.

        Links are removed, never followed.
        """
        mode = kind(folder, name)
        if mode is None:
            return
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self.forget()
        if stat.S_ISDIR(mode):
            remove_tree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)


def kind(folder: int, name: str) -> int | None:
    """The mode of what has a name in a folder, links not followed; None if nothing has."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def sync(root: Path) -> None:
    """Have what was written on disk before its name is: after a power cut neither or both.

    Raises:
        OSError: the disk has lost some of it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
