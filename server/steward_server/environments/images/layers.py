"""Unpack the layers of an image, each over those before it.

What a layer may not do: leave the image, by `..` or through links; bring devices, extended
attributes, or bits that give a program the rights of its owner. A layer that tries the first is
refused; the rest is left out.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Protocol, cast

from steward_server.environments.images.room import Room
from steward_server.environments.images.tree import Tree, bad, kind, parts

_GONE = ".wh."
_OPAQUE = ".wh..wh..opq"
_ONCE_INTERNAL = ".wh..wh."
"""The older kind of layers keeps its own affairs under such names."""
_CHUNK_BYTES = 1024 * 1024
_MOST_HEADER_BYTES = 1024 * 1024
_MOST_GLOBAL_BYTES = 64 * 1024
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
"""Kinds of entries that tell of the next one."""


_FAULTS_OF_A_LAYER = (
    errno.EEXIST,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.ESPIPE,
)


class Stream(Protocol):
    """What bytes are read from, once and in order."""

    def read(self, size: int = -1, /) -> bytes: ...


class Unpacker:
    """Lays layers over each other in a folder."""

    def __init__(
        self, tree: Tree, room: Room, *, keep_owners: bool, halted: Callable[[], bool]
    ) -> None:
        self._tree = tree
        self._room = room
        self._keep_owners = keep_owners
        self._halted = halted
        self.left_out: dict[str, int] = {}
        """How many of each kind were left out or made harmless."""

    def lay(self, stream: Stream) -> None:
        """Unpack one layer, a plain tar stream.

        Raises:
            Unusable: reason BAD_IMAGE or DISK_FULL.
        """
        written: set[tuple[str, ...]] = set()
        forward = Forward(stream)
        file = cast("IO[bytes]", forward)
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=2, tarinfo=Entry) as archive:
                for entry in archive:
                    if self._halted():
                        raise InterruptedError
                    self._entry(archive, entry, written)
                    vars(archive)["members"] = []  # else tarfile remembers every entry
            if any(forward.block):
                raise bad("a layer has a damaged header; what follows it cannot be read")
        except tarfile.TarError as error:
            raise bad(f"a layer is no whole tar archive: {error}") from error
        except (ValueError, OverflowError) as error:
            raise bad(f"a layer has a header that cannot be read: {error}") from error
        except RecursionError as error:
            raise bad("a layer's headers are nested without end") from error
        except OSError as error:
            if error.errno not in _FAULTS_OF_A_LAYER:
                raise
            raise bad(f"a layer contradicts itself: {error.strerror}") from error

    def _entry(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, written: set[tuple[str, ...]]
    ) -> None:
        steps = parts(entry.name)
        if not steps:
            return  # the root itself, which is as we want it
        way = [steps[:count] for count in range(1, len(steps) + 1)]
        new = sum(each not in written for each in way)  # folders on the way count as well
        self._room.take(entry.size if entry.isreg() else 0, max(new, 1))
        name = steps[-1]
        if name == _OPAQUE:
            self._empty(steps[:-1], written)
            return
        if name.startswith(_ONCE_INTERNAL):
            return
        if name.startswith(_GONE):
            self._whiteout((*steps[:-1], name.removeprefix(_GONE)), written)
            return
        if any(step.startswith(_GONE) for step in steps):
            return
        with self._tree.held(steps[:-1]) as folder:
            if self._make(archive, entry, folder, name):
                self._dress(entry, folder, name)
        written.update(way)

    def _make(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: int, name: str
    ) -> bool:
        """Make what the entry says; False if it was left out or shares what is there."""
        if entry.isdir():
            found = kind(folder, name)
            if found is None or not stat.S_ISDIR(found):
                self._tree.remove(folder, name)
                os.mkdir(name, 0o755, dir_fd=folder)
            return True
        if entry.ischr() or entry.isblk():
            self._note("devices")
            return False
        if entry.islnk():
            self._hard_link(entry, folder, name)
            return False
        self._tree.remove(folder, name)
        if entry.issym():
            if not entry.linkname or "\0" in entry.linkname:
                raise bad(f"the link {entry.name!r} leads nowhere")
            os.symlink(entry.linkname, name, dir_fd=folder)
        elif entry.isfifo():
            os.mkfifo(name, 0o600, dir_fd=folder)
        elif entry.isreg():
            self._file(archive, entry, folder, name)
        else:
            raise bad(f"{entry.name!r} is of the unknown kind {entry.type!r}")
        return True

    def _file(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: int, name: str
    ) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        content = archive.extractfile(entry)
        if content is None:
            raise bad(f"{entry.name!r} has no content")
        self._room.must_fit(entry.size)
        with content, os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb", 0) as file:
            while data := content.read(_CHUNK_BYTES):
                if self._halted():
                    raise InterruptedError
                self._room.must_fit(len(data))
                file.write(data)
            if file.tell() != entry.size:
                raise bad(f"{entry.name!r} ends after {file.tell()} of {entry.size} bytes")

    def _hard_link(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        source = parts(entry.linkname)
        if not source:
            raise bad(f"the hard link {entry.name!r} leads nowhere")
        with self._tree.held(source[:-1], make=False) as other:
            found = kind(other, source[-1])
            if found is None or stat.S_ISDIR(found):
                raise bad(
                    f"the hard link {entry.name!r} leads to {entry.linkname!r}, "
                    f"{'which is a folder' if found else 'which is not there'}"
                )
            if os.path.sameopenfile(other, folder) and source[-1] == name:
                return
            self._tree.remove(folder, name)
            os.link(source[-1], name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)

    def _dress(self, entry: tarfile.TarInfo, folder: int, name: str) -> None:
        """Give it its owner, mode and time."""
        if self._keep_owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if entry.issym():
            return
        mode = entry.mode & 0o7777
        if not entry.isdir() and mode & (stat.S_ISUID | stat.S_ISGID):
            self._note("set-id bits")
            mode &= 0o1777
        if not self._keep_owners:
            mode |= 0o600 if not entry.isdir() else 0o700
        os.chmod(name, mode, dir_fd=folder)
        if entry.isreg():
            # Compiled Python is only good beside a source of the same time.
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def _whiteout(self, steps: tuple[str, ...], written: set[tuple[str, ...]]) -> None:
        """Remove what a lower layer has under a name."""
        if steps[-1] in ("", ".", ".."):
            raise bad(f"a layer takes away {'/'.join(steps)!r}, which is no name")
        if steps in written:
            self._empty(steps, written)
            return
        with self._tree.existing(steps[:-1]) as folder:
            if folder is not None:
                self._tree.remove(folder, steps[-1])

    def _empty(self, steps: tuple[str, ...], written: set[tuple[str, ...]]) -> None:
        """Remove what lower layers have in a folder."""
        with self._tree.existing(steps) as folder:
            if folder is None:
                return
            for name in _names(folder):
                if (*steps, name) not in written:
                    self._tree.remove(folder, name)
                elif stat.S_ISDIR(kind(folder, name) or 0):
                    self._empty((*steps, name), written)

    def _note(self, what: str) -> None:
        self.left_out[what] = self.left_out.get(what, 0) + 1


class Forward:
    """A stream as a file for tarfile, which looks back no further than one byte.

    tarfile's own way with streams copies what it has read ahead at each small step.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._at = 0
        self._last = b""
        """The byte before."""
        self._again = False
        self.block = b""
        """What was read last: tarfile takes a header that it cannot read for the end."""

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        data = b""
        if self._again and size > 0:
            data, self._again = self._last, False
        while len(data) < size and (more := self._stream.read(size - len(data))):
            data += more
        self._at += len(data)
        self._last = data[-1:] or self._last
        self.block = data
        return data

    def seek(self, offset: int) -> int:
        if offset == self._at - 1 and self._last and not self._again:
            self._again = True
            self._at = offset
        elif offset < self._at:
            raise OSError(errno.ESPIPE, "a stream is read once")
        while self._at < offset and self.read(min(offset - self._at, _CHUNK_BYTES)):
            pass
        return self._at


