"""Users: the private range of each machine, and who its commands run as."""

from __future__ import annotations

import fcntl
import os
from io import FileIO
from pathlib import Path

from steward_server.environments.asked import DEFAULT_ID, must_not_be_root
from steward_server.environments.driver import Unusable
from steward_server.environments.environment import SecurityContext
from steward_server.environments.images.image import Image
from steward_server.environments.sandbox.inside import linux
from steward_server.environments.sandbox.inside.build import RANGE, UID_COUNT

FIRST_UID = 0x7000_0000
"""Above what distributions, containers and systemd give away; all ranges end below 2^31."""
RANGE_COUNT = 4_000
CLAIMS = Path("/run/steward-uids")
"""Of all servers of this host: a file for each range that was ever claimed."""
_MOST_PASSWD_BYTES = 1024 * 1024


def claim_range(first: int) -> tuple[int, FileIO]:
    """A range of user ids that no living machine on this host has, and what holds the claim.

    The claim is a lock of a file that root alone can open. The machine's supervisor keeps it, so
    the range is free again the moment that ends, whatever becomes of this server.

    Raises:
        Unusable: reason TOO_MANY_MACHINES.
        OSError: claims cannot be kept here.
    """
    CLAIMS.mkdir(mode=0o700, exist_ok=True)
    for offset in range(RANGE_COUNT):
        number = (first + offset) % RANGE_COUNT
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC
        claim = FileIO(os.open(CLAIMS / str(number), flags, 0o600))
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            continue
        return FIRST_UID + number * RANGE, claim
    raise Unusable(
        "TOO_MANY_MACHINES",
        f"this host has {RANGE_COUNT} machines, which is as many as it has ranges of user ids for; "
        "delete some first",
    )


def who(image: Image, security: SecurityContext) -> tuple[int, int]:
    """The user and group that an environment's commands run as.

    Raises:
        Unusable: reason UNKNOWN_USER, BAD_USER or RUN_AS_NON_ROOT.
    """
    user, group = _of_image(image)
    if security.run_as_user is not None:
        user, group = security.run_as_user, security.run_as_user
    if security.run_as_group is not None:
        group = security.run_as_group
    for name, value in (("run_as_user", user), ("run_as_group", group)):
        if not 0 <= value < UID_COUNT:
            raise Unusable(
                "BAD_USER", f"{name} is {value}; a machine has the ids 0 to {UID_COUNT - 1}"
            )
    must_not_be_root(user, wanted=bool(security.run_as_non_root))
    return user, group


def _of_image(image: Image) -> tuple[int, int]:
    if not image.user:
        return DEFAULT_ID, DEFAULT_ID
    name, _, group_name = image.user.partition(":")
    if name.isascii() and name.isdigit():
        user = int(name)
        group = next((int(row[3]) for row in _rows(image, "passwd", 4) if row[2] == name), user)
    else:
        found = next((row for row in _rows(image, "passwd", 4) if row[0] == name), None)
        if found is None:
            raise _unknown(image, "user", name)
        user, group = int(found[2]), int(found[3])
    if group_name.isascii() and group_name.isdigit():
        group = int(group_name)
    elif group_name:
        rows = _rows(image, "group", 3)
        named = next((row for row in rows if row[0] == group_name), None)
        if named is None:
            raise _unknown(image, "group", group_name)
        group = int(named[2])
    return user, group


def home(image: Image, user: int) -> str:
    """The home of a user by the image's own list; `/workspace` for one it does not know."""
    rows = _rows(image, "passwd", 6)
    return next((row[5] for row in rows if row[2] == str(user)), "/workspace")


def _rows(image: Image, name: str, least: int) -> list[list[str]]:
    """The rows of a list of the image's /etc that can be read; never one from outside of it."""
    root = os.open(image.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
        fd = linux.openat2(root, f"etc/{name}", os.O_RDONLY | os.O_NONBLOCK, resolve=resolve)
    except OSError:
        return []
    finally:
        os.close(root)
    try:
        content = os.read(fd, _MOST_PASSWD_BYTES).decode(errors="replace")
    except OSError:
        return []
    finally:
        os.close(fd)
    rows = [line.split(":") for line in content.splitlines()]
    numbers = slice(2, 4 if name == "passwd" else 3)
    return [row for row in rows if len(row) >= least and all(map(_is_id, row[numbers]))]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len("4294967295")


def _unknown(image: Image, what: str, name: str) -> Unusable:
    return Unusable(
        "UNKNOWN_USER",
        f"the image {image.name!r} runs as {what} {name!r}, whom its own list does not have; set "
        "run_as_user and run_as_group to numbers",
    )


def first_range(folder: Path) -> int:
    """Where a server begins to look for ranges: its own place, so that two seldom meet."""
    return int.from_bytes(os.fsencode(folder)[-8:], "big") * 2_654_435_761 % RANGE_COUNT
