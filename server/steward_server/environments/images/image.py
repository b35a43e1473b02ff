"""An image: a root file system with a name. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from steward_server.environments.driver import Unusable

HOST = "host"
"""The built-in image that shows the machine's own programs."""

SNAPSHOTS = "snapshot/"
"""What the names of images begin with that are somebody's snapshots, and nobody else's business."""

_NAME = re.compile(
    r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?::[0-9]+)?(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_MOST_CHARACTERS = 512
_HUBS = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/")
_LOCAL = "localhost/"
"""Podman's name for what has come from no registry."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine is made of."""

    name: str
    digest: str
    """`sha256:` and 64 digits; it names the content."""
    root: Path
    """The lowest layer of a machine's root; nothing is ever written there."""
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    env_alone: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Added to that where a machine reaches nothing."""
    command: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    """`user`, `user:group` or empty, by name or number."""
    size_bytes: int = 0
    """Of its root, without what is bound."""
    created_at_us: int = 0
    is_host: bool = False
    binds: tuple[tuple[Path, str], ...] = ()
    """What of the host is shown read-only, and where; `root` has a place for each."""


def canonical(name: str) -> str:
    """One name for an image whose name can be written in several ways.

    `docker.io/library/python:latest` and `python` are the same.

    Raises:
        Unusable: reason BAD_IMAGE_NAME.
    """
    short = name.strip()
    for hub in (*_HUBS, _LOCAL):
        short = short.removeprefix(hub)
    if len(short) > _MOST_CHARACTERS or not _NAME.fullmatch(short):
        raise Unusable(
            "BAD_IMAGE_NAME",
            f"{name[:_MOST_CHARACTERS]!r} is no image name; write it as repository:tag, in lower "
            "case, such as python:3.11-slim",
        )
    name_and_tag, at, digest = short.partition("@")
    return name_and_tag.removesuffix(":latest") + at + digest


def unknown(name: str, known: list[str]) -> Unusable:
    """The refusal of an image that is not there: it lists those that are."""
    listed = ", ".join(known)
    return Unusable(
        "UNKNOWN_IMAGE",
        f"there is no image {name!r} on this server; it has {listed}. Import another from an OCI "
        "layout or from what `docker save` or `podman save` writes: "
        f"steward image import <archive> --name {name}",
    )
