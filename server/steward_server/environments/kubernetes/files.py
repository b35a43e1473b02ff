"""The files of pods, by small scripts that their own user runs.

Nothing but a shell, `stat`, `find`, `tail`, `cat`, `mv`, `rm`, `mkdir` and `readlink` is needed in
an image: where the shell is, they are. What is followed and what may be touched is decided inside.
"""

from __future__ import annotations

import asyncio
import secrets
import stat as modes
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from steward_server.environments.driver import (
    MOST_LISTED,
    Command,
    FileFault,
    FileInfo,
    Running,
    Stream,
    in_calendar,
)

WATCH_INTERVAL_S = 1.0
_MOST_WORD_BYTES = 64 * 1024
"""Of what a script says about one file."""
_MOST_DIGITS, _MOST_ROW_BYTES = 9, 256

_FAULTS = r"""
fail() { echo "$1"; exit 0; }
look() {
  [ -e "$1" ] || [ -L "$1" ] || {
    p=${1%/*}; while [ -n "$p" ] && [ ! -e "$p" ]; do p=${p%/*}; done
    [ -z "$p" ] || [ -d "$p" ] || fail ENOTDIR
    [ -z "$p" ] || [ -x "$p" ] || fail EACCES
    fail ENOENT
  }
}
"""
_STAT = (
    _FAULTS
    + r"""
look "$1"
echo ok
stat -L -c '%f %s %u %g %Y' -- "$1" || fail ENOENT
"""
)
_LIST = (
    _FAULTS
    + r"""
look "$1"
[ -d "$1" ] || fail ENOTDIR
[ -r "$1" ] && [ -x "$1" ] || fail EACCES
echo ok
cd "$1" || exit
most=$2
set --
for f in .* *; do
  case $f in .|..) continue ;; esac
  if [ -e "$f" ] || [ -L "$f" ]; then set -- "$@" "./$f"; fi
  [ $# -le "$most" ] || break
done
printf '%s\n' $#
[ $# -gt 0 ] || exit 0
stat -c '%f %s %u %g %Y' -- "$@" || :
printf '%s\000' "$@"
for f in "$@"; do if [ -L "$f" ]; then readlink -n -- "$f"; fi; printf '\000'; done
"""
)
_TREE = r"""
find "$1" -mindepth 1 -exec /bin/sh -c '
printf "%s\n" $#
stat -c "%f %s %u %g %Y.%Z" -- "$@" || :
printf "%s\000" "$@"
for f in "$@"; do printf "\000"; done
' sh {} + 2>/dev/null
"""
_READ = (
    _FAULTS
    + r"""
look "$1"
[ ! -d "$1" ] || fail EISDIR
[ -r "$1" ] || fail EACCES
[ -f "$1" ] || fail EINVAL
echo ok
[ "$2" = 1 ] && exec cat -- "$1"
exec tail -c "+$2" -- "$1"
"""
)
_WRITE = (
    _FAULTS
    + r"""
[ ! -d "$1" ] || fail EISDIR
p=${1%/*}
look "${p:-/}"
[ -d "$p/" ] || fail ENOTDIR
[ -w "$p/" ] && [ -x "$p/" ] || fail EACCES
f=$1
if [ -L "$1" ]; then f=$(readlink -f -- "$1") && [ -n "$f" ] || fail ENOENT; fi
t=${f%/*}/$2
trap 'rm -f -- "$t"' EXIT
trap 'exit 1' HUP INT TERM
echo go
e=$(cat 2>&1 > "$t") || case $e in
  *"No space"*) fail ENOSPC ;;
  *"uota"*) fail EDQUOT ;;
  *"Read-only"*) fail EROFS ;;
  *) fail EACCES ;;
esac
chmod "$3" -- "$t" && mv -f -- "$t" "$f" || fail EACCES
trap - EXIT
echo ok
stat -L -c '%f %s %u %g %Y' -- "$1"
"""
)
_MAKE = (
    _FAULTS
    + r"""
[ ! -e "$1" ] || [ -d "$1" ] || fail EEXIST
e=$(mkdir -p -- "$1" 2>&1) || case $e in
  *"No space"*) fail ENOSPC ;;
  *"Read-only"*) fail EROFS ;;
  *"ot a directory"*|*"ile exists"*) fail ENOTDIR ;;
  *) fail EACCES ;;
esac
echo ok
stat -L -c '%f %s %u %g %Y' -- "$1"
"""
)
_REMOVE = (
    _FAULTS
    + r"""
look "$1"
if [ -d "$1" ] && [ ! -L "$1" ]; then
  if [ "$2" ]; then c='rm -rf'; else c=rmdir; fi
else c='rm -f'; fi
e=$($c -- "$1" 2>&1) || case $e in
  *"ot empty"*) fail ENOTEMPTY ;;
  *"Read-only"*) fail EROFS ;;
  *"busy"*) fail EBUSY ;;
  *) fail EACCES ;;
esac
echo ok
"""
)
_MOVE = (
    _FAULTS
    + r"""
look "$1"
t=${2%/}
p=${t%/*}
look "${p:-/}"
[ -d "$p/" ] || fail ENOTDIR
if [ -d "$t" ] && [ ! -L "$t" ]; then
  [ -d "$1" ] && [ ! -L "$1" ] || fail EISDIR
  rmdir -- "$t" 2>/dev/null || fail ENOTEMPTY
elif [ -e "$t" ] && [ -d "$1" ] && [ ! -L "$1" ]; then fail ENOTDIR
fi
e=$(mv -f -- "$1" "$t" 2>&1) || case $e in
  *"No space"*) fail ENOSPC ;;
  *"Read-only"*) fail EROFS ;;
  *"subdirectory of itself"*|*"nvalid argument"*) fail EINVAL ;;
  *) fail EACCES ;;
esac
echo ok
"""
)
_TEXTS = {
    "EACCES": "permission denied",
    "EBUSY": "it is in use by the system",
    "EDQUOT": "the disk quota is used up",
    "EEXIST": "it exists and is no directory",
    "EINVAL": "that cannot be done with it",
    "EISDIR": "it is a directory",
    "ENOENT": "no such file or directory",
    "ENOSPC": "the disk is full",
    "ENOTDIR": "a part of the path is no directory",
    "ENOTEMPTY": "the directory is not empty",
    "EROFS": "it is on a read-only file system",
}


