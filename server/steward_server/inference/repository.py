"""Where policies lie: `<folder>/<policy>/<version>/` with `model.onnx` and `policy.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from steward_server.inference.manifest import Manifest
from steward_server.inference.model import MANIFEST_FILE, MODEL_FILE, BadPolicy, manifest_of

BUILT_IN = Path(__file__).parent / "policies"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class BadReference(ValueError):
    """A text names no policy: it is neither `policy` nor `policy@version`."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A policy as callers name it.

    Attributes:
        version: 0 is the newest.
    """

    name: str
    version: int = 0

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read `cartpole`, `cartpole@latest` or `cartpole@3`.

        Raises:
            BadReference: it is none of these.
        """
        name, at, version = text.partition("@")
        is_latest = not at or version == "latest"
        if _NAME.fullmatch(name) is None or not (is_latest or _VERSION.fullmatch(version)):
            raise BadReference(
                f"{text[:80]!r} names no policy: write 'cartpole', or 'cartpole@3' for one version"
            )
        return cls(name, 0 if is_latest else int(version))

    def covers(self, other: Reference) -> bool:
        """Whether it is that version, or names none and is of that policy."""
        return self.name == other.name and self.version in (0, other.version)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class Shelf:
    """What there is.

    Attributes:
        versions: of each policy, by number, with the folder.
        passed_over: folders that are no policies, with the reason.
        stamps: of each version's folder, what differs once somebody has written to its files.
        manifests: of each version's folder; of none whose manifest cannot be used.
    """

    versions: Mapping[str, Mapping[int, Path]] = field(default_factory=dict)
    passed_over: Mapping[Path, str] = field(default_factory=dict)
    stamps: Mapping[Path, object] = field(default_factory=dict)
    manifests: Mapping[Path, Manifest] = field(default_factory=dict)

    def newest(self, name: str) -> int:
        """The number of the newest version; 0 if there is no such policy."""
        return max(self.versions.get(name, ()), default=0)


_EMPTY = Shelf()


def look(folders: Sequence[Path], before: Shelf = _EMPTY) -> Shelf:
    """Read what lies in folders; a policy of an earlier one hides that of a later one.

    A version without its manifest is passed over: it is still being written. Manifests that are
    what they were `before` are not read again.
    """
    versions: dict[str, Mapping[int, Path]] = {}
    passed_over: dict[Path, str] = {}
    for folder in folders:
        for place in _folders_in(folder):
            if place.name in versions:
                continue
            if _NAME.fullmatch(place.name) is None:
                passed_over[place] = "its name is none of a policy: a-z, 0-9, '.', '_' and '-'"
                continue
            found: dict[int, Path] = {}
            for each in _folders_in(place):
                if _VERSION.fullmatch(each.name) is None:
                    passed_over[each] = "its name is no version: 1, 2, 3 and so on"
                elif not (each / MANIFEST_FILE).is_file():
                    passed_over[each] = f"it has no {MANIFEST_FILE}"
                else:
                    found[int(each.name)] = each
            if found:
                versions[place.name] = found
    found_at = (place for each in versions.values() for place in each.values())
    stamps = {place: _stamp(place) for place in found_at}
    manifests: dict[Path, Manifest] = {}
    for place, stamp in stamps.items():
        with suppress(BadPolicy, KeyError):
            is_known = stamp == before.stamps.get(place)
            manifests[place] = before.manifests[place] if is_known else manifest_of(place)
    return Shelf(versions, passed_over, stamps, manifests)


def _stamp(folder: Path) -> object:
    states = []
    for name in (MODEL_FILE, MANIFEST_FILE):
        with suppress(FileNotFoundError):
            state = (folder / name).stat()
            states.append((name, state.st_mtime_ns, state.st_size, state.st_ino))
    return states


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(
            each for each in folder.iterdir() if each.is_dir() and not each.name.startswith(".")
        )
    except FileNotFoundError:
        return []
