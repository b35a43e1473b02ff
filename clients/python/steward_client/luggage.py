"""What a script takes along into an environment: itself, files beside it, and packages from here.

All of it travels as one archive and is unpacked by the Python inside, which tells where.
"""

from __future__ import annotations

import re
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path
from typing import BinaryIO

PACKAGES = "packages"
"""The folder of packages, beside the script."""
IN_MEMORY_BYTES = 16 * 2**20
"""A larger archive waits in a file."""

# Takes an archive from its input and says where it was unpacked, and what Python it is.
UNPACK = """
import json, os, sys, tarfile, tempfile
sys.stdout.flush()
fault = None
for base in (os.getcwd(), os.path.expanduser("~"), "/workspace", tempfile.gettempdir()):
    try:
        folder = tempfile.mkdtemp(prefix="steward-", dir=base)
        break
    except OSError as error:
        fault = error
else:
    sys.exit("nothing can be written here: %s" % fault)
safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    archive.extractall(folder, **safe)
print(json.dumps({"folder": folder, "python": sys.version_info[:2]}))
"""

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_OF_AN_EXTRA = re.compile(r";.*\bextra\b")


def pack(script: Path, files: Sequence[Path], packages: Sequence[str]) -> BinaryIO:
    """The archive, to be read from its beginning; the caller closes it.

    Raises:
        FileNotFoundError: there is no such script, or no such file.
        ValueError: there is no such package here, or its files are not with it.
    """
    if not script.is_file():
        raise FileNotFoundError(f"there is no script {script}")
    for each in files:
        if not each.exists():
            raise FileNotFoundError(f"there is nothing at {each}")
    target = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115 - given to the caller
    try:
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            # Links that lead to them are followed: what they lead to is not there inside.
            archive.add(script.resolve(), script.name, recursive=False, filter=_anonymous)
            for each in files:
                archive.add(each.resolve(), each.name or each.resolve().name, filter=_anonymous)
            for source, name in installed(packages):
                archive.add(
                    source.resolve(), f"{PACKAGES}/{name}", recursive=False, filter=_anonymous
                )
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return target  # type: ignore[return-value] # it has all that is read of one


def installed(packages: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The files of packages of this Python, and of what they need, with the names they import by.

    Raises:
        ValueError: there is no such package here, or it was not copied here when it was installed.
    """
    seen: set[str] = set()
    waiting = list(packages)
    for name in packages:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise ValueError(f"no package {name!r} is installed here; install it first") from None
    while waiting:
        name = waiting.pop()
        if _normal(name) in seen:
            continue
        seen.add(_normal(name))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # it is needed elsewhere, by another Python or system
        waiting += [_name(each) for each in found.requires or () if not _OF_AN_EXTRA.search(each)]
        files = list(_files(found))
        if not any(each.suffix in (".py", ".so") for each, _ in files):
            raise ValueError(
                f"package {name!r} is used from a folder of its own here; give that in `files`"
            )
        yield from files


def _files(found: metadata.Distribution) -> Iterator[tuple[Path, str]]:
    for each in found.files or ():
        name = each.as_posix()
        if name.startswith(("..", "/")) or name.endswith((".pth", ".pyc")):
            continue
        source = Path(str(found.locate_file(each)))
        if not source.is_file():
            continue
        yield source, name
        if source.suffix == ".py":  # compiled, it is there in a third of the time
            compiled = Path(cache_from_source(str(source)))
            if compiled.is_file():
                yield compiled, f"{Path(name).parent.as_posix()}/__pycache__/{compiled.name}"


def must_fit(python: Sequence[int], packages: Sequence[str]) -> None:
    """Refuse packages of another Python than the one inside.

    Raises:
        ValueError: it is another.
    """
    here = sys.version_info[:2]
    if packages and tuple(python) != here:
        raise ValueError(
            f"the environment has Python {'.'.join(map(str, python))}, and the packages here are "
            f"those of Python {'.'.join(map(str, here))}; use an image with that, or one that has "
            "the packages"
        )


def _name(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found[1] if found else requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Whose a file is here means nothing there; what is no file or folder stays here."""
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