class Machines(Protocol):
    """What files need of the driver."""

    async def exec(self, environment_id: str, command: Command) -> Running: ...

    async def run(self, environment_id: str, script: str, *words: str) -> bytes:
        """What a script has to say."""
        ...


class PodFiles:
    """The cluster's `Files`."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def stat(self, environment_id: str, path: str) -> FileInfo:
        rest = await self._ask(environment_id, path, _STAT, path)
        return _info(path, rest)

    async def list(self, environment_id: str, path: str) -> Sequence[FileInfo]:
        folder = path.rstrip("/")
        for _ in range(5):  # what vanishes meanwhile leaves a gap
            rest = await self._ask(environment_id, path, _LIST, path or "/", str(MOST_LISTED))
            found, _ = _batch(rest, 0, path)
            if found is not None:
                infos = [_info(f"{folder}/{name[2:]}", row, to) for row, name, to in found]
                return sorted(infos, key=lambda each: each.path)
        raise FileFault("EBUSY", f"{path!r}: it changes too fast to be listed")

    async def read(
        self, environment_id: str, path: str, *, offset: int = 0
    ) -> AsyncIterator[bytes]:
        _must_be_absolute(path)
        argv = ("/bin/sh", "-c", _READ, "sh", path, str(offset + 1))
        running = await self._machines.exec(environment_id, Command(argv, working_dir="/"))
        try:
            first = await _answer(running, path)
            if first:
                yield first
            while (item := await running.read()) is not None:
                if item[0] is Stream.STDOUT:
                    yield item[1]
        finally:
            await running.aclose()

    async def write(
        self, environment_id: str, path: str, content: AsyncIterator[bytes], *, mode: int = 0o644
    ) -> FileInfo:
        _must_be_absolute(path)
        temporary = f".steward-{secrets.token_hex(8)}"
        argv = ("/bin/sh", "-c", _WRITE, "sh", path.rstrip("/"), temporary, f"{mode & 0o777:o}")
        running = await self._machines.exec(environment_id, Command(argv, working_dir="/"))
        try:
            rest = await _answer(running, path, expected="go")
            async for data in content:
                await running.write(data)
            await running.close_input()
            rest = await _answer(running, path, rest)
            return _info(path, (await _all(running, path, rest)))
        except BaseException:
            # Asked first, it removes what it has written.
            await asyncio.shield(running.signal(15))
            raise
        finally:
            await running.aclose()

    async def make_directory(self, environment_id: str, path: str) -> FileInfo:
        rest = await self._ask(environment_id, path, _MAKE, path)
        return _info(path, rest)

    async def remove(self, environment_id: str, path: str, *, recursive: bool) -> None:
        words = (path.rstrip("/") or "/", "recursive" if recursive else "")
        await self._ask(environment_id, path, _REMOVE, *words)

    async def move(self, environment_id: str, path: str, to: str) -> None:
        _must_be_absolute(to)
        await self._ask(environment_id, path, _MOVE, path.rstrip("/"), to)

    async def watch(self, environment_id: str, path: str) -> AsyncIterator[tuple[str, str]]:
        """Looked at once a second: what comes and goes in between is not seen."""
        before = await self._tree(environment_id, path)
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            after = await self._tree(environment_id, path)
            for kind, names in (
                ("removed", before.keys() - after.keys()),
                ("created", after.keys() - before.keys()),
                ("changed", {key for key in before.keys() & after if before[key] != after[key]}),
            ):
                for name in sorted(names):
                    yield kind, name
            before = after

    async def _tree(self, environment_id: str, path: str) -> dict[str, bytes]:
        await self.stat(environment_id, path)
        content = await self._machines.run(environment_id, _TREE, path.rstrip("/") or "/")
        return await asyncio.to_thread(_all_rows, content, path)  # there may be many

    async def _ask(self, environment_id: str, path: str, script: str, *words: str) -> bytes:
        _must_be_absolute(path)
        told = await self._machines.run(environment_id, script, *words)
        first, _, rest = told.partition(b"\n")
        _check(first, path)
        return rest


async def _answer(running: Running, path: str, begun: bytes = b"", expected: str = "ok") -> bytes:
    """Read until the script has said how it goes; what it said beyond that."""
    told = begun
    while b"\n" not in told:
        if len(told) > _MOST_WORD_BYTES:
            raise _nonsense(path)
        item = await running.read()
        if item is None:
            raise FileFault("EIO", f"{path!r}: the pod gave no answer")
        if item[0] is Stream.STDOUT:
            told += item[1]
    first, _, rest = told.partition(b"\n")
    _check(first, path, expected)
    return rest


async def _all(running: Running, path: str, begun: bytes) -> bytes:
    told = begun
    while (item := await running.read()) is not None:
        if len(told) > _MOST_WORD_BYTES:
            raise _nonsense(path)
        if item[0] is Stream.STDOUT:
            told += item[1]
    return told


def _check(first: bytes, path: str, expected: str = "ok") -> None:
    kind = first.decode(errors="replace")
    if kind != expected:
        kind = kind if kind in _TEXTS else "EIO"
        raise FileFault(kind, f"{path!r}: {_TEXTS.get(kind, 'it could not be used')}")


Row = tuple[bytes, str, str]
"""What `stat` says, the name, and what it links to."""


def _all_rows(told: bytes, path: str) -> dict[str, bytes]:
    """The rows of all batches by their names."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(told):
        rows, at = _batch(told, at, path)
        # A folder changes with what is in it, which is told of itself.
        found.update({name: b"" if _is_folder(row) else row for row, name, _ in rows or ()})
    return found


