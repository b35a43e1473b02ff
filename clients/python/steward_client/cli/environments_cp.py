"""`steward env cp`: files and directories into an environment, and out of it."""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

import click

from steward_client.cli.environments import environment_id, size
from steward_client.cli.environments_feeding import write_all
from steward_client.cli.output import say, without_controls
from steward_client.cli.steward import Steward, calls_server
from steward_client.client import Client
from steward_client.client.environments_values import File
from steward_client.errors import InvalidRequest, NotFound, RateLimited

T = TypeVar("T")

PIPE = "-"
_INSIDE = re.compile(r"([a-z0-9][a-z0-9-]*):(.*)", re.DOTALL)
_SHOWN_LEFT_OUT = 5


@dataclass(frozen=True, slots=True)
class Inside:
    """A path in an environment."""

    environment: str
    path: str


@dataclass(slots=True)
class Copied:
    """What was copied, and what was not."""

    files: int = 0
    bytes: int = 0
    left_out: list[str] = field(default_factory=list)


def place(text: str) -> Inside | str:
    """`ENVIRONMENT:/path`, or a path of this machine's; one with a colon begins with `./`.

    Raises:
        click.UsageError: the path in the environment is not absolute.
    """
    found = _INSIDE.fullmatch(text)
    if found is None:
        return text
    if not found[2].startswith("/"):
        raise click.UsageError(
            f"{text!r}: the path in an environment begins with '/'; one of this machine's that "
            "has a colon, with './'"
        )
    return Inside(found[1], found[2])


@click.command("cp")
@click.argument("source")
@click.argument("target")
@calls_server
def copy(steward: Steward, source: str, target: str) -> None:
    """Copy files into an environment, or out of it.

    One of SOURCE and TARGET is ENVIRONMENT:/path. Into a directory that is there, things are copied
    under their name; else TARGET is what they are called. `-` is standard input or output. Links
    are not copied. A file has up to 100 MiB.
    """
    with _told_of_files():
        copied = _copied(steward, source, target)
    if steward.as_json:
        steward.show(copied, str)
        return
    if PIPE not in (source, target):
        things = "1 file" if copied.files == 1 else f"{copied.files} files"
        say(f"copied {things}, {size(copied.bytes)}")
    if copied.left_out:
        shown = ", ".join(without_controls(each) for each in copied.left_out[:_SHOWN_LEFT_OUT])
        more = len(copied.left_out) - _SHOWN_LEFT_OUT
        say(f"left out, since they are no files: {shown}{f' and {more} more' if more > 0 else ''}")


