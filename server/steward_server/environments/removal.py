"""Removes folders that strangers have filled, however deep they have nested them.

`shutil.rmtree` holds a descriptor and a call for each level: a tree of a few hundred levels ends
it, and stays.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(
    path: Path | str, *, dir_fd: int | None = None, ignore_errors: bool = False
) -> None:
    """Remove a folder with all that is in it; links are removed, never followed.

    Nobody else may change it meanwhile.

    Raises:
        OSError: it is not there, or something in it cannot be removed; nothing with
            `ignore_errors`, which removes as much as can be.
    """
    try:
        _remove(path, dir_fd, ignore_errors=ignore_errors)
    except OSError:
        if not ignore_errors:
            raise


def _remove(path: Path | str, dir_fd: int | None, *, ignore_errors: bool) -> None:
    """Go down with one descriptor, and up again by `..`."""
    here = _opened(path, dir_fd)
    try:
        above = []
        names = _emptied(here, ignore_errors=ignore_errors)
        while True:
            if names:
                try:
                    inner = _opened(names[-1], here)
                except OSError:
                    if not ignore_errors:
                        raise
                    names.pop()
                    continue
                above.append((_identity(here), names))
                os.close(here)
                here = inner
                names = _emptied(here, ignore_errors=ignore_errors)
            elif above:
                identity, names = above.pop()
                outer = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = outer
                if _identity(here) != identity:
                    raise OSError(f"the folder {str(path)!r} was moved while it was removed")
                _unlink(names.pop(), here, ignore_errors=ignore_errors, is_folder=True)
            else:
                break
    finally:
        os.close(here)
    os.rmdir(path, dir_fd=dir_fd)


def _emptied(folder: int, *, ignore_errors: bool) -> list[str]:
    """Remove what is no folder; the names of those that are."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            _unlink(name, folder, ignore_errors=ignore_errors)
    return [name for name, is_folder in found if is_folder]


def _unlink(name: str, folder: int, *, ignore_errors: bool, is_folder: bool = False) -> None:
    try:
        (os.rmdir if is_folder else os.unlink)(name, dir_fd=folder)
    except OSError:
        if not ignore_errors:
            raise


def _opened(path: Path | str, dir_fd: int | None) -> int:
    # Whoever made it may have closed it to everybody, this server too if it is not root.
    with suppress(OSError):
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) and found.st_mode & 0o700 != 0o700:
            os.chmod(path, 0o700, dir_fd=dir_fd)
    return os.open(path, _FOLDER, dir_fd=dir_fd)


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino
