"""What is done with the files of a machine, by a process in it with no more rights than its user.

It is a command like any other, except that it runs our code: links lead where they lead its user,
and what the server gets is an open descriptor, not a path that could change under its hands.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123, PTH103, PTH104, PTH112, PTH114, PTH116, PTH208
from __future__ import annotations

import errno
import os
import select
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from steward_server.environments.sandbox.inside import command, linux, packets

_CONNECTION = 3
_ENTRIES_PER_PACKET = 50
_MOST_WATCHES = 4_096
_HALF_WRITTEN = ".steward-"


def run(
    connection: socket.socket, request: dict[str, Any], enter: Callable[[], None] | None = None
) -> NoReturn:
    """Do what a request asks, answer, and end; `enter` leads a process from outside into it."""
    try:
        os.dup2(connection.fileno(), _CONNECTION, inheritable=False)
        linux.close_from(_CONNECTION + 1)
        command.become(request, enter=enter, is_ours=True)
        here = socket.socket(fileno=_CONNECTION)
        here.setblocking(True)
        os.chdir("/")
        _work(here, request)
    finally:
        os._exit(0)


def _work(here: socket.socket, request: dict[str, Any]) -> None:
    path = request["path"]
    try:
        match request["work"]:
            case "stat":
                packets.send(here, {"file": _stat(path)})
            case "list":
                _list(here, path)
            case "read":
                if request.get("is_beside") and os.path.normpath(path).startswith("/proc/"):
                    raise _not_a_file(path)  # the machine's own is not seen from here
                _read(here, path)
            case "write":
                _write(here, os.path.realpath(path), request["mode"])
            case "make_directory":
                os.makedirs(path, exist_ok=True)
                packets.send(here, {"file": _stat(path)})
            case "remove":
                _remove(path, recursive=request["recursive"])
                packets.send(here, {"ok": True})
            case "move":
                os.rename(path, request["to"])
                packets.send(here, {"ok": True})
            case "check":
                packets.send(here, {"holds": _what_holds()})
            case "connect":
                with socket.create_connection(("127.0.0.1", request["port"]), 5) as sock:
                    sock.setblocking(True)
                    packets.send(here, {"ok": True}, [sock.fileno()])
            case "listen":
                with socket.create_server(("127.0.0.1", request["port"]), backlog=128) as sock:
                    packets.send(here, {"ok": True}, [sock.fileno()])
            case "watch":
                _Watch(here, path, is_beside=bool(request.get("is_beside"))).run()
    except OSError as error:
        packets.send(here, {"errno": error.errno or errno.EIO, "error": error.strerror})
    except RecursionError:
        packets.send(here, {"errno": errno.ELOOP, "error": "too many directories in each other"})


def _what_holds() -> dict[str, str]:
    """What a command finds when it tries what it may not; for the server to compare."""
    found = {}
    with open("/proc/self/status") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
                found[key] = value.strip()
    attempts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).close()),
        ("namespaces", lambda: linux.unshare(linux.CLONE_NEWUSER)),
        ("mounts", lambda: linux.mount("none", "/proc", "tmpfs")),
    )
    for name, attempt in attempts:
        try:
            attempt()
            found[name] = "allowed"
        except OSError as error:
            found[name] = errno.errorcode.get(error.errno or 0, "?")
    found["interfaces"] = " ".join(sorted(name for _, name in socket.if_nameindex()))
    return found


def _stat(path: str, name: str = "", directory_fd: int | None = None) -> dict[str, Any]:
    facts = os.stat(name or path, dir_fd=directory_fd, follow_symlinks=directory_fd is None)
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
    kind = next((kind for is_it, kind in kinds if is_it(facts.st_mode)), "other")
    target = os.readlink(name, dir_fd=directory_fd) if kind == "link" else ""
    return {
        "path": f"{path.rstrip('/')}/{name}" if name else path,
        "kind": kind,
        "size": facts.st_size,
        "mode": stat.S_IMODE(facts.st_mode),
        "user": facts.st_uid,
        "group": facts.st_gid,
        "modified_at_us": facts.st_mtime_ns // 1_000,
        "target": target,
    }


def _open(path: str, flags: int) -> int:
    # Without the links of /proc that lead to what a process holds open.
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    try:
        return linux.openat2(root, path, flags, resolve=linux.RESOLVE_NO_MAGICLINKS)
    finally:
        os.close(root)


def _list(here: socket.socket, path: str) -> None:
    directory = _open(path, os.O_RDONLY | os.O_DIRECTORY)
    batch: list[dict[str, Any]] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_HALF_WRITTEN):
                continue
            try:
                batch.append(_stat(path, entry.name, directory))
            except FileNotFoundError:  # gone meanwhile
                continue
            if len(batch) >= _ENTRIES_PER_PACKET:
                packets.send(here, {"files": batch, "more": True})
                batch = []
    packets.send(here, {"files": batch, "more": False})


def _read(here: socket.socket, path: str) -> None:
    # Not blocking: a named pipe without a writer would hold this process for ever.
    fd = _open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    facts = os.fstat(fd)
    mode = facts.st_mode
    if facts.st_dev == os.stat("/proc").st_dev:
        # What it shows of "self" would be this process.
        raise _not_a_file(path)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    packets.send(here, {"ok": True}, [fd])


def _not_a_file(path: str) -> OSError:
    return OSError(errno.EINVAL, "/proc has no files; run a command to read it", path)


def _write(here: socket.socket, path: str, mode: int) -> None:
    """A file that is written beside its place, and moved there once it is whole."""
    parent, _, name = path.rpartition("/")
    if not name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    directory = _open(parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    half = _HALF_WRITTEN + os.urandom(8).hex()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(half, flags, 0o600, dir_fd=directory)
    try:
        packets.send(here, {"ok": True}, [fd])
        if packets.receive(here) is None:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED), path)
        os.fchmod(fd, mode & 0o777)
        os.rename(half, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(half, dir_fd=directory)
        raise
    packets.send(here, {"file": _stat(path)})


def _remove(path: str, *, recursive: bool) -> None:
    parent, _, name = path.rstrip("/").rpartition("/")
    if not name:
        raise PermissionError(errno.EPERM, "the root cannot be removed", path)
    directory = _open(parent or "/", os.O_RDONLY | os.O_DIRECTORY)
    if recursive:
        _remove_tree(directory, name)
    elif _is_directory(directory, name):
        os.rmdir(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def _is_directory(directory: int, name: str) -> bool:
    return stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode)


def _remove_tree(directory: int, name: str) -> None:
    if not _is_directory(directory, name):
        os.unlink(name, dir_fd=directory)
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    try:
        for inner in os.listdir(fd):
            _remove_tree(fd, inner)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


_EVENT = struct.Struct("=iIII")
_MODIFIED, _WROTE, _FROM, _TO, _CREATED, _DELETED = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IS_DIRECTORY = 0x4000, 0x40000000
_ONLY_DIRECTORIES, _NO_LINKS = 0x01000000, 0x02000000


class _Watch:
    """Tells what happens below a directory, until the other side hangs up."""

    def __init__(self, here: socket.socket, path: str, *, is_beside: bool) -> None:
        """`is_beside`: the machine's kernel is another, and closes what it wrote when it likes."""
        self._wrote = _WROTE | _MODIFIED if is_beside else _WROTE
        self._here = here
        self._root = path.rstrip("/") or "/"
        self._fd = linux.inotify()
        self._paths: dict[int, str] = {}

    def run(self) -> None:
        if not stat.S_ISDIR(os.stat(self._root).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._root)
        for _ in self._add(self._root):
            pass
        packets.send(self._here, {"ok": True})
        poll = select.poll()
        poll.register(self._here, select.POLLIN)
        poll.register(self._fd, select.POLLIN)
        while True:
            if any(fd == self._here.fileno() for fd, _ in poll.poll()):
                return
            events = [event for event in self._events() if _HALF_WRITTEN not in event[1]]
            for start in range(0, len(events), _ENTRIES_PER_PACKET):
                batch = events[start : start + _ENTRIES_PER_PACKET]
                packets.send(self._here, {"events": batch})

    def _add(self, path: str) -> Iterator[tuple[str, str]]:
        """Watch a directory and those below; what was in it already."""
        if len(self._paths) >= _MOST_WATCHES or path == "/proc":
            return
        mask = self._wrote | _FROM | _TO | _CREATED | _DELETED | _ONLY_DIRECTORIES
        try:
            watch = linux.inotify_watch(
                self._fd, path, mask | (_NO_LINKS if path != self._root else 0)
            )
            names = os.listdir(path)
        except OSError:  # gone again, or not for this user to see
            return
        self._paths[watch] = path
        for name in names:
            inner = f"{path.rstrip('/')}/{name}"
            yield "created", inner
            if os.path.isdir(inner) and not os.path.islink(inner):
                yield from self._add(inner)

    def _events(self) -> Iterator[tuple[str, str]]:
        content = os.read(self._fd, 64 * 1024)
        offset = 0
        while offset + _EVENT.size <= len(content):
            watch, mask, _, length = _EVENT.unpack_from(content, offset)
            name = content[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            if mask & _OVERFLOW:
                yield "changed", self._root  # too much happened to be told one by one
            parent = self._paths.get(watch)
            if parent is None or not name:
                continue
            path = f"{parent.rstrip('/')}/{os.fsdecode(name)}"
            if mask & (_CREATED | _TO):
                yield "created", path
                if mask & _IS_DIRECTORY:
                    yield from self._add(path)
            elif mask & self._wrote:
                yield "changed", path
            elif mask & (_FROM | _DELETED):
                yield "removed", path
