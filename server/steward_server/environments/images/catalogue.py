"""The images of a server: which there are, how one comes in, how one goes.

On disk, below one folder that only the server may enter:

    names/<name>      a small JSON file; the image is there once this is
    roots/<id>/       the unpacked root file system it tells of, and those of machines that still
                      stand on one whose name has gone
    incoming/<id>/    being unpacked, locked by whoever does it
    host/<digest>/    the frame of the built-in image

Several processes may work on it at once; what one of them leaves half done another clears away.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

from steward_server.completion import finish
from steward_server.environments.driver import Unusable
from steward_server.environments.images import host, oci
from steward_server.environments.images.image import HOST, SNAPSHOTS, Image, canonical, unknown
from steward_server.environments.images.room import Room, disk_full, must_fit
from steward_server.environments.images.snapshot import Merger
from steward_server.environments.images.tree import bad, sync
from steward_server.environments.removal import remove_tree

MOST_BYTES = 20 * 1024**3
"""Of one image, unpacked; images with drivers for graphics cards come near to it."""
MOST_FILES = 2_000_000
_MOST_NAME_BYTES = 200
"""Of a file's name; file systems take 255."""

_T = TypeVar("_T")


class Catalogue:
    """The images below a folder.

    `in_use` tells which environments' machines stand on a root file system: that is not removed.
    It is called from other threads. None: nobody here knows, so no root file system is removed;
    whoever knows does it later. `wheels` is a folder of Python packages that the built-in image
    shows to pip.
    """

    def __init__(
        self,
        folder: Path,
        *,
        in_use: Callable[[Path], Collection[str]] | None = None,
        most_bytes: int = MOST_BYTES,
        most_files: int = MOST_FILES,
        wheels: Path | None = None,
    ) -> None:
        self._folder = folder
        self._in_use = in_use
        self._most_bytes = most_bytes
        self._most_files = most_files
        self._wheels = wheels
        self._host: host.HostImage | None = None
        self._opening = threading.Lock()
        self._held: dict[threading.Event, tuple[str, Path]] = {}
        """Who makes a machine, and of which root: nobody else knows of it yet."""
        self._holding = threading.Lock()
        self._is_open = False

    async def find(self, name: str) -> Image:
        """The image of a name; what was imported comes before what is built in.

        Raises:
            Unusable: reason UNKNOWN_IMAGE, with a list of those there are; or BAD_IMAGE_NAME.
        """
        return await self._looked_up(partial(self._find, canonical(name)))

    @asynccontextmanager
    async def held(self, name: str, *, by: str) -> AsyncIterator[Image]:
        """The image of a name, as `find`; for the block `by` counts as one that stands on it."""
        is_over = threading.Event()
        try:
            yield await self._looked_up(partial(self._hold, canonical(name), by, is_over))
        finally:
            is_over.set()
            self._held.pop(is_over, None)

    async def list(self) -> Sequence[Image]:
        """Every image, by name; the built-in one under its plainest names."""
        return await asyncio.to_thread(self._list)

    async def import_archive(self, path: Path, *, name: str = "") -> Image:
        """Take an image from an OCI layout or an archive of `docker save` or `podman save`.

        It is there at once and whole, or not at all. One that has the name already is replaced;
        machines that stand on that one keep it. Without a name the archive's own is used.

        Raises:
            Unusable: reason BAD_IMAGE, BAD_IMAGE_NAME, BUILT_IN_IMAGE or DISK_FULL.
        """
        wanted = canonical(name) if name else ""
        return await self._heeding(partial(self._import, path, wanted))

    async def receive(self, content: AsyncIterator[bytes], *, name: str, most_bytes: int) -> Image:
        """As `import_archive`, of one that comes piece by piece.

        Raises:
            Unusable: as there; or IMAGE_TOO_LARGE.
        """
        _must_be_free_to_take(canonical(name) if name else "")
        await asyncio.to_thread(self._open)
        place, lock = self._begin_upload()  # in no thread: a cancelled wait would lose both
        try:
            await _spool(content, place / "archive", most_bytes)
            return await self.import_archive(place / "archive", name=name)
        finally:
            # Not in a thread: it must be done also where this is cancelled, and it is two files.
            remove_tree(place, ignore_errors=True)
            os.close(lock)

    async def add_snapshot(
        self, name: str, base: Image, upper: Path, *, first_id: int = 0
    ) -> Image:
        """Make an image of the upper layer of an overlay whose lower one is `base`.

        `first_id` is the user id that stands on disk for what was user 0 inside. The layer must
        stand still meanwhile. What others know under a name is never replaced.

        Raises:
            Unusable: reason BAD_IMAGE, BAD_IMAGE_NAME, IMAGE_EXISTS or DISK_FULL.
        """
        return await self._heeding(
            partial(self._add_snapshot, canonical(name), base, upper, first_id)
        )

    async def remove(self, name: str) -> None:
        """Remove an image.

        Raises:
            Unusable: reason UNKNOWN_IMAGE; IMAGE_IN_USE, which says by whom; or BUILT_IN_IMAGE.
        """
        await asyncio.to_thread(self._remove, canonical(name))

    async def clear(self) -> None:
        """Remove root file systems that nobody needs; once it is known which machines live."""
        await asyncio.to_thread(self._clear)

    async def _heeding(self, work: Callable[[Callable[[], bool]], _T]) -> _T:
        """Run long work aside; given up, it is waited for until it has noticed.

        Else what it reads could be taken away under it.
        """
        given_up = threading.Event()
        working = asyncio.ensure_future(asyncio.to_thread(work, given_up.is_set))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            given_up.set()
            await asyncio.gather(working, return_exceptions=True)
            raise

    async def _looked_up(self, look: Callable[[], Image]) -> Image:
        """Read a small file: here, which costs a third of what a thread does, if nobody waits."""
        is_at_hand = self._is_open and not self._holding.locked()
        return look() if is_at_hand else await asyncio.to_thread(look)

    def _find(self, name: str) -> Image:
        self._open()
        short, _, digest = name.partition("@")
        image = self._read(short)
        if image is not None and digest in ("", image.digest):
            return image
        if self._host is not None and (built_in := self._host.find(name)):
            return built_in
        known = [each.name for each in self._imported() if not each.name.startswith(SNAPSHOTS)]
        raise unknown(name, sorted(known) + (self._host.names() if self._host else []))

    def _hold(self, name: str, by: str, is_over: threading.Event) -> Image:
        with self._holding:  # not between the look who stands on an image and its removal
            image = self._find(name)
            self._held[is_over] = by, image.root
        if is_over.is_set():  # the wait for this was given up
            self._held.pop(is_over, None)
        return image

    def _users(self, root: Path) -> set[str]:
        """Who stands on a root, or is about to."""
        held = {by for by, each in list(self._held.values()) if each == root}
        return held | set(self._in_use(root) if self._in_use else ())

    def _list(self) -> Sequence[Image]:
        self._open()
        imported = sorted(self._imported(), key=lambda each: each.name)
        taken = {each.name for each in imported}
        built_in = self._host
        names = [name for name in built_in.names() if name not in taken] if built_in else []
        found = [built_in.find(name) for name in names] if built_in else []
        return imported + [each for each in found if each]

    def _import(self, path: Path, wanted: str, halted: Callable[[], bool]) -> Image:
        self._open()
        with oci.opened(path) as source:
            found = oci.find(source, wanted)
            name = wanted or next(iter(found.names), "")
            if not name:
                raise bad("the archive tells no name for its image; give one")
            _must_be_free_to_take(name)
            image = Image(
                name=name,
                digest=found.digest,
                root=Path(),
                env=found.env,
                command=found.command,
                working_dir=found.working_dir,
                user=found.user,
            )
            return self._bring_in(
                image, lambda root, room: oci.unpack(source, found, root, room, halted=halted)
            )

    def _add_snapshot(
        self, name: str, base: Image, upper: Path, first_id: int, halted: Callable[[], bool]
    ) -> Image:
        self._open()
        self._must_be_free(name)

        def fill(root: Path, room: Room) -> None:
            Merger(room, first_id=first_id, halted=halted).merge(base.root, upper, root)

        # A snapshot is like no other: its digest names it and nothing else.
        digest = f"sha256:{uuid4().hex}{uuid4().hex}"
        image = replace(base, name=name, digest=digest, is_host=False)
        return self._bring_in(image, fill, must_be_new=True)

    def _begin_upload(self) -> tuple[Path, int]:
        """A place for an archive, and its lock, which keeps others from clearing it away."""
        place = self._folder / "incoming" / uuid4().hex
        place.mkdir(mode=0o700)
        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return place, lock

    def _must_be_free(self, name: str) -> None:
        short = name.partition("@")[0]
        if self._read(short) or (self._host is not None and self._host.find(short)):
            raise Unusable(
                "IMAGE_EXISTS", f"there is an image {short!r} already; choose another name"
            )

    def _bring_in(
        self, image: Image, fill: Callable[[Path, Room], object], *, must_be_new: bool = False
    ) -> Image:
        """Fill a new root and give it its name in one step."""
        place = uuid4().hex
        incoming = self._folder / "incoming" / place
        incoming.mkdir(mode=0o700)
        with _locked(incoming / "lock"):
            try:
                root = incoming / "rootfs"
                root.mkdir()
                root.chmod(0o755)
                room = Room(self._most_bytes, self._most_files, incoming)
                room.must_fit()
                fill(root, room)
                sync(root)
                with _locked(self._folder / "lock"), self._holding:
                    if must_be_new:
                        self._must_be_free(image.name)
                    incoming.rename(self._folder / "roots" / place)
                    made = replace(
                        image,
                        root=self._folder / "roots" / place / "rootfs",
                        size_bytes=room.used_bytes,
                        created_at_us=time.time_ns() // 1_000,
                    )
                    self._write(made)
                    doomed = self._unneeded()
            except BaseException as error:
                _discard(incoming)
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise disk_full() from error
                raise
        for each in doomed:
            _discard(each)
        return made

    def _remove(self, name: str) -> None:
        self._open()
        with _locked(self._folder / "lock"), self._holding:
            image = self._read(name)
            if image is None:
                found = self._find(name)
                raise Unusable(
                    "BUILT_IN_IMAGE", f"the image {found.name!r} is built in; it cannot be removed"
                )
            if users := sorted(self._users(image.root)):
                raise Unusable(
                    "IMAGE_IN_USE",
                    f"the image {name!r} is in use by {', '.join(users[:10])}; delete "
                    f"{'it' if len(users) == 1 else f'these {len(users)}'} first",
                )
            self._at(name).unlink()
            doomed = self._unneeded()
        for each in doomed:
            _discard(each)

    def _open(self) -> None:
        """Make the folders and clear away what others have left half done; once."""
        with self._opening:
            if self._is_open:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            for name in ("names", "roots", "incoming", "host"):
                (self._folder / name).mkdir(exist_ok=True)
            for incoming in (self._folder / "incoming").iterdir():
                _clear_if_left(incoming)
            self._host = host.make(self._folder / "host", wheels=self._wheels)
            self._is_open = True

    def _clear(self) -> None:
        self._open()
        with _locked(self._folder / "lock"), self._holding:
            doomed = self._unneeded()
        for each in doomed:
            _discard(each)

    def _unneeded(self) -> Sequence[Path]:
        """Take aside the roots that no name tells of and no machine stands on. Under both locks.

        Whoever wants an image does not wait until they are removed.
        """
        if self._in_use is None:
            return ()
        doomed = []
        named = {image.root for image in self._imported()}
        for place in (self._folder / "roots").iterdir():
            root = place / "rootfs"
            if root not in named and not self._users(root):
                doomed.append(place.rename(self._folder / "incoming" / place.name))
        for frame in (self._folder / "host").iterdir():
            root = frame / "rootfs"
            if self._host and root != self._host.root and not self._users(root):
                remove_tree(frame, ignore_errors=True)
        return doomed

    def _at(self, name: str) -> Path:
        quoted = quote(name, safe="")
        if len(quoted) > _MOST_NAME_BYTES:
            quoted = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / "names" / quoted

    def _imported(self) -> Iterator[Image]:
        for path in (self._folder / "names").iterdir():
            if not path.name.startswith(".") and (image := self._load(path)):
                yield image

    def _read(self, name: str) -> Image | None:
        return self._load(self._at(name))

    def _load(self, path: Path) -> Image | None:
        try:
            told = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise bad(
                f"what is known of an image cannot be read ({path}: {error}); remove that file and "
                "import the image again"
            ) from None
        return _from_json(told, self._folder / "roots")

    def _write(self, image: Image) -> None:
        path = self._at(image.name)
        new = path.with_name(f".{uuid4().hex}")
        with new.open("w") as file:
            json.dump(_to_json(image), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def _must_be_free_to_take(name: str) -> None:
    """Refuse to call an import what only this server calls its images."""
    if name == HOST:
        raise Unusable("BUILT_IN_IMAGE", f"{HOST!r} is the built-in image; give this another name")
    if name.startswith(SNAPSHOTS):
        raise Unusable(
            "BAD_IMAGE_NAME", f"{name!r} names a snapshot, and this is none; give it another name"
        )


async def _spool(content: AsyncIterator[bytes], path: Path, most_bytes: int) -> None:
    """Write what comes to a file, as far as it may be and there is room."""
    written = 0
    with path.open("xb", buffering=0) as file:
        async for piece in content:
            written += len(piece)
            if written > most_bytes:
                raise Unusable("IMAGE_TOO_LARGE", f"the archive has more than {most_bytes} bytes")
            must_fit(file.fileno(), len(piece), "the archive")
            # Waited for also where this is cancelled: nobody closes a file that is written to.
            await finish(asyncio.to_thread(file.write, piece))


def _to_json(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "digest": image.digest,
        "place": image.root.parent.name,
        "env": dict(image.env),
        "env_alone": dict(image.env_alone),
        "command": list(image.command),
        "working_dir": image.working_dir,
        "user": image.user,
        "size_bytes": image.size_bytes,
        "created_at_us": image.created_at_us,
        "binds": [[str(source), target] for source, target in image.binds],
    }


def _from_json(told: dict[str, Any], roots: Path) -> Image:
    return Image(
        name=told["name"],
        digest=told["digest"],
        root=roots / told["place"] / "rootfs",
        env=told["env"],
        env_alone=told.get("env_alone", {}),
        command=tuple(told["command"]),
        working_dir=told["working_dir"],
        user=told["user"],
        size_bytes=told["size_bytes"],
        created_at_us=told["created_at_us"],
        binds=tuple((Path(source), target) for source, target in told["binds"]),
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process at the latest."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _discard(place: Path) -> None:
    """Remove a place, its lock last: what a killed server leaves of it, the next one clears."""
    remove_tree(place / "rootfs", ignore_errors=True)
    remove_tree(place, ignore_errors=True)


def _clear_if_left(incoming: Path) -> None:
    """Remove it unless somebody holds its lock."""
    with suppress(FileNotFoundError, BlockingIOError):
        descriptor = os.open(incoming / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _discard(incoming)
        finally:
            os.close(descriptor)
