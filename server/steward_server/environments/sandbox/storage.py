"""The disk of a machine: a sparse file with a file system in it, copied from a template."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from steward_server.completion import finish
from steward_server.environments.driver import Unusable
from steward_server.environments.sandbox.limits import Limits

_MKFS_S = 60
_MOST_TEMPLATES = 32
"""Of a gibibyte each takes a few hundred kilobytes, and one is made in some milliseconds."""


class Templates:
    """Empty disks by size.

    Making one takes 8 ms and its copy one: of a gibibyte a few hundred kilobytes are not zero.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making = asyncio.Lock()

    async def copy(self, limits: Limits, target: Path) -> int:
        """Make a disk as large as the limits say; a descriptor of it.

        Raises:
            Unusable: reason NO_DISK; the host has no tool or no room for it.
        """
        template = self._folder / f"{limits.storage_bytes}-{limits.inode_count}.ext4"
        try:
            async with self._making:
                if not template.exists():
                    await self._make(template, limits)
                os.utime(template)
                source = os.open(template, os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(source, "rb"):
                return await _copied(source, target)
        except OSError as error:
            why = error.strerror or "making one took too long"
            raise Unusable("NO_DISK", f"the host has no disk for it: {why}") from None

    async def _make(self, template: Path, limits: Limits) -> None:
        program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            raise Unusable(
                "NO_DISK",
                "disks need the program mkfs.ext4, which is not here; install the package "
                "e2fsprogs, or ask for 64Mi of storage at most",
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        new = template.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.truncate(fd, limits.storage_bytes)
        os.close(fd)
        # No journal and no reserve: nothing of it outlives the host, and root has no use for it.
        # fmt: off
        arguments = (
            "-q", "-F", "-m", "0", "-O", "^has_journal,^resize_inode", "-b", "4096",
            "-N", str(limits.inode_count), "-E", "lazy_itable_init=1,nodiscard", str(new),
        )
        # fmt: on
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
        try:
            async with asyncio.timeout(_MKFS_S):
                _, said = await process.communicate()
        finally:
            if process.returncode is None:  # given up
                process.kill()
                await process.wait()
        if process.returncode != 0:
            new.unlink(missing_ok=True)
            text = said.decode(errors="replace").strip()[:200]
            raise Unusable("NO_DISK", f"mkfs.ext4 has failed: {text}")
        await asyncio.to_thread(_keep, new, template)
        self._forget_old()

    def _forget_old(self) -> None:
        """Remove what was used longest ago, and what another server has left half made."""
        templates = sorted(self._folder.glob("*.ext4"), key=lambda each: each.stat().st_mtime)
        for each in (*templates[:-_MOST_TEMPLATES], *self._folder.glob("*.new")):
            each.unlink(missing_ok=True)


def _keep(new: Path, template: Path) -> None:
    """Give a file its name once all of it is on the disk: a torn one would be used for ever."""
    fd = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    new.replace(template)


async def _copied(source: int, target: Path) -> int:
    """A descriptor of a copy. Given up, it is waited for: both are closed then."""
    disk = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await finish(asyncio.to_thread(_copy_sparse, source, disk))
    except BaseException:
        os.close(disk)
        raise
    return disk


def _copy_sparse(read: int, write: int) -> None:
    """Copy what is not zero."""
    size_bytes = os.fstat(read).st_size
    os.truncate(write, size_bytes)
    offset = 0
    while offset < size_bytes:
        try:
            start = os.lseek(read, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: only zeros are left
            return
        offset = os.lseek(read, start, os.SEEK_HOLE)
        while start < offset:
            start += os.copy_file_range(read, write, offset - start, start, start)