class Entry(tarfile.TarInfo):
    """An entry whose headers cannot fill the memory: tarfile reads those whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        _must_have_a_size(self)
        if self.type in _HEADERS and self.size > _MOST_HEADER_BYTES:
            raise bad(f"a layer has a header of {self.size} bytes")
        if self.type == tarfile.XGLTYPE:  # these add up: each holds for all that follows
            kept = sum(len(key) + len(text) for key, text in archive.pax_headers.items())
            if kept + self.size > _MOST_GLOBAL_BYTES:
                raise bad(f"a layer has global headers of more than {_MOST_GLOBAL_BYTES} bytes")
        found = super()._proc_member(archive)  # type: ignore[misc]
        _must_have_a_size(found)  # a header before it may have told another one
        return cast("tarfile.TarInfo", found)

    def _proc_sparse(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        with _bounded(archive):
            return cast("tarfile.TarInfo", super()._proc_sparse(archive))  # type: ignore[misc]

    def _proc_gnusparse_10(
        self, entry: tarfile.TarInfo, headers: dict[str, str], archive: tarfile.TarFile
    ) -> None:
        with _bounded(archive):
            super()._proc_gnusparse_10(entry, headers, archive)  # type: ignore[misc]


def _must_have_a_size(entry: tarfile.TarInfo) -> None:
    if entry.size < 0:
        raise bad(f"{entry.name[:200]!r} tells of {entry.size} bytes")


class _Bounded:
    """A file of which no more can be read than a header may have."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left_bytes = _MOST_HEADER_BYTES

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int) -> bytes:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise bad(f"a sparse file's map has more than {_MOST_HEADER_BYTES} bytes")
        return self._file.read(size)


@contextmanager
def _bounded(archive: tarfile.TarFile) -> Iterator[None]:
    """The map of a sparse file is as long as it says, and read whole."""
    attributes = vars(archive)
    file = attributes["fileobj"]
    attributes["fileobj"] = _Bounded(file)
    try:
        yield
    finally:
        attributes["fileobj"] = file


def _names(folder: int) -> Iterator[str]:
    opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield from os.listdir(opened)  # noqa: PTH208 - of a descriptor
    finally:
        os.close(opened)