def _batch(told: bytes, at: int, path: str) -> tuple[list[Row] | None, int]:
    """A batch of rows from an offset on, None if one of them vanished; and the offset behind it.

    Raises:
        FileFault: there is none.
    """
    end = told.find(b"\n", at)
    first = told[at:end] if end >= 0 else b""
    if not first.isdigit() or len(first) > _MOST_DIGITS:
        raise _nonsense(path)
    count, at = int(first), end + 1
    rows: list[bytes] = []
    while len(rows) < count and (end := told.find(b"\n", at)) >= 0:
        if not _is_row(told[at:end]):
            break
        rows.append(told[at:end])
        at = end + 1
    names: list[str] = []
    while len(names) < 2 * count:
        if (end := told.find(b"\0", at)) < 0:
            return None, len(told)
        names.append(told[at:end].decode(errors="replace"))
        at = end + 1
    if len(rows) < count:
        return None, at
    return list(zip(rows, names[:count], names[count:], strict=True)), at


def _is_row(line: bytes) -> bool:
    return len(line) <= _MOST_ROW_BYTES and len(line.split(b" ")) == 5 and b"\0" not in line


def _is_folder(row: bytes) -> bool:
    return row.startswith(b"4")  # of its mode, in hexadecimal


def _nonsense(path: str) -> FileFault:
    return FileFault("EIO", f"{path!r}: what the pod says makes no sense")


def _info(path: str, row: bytes, target: str = "") -> FileInfo:
    """The facts of a row. The pod's shell is its image's, and may say anything.

    Raises:
        FileFault: of no file.
    """
    try:
        told, *rest = row.split()
        number = int(told, 16)
        size, user, group, modified_s = map(int, rest)
    except ValueError:
        raise _nonsense(path) from None
    if not (all(0 <= each < 1 << 32 for each in (number, user, group)) and 0 <= size < 1 << 63):
        raise _nonsense(path)
    kinds = ((modes.S_ISREG, "file"), (modes.S_ISDIR, "directory"), (modes.S_ISLNK, "link"))
    return FileInfo(
        path=path,
        kind=next((kind for is_it, kind in kinds if is_it(number)), "other"),
        size_bytes=size,
        mode=modes.S_IMODE(number),
        user=user,
        group=group,
        modified_at_us=in_calendar(modified_s * 1_000_000),
        target=target,
    )


def _must_be_absolute(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise FileFault("EINVAL", f"{path!r} is not an absolute path")