@contextmanager
def _told_of_files() -> Iterator[None]:
    """Say what this machine refuses in a sentence."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror}") from None


def _copied(steward: Steward, source: str, target: str) -> Copied:
    there, here = place(source), place(target)
    if isinstance(there, Inside) and isinstance(here, str):
        files = _Files(steward.client, environment_id(steward, there.environment))
        return _out(files, there.path, here)
    if isinstance(there, str) and isinstance(here, Inside):
        files = _Files(steward.client, environment_id(steward, here.environment))
        return _into(files, there, here.path)
    raise click.UsageError("exactly one of SOURCE and TARGET is ENVIRONMENT:/path")


class _Files:
    """The files of one environment. Many calls are made as slowly as the server wants them."""

    def __init__(self, client: Client, wanted: str) -> None:
        self._files = client.environments.files
        self._id = wanted

    def find(self, path: str) -> File | None:
        try:
            return patiently(lambda: self._files.stat(self._id, path))
        except NotFound as error:
            if error.reason != "FILE_NOT_FOUND":
                raise
            return None

    def inside(self, path: str) -> tuple[File, ...]:
        found = patiently(lambda: self._files.list(self._id, path))
        if found.truncated:
            raise InvalidRequest(
                f"{path} has more than {len(found.files)} entries; copy it as an archive, with: "
                f"steward env exec {self._id} tar -c -C {path} . | tar -x"
            )
        return found.files

    def read_to(self, path: str, write: Callable[[bytes], object]) -> int:
        count = 0
        with patiently(lambda: self._files.open(self._id, path)) as pieces:
            for piece in pieces:
                count += len(piece)
                write(piece)
        return count

    def write(self, path: str, content: BinaryIO, mode: int) -> int:
        begin = content.tell() if content.seekable() else 0

        def send() -> int:
            if content.seekable():
                content.seek(begin)
            sent = self._files.write(self._id, path, content, mode=f"{mode & 0o777:04o}")
            return sent.size_bytes

        return patiently(send) if content.seekable() else send()

    def make_directory(self, path: str) -> None:
        patiently(lambda: self._files.make_directory(self._id, path))


def patiently(call: Callable[[], T]) -> T:
    """Make a call, and again when the server wants: it lets in fewer than a directory has files."""
    while True:
        try:
            return call()
        except RateLimited as error:
            if error.reason != "RATE_LIMITED" or error.retry_after_s is None:
                raise
            say(f"the server wants fewer calls; going on in {error.retry_after_s:.0f} s")
            time.sleep(error.retry_after_s)


def _into(files: _Files, source: str, target: str) -> Copied:
    copied = Copied()
    if source == PIPE:
        copied.files, copied.bytes = 1, files.write(target, sys.stdin.buffer, 0o644)
        return copied
    path = Path(source)
    if not path.exists():
        raise click.UsageError(f"there is no {source!r} here")
    name = path.resolve().name if path.name in ("", "..") else path.name
    if target.endswith("/"):
        files.make_directory(target)
    found = files.find(target)
    if found is not None and found.kind == "directory" and name:
        target = f"{target.rstrip('/')}/{name}"
    if not path.is_dir():
        _send(files, path, target, copied)
        return copied
    files.make_directory(target)
    for below, is_directory in _walked(path, copied):
        inside = f"{target.rstrip('/')}/{_sendable(below.relative_to(path))}"
        if is_directory:
            files.make_directory(inside)
        else:
            _send(files, below, inside, copied)
    return copied


def _walked(top: Path, copied: Copied) -> Iterator[tuple[Path, bool]]:
    """What is below a directory, and whether it is one; each before what is in it."""
    for folder, directories, names in os.walk(top, onerror=_refuse):
        for name in sorted((*directories, *names)):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                yield path, stat.S_ISDIR(mode)
            else:
                copied.left_out.append(str(path))


def _refuse(error: OSError) -> None:
    """Leave nothing out because it cannot be looked into."""
    raise error


def _sendable(path: Path) -> PurePosixPath:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the name {os.fsencode(path)!r} is no UTF-8 and cannot be sent; give it another"
        ) from None
    return PurePosixPath(path)


def _send(files: _Files, path: Path, target: str, copied: Copied) -> None:
    with path.open("rb") as content:
        mode = os.fstat(content.fileno()).st_mode
        copied.bytes += files.write(target, content, mode)
    copied.files += 1


def _out(files: _Files, source: str, target: str) -> Copied:
    found = files.find(source)
    if found is None:
        raise NotFound(f"there is no {source!r} in the environment", reason="FILE_NOT_FOUND")
    if found.kind in ("link", "other"):
        what = f"a link to {found.target!r}; copy that" if found.target else "no file"
        raise InvalidRequest(f"{source!r} is {what}")
    copied = Copied()
    if target == PIPE:
        if found.kind != "file":
            raise InvalidRequest(f"{source!r} is a {found.kind}, not a file")
        copied.files, copied.bytes = 1, files.read_to(source, _print)
        return copied
    path = Path(target)
    if target.endswith("/"):
        path.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and (name := PurePosixPath(source).name):
        path /= name
    if found.kind == "file":
        _fetch(files, found, path, copied)
        return copied
    waiting = [(source, path)]
    while waiting:
        inside, folder = waiting.pop()
        folder.mkdir(parents=True, exist_ok=True)
        for each in files.inside(inside):
            here = folder / _local_name(each.path)
            if each.kind == "directory":
                waiting.append((each.path, here))
            elif each.kind == "file":
                _fetch(files, each, here, copied)
            else:
                copied.left_out.append(each.path)
    return copied


def _local_name(path: str) -> str:
    """The last part of a path from an environment, which strangers chose."""
    name = path.rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name or os.sep in name:
        raise InvalidRequest(f"the environment has a file whose name cannot be here: {path!r}")
    return name


def _fetch(files: _Files, found: File, path: Path, copied: Copied) -> None:
    with _replacing(path, int(found.mode or "0644", 8) & 0o777) as target:
        copied.bytes += files.read_to(found.path, target.write)
    copied.files += 1


@contextmanager
def _replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of the one there is when it is whole."""
    if path.exists() and not path.is_file():  # a device, a pipe
        with path.open("wb") as target:
            yield target
        return
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name[:100]}.", delete=False
    ) as draft:
        try:
            yield draft  # type: ignore[misc] # it is one but for its type
            draft.flush()
            Path(draft.name).chmod(mode)
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def _print(data: bytes) -> None:
    write_all(sys.stdout.fileno(), data)
