"""Folders of playbooks above one another, read as they are now and parsed once. For threads.

What is parsed is kept by its content: a file that changes is read anew, and one that does not costs
a look.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from steward_server.playbooks.checking import RUN, check
from steward_server.playbooks.faults import BadPlaybook, Fault
from steward_server.playbooks.files import LeadsOut, NoFile, OpenFile, PlaybookFolder, Stamp
from steward_server.playbooks.paths import is_hidden, why_unsafe
from steward_server.playbooks.playbook import Playbook
from steward_server.playbooks.reading import Reading, first_there, read

MAX_KEPT_BYTES = 4 * 1024 * 1024
"""Of texts whose playbooks are kept; these are many times as large as their texts."""
LISTING_S = 2.0
"""How long a list may take to read what is new; the rest is told as pending."""
MAX_SHOWN = 300
"""Characters of a description or a fault in a list."""

_FRESH_NS = 100_000_000
"""A file that was changed so short a time before it was read may have changed in the same tick
of its file system's clock, and is read once more."""


class Origin(StrEnum):
    """Where a playbook comes from."""

    USER = "user"
    BUILT_IN = "built_in"


class UnsafePath(ValueError):
    """A path that no playbook can have, or that leads out of its folder."""


@dataclass(frozen=True, slots=True)
class Text:
    """The bytes of a playbook as they were read.

    Attributes:
        digest: SHA-256, in hexadecimal.
    """

    path: str
    origin: Origin
    content: bytes
    digest: str
    stamp: Stamp

    @property
    def modified_at_us(self) -> int:
        return self.stamp.modified_at_ns // 1_000


@dataclass(frozen=True, slots=True)
class Summary:
    """A playbook in a list.

    Attributes:
        error: the first fault, with line and column; empty if there is none.
        runs_others: whether what is wrong with it depends on other playbooks.
        pending: whether it was not read yet, for want of time.
    """

    path: str
    origin: Origin
    name: str
    version: str = ""
    description: str = ""
    domain: str = ""
    group: str = ""
    verified: bool = False
    parameter_count: int = 0
    step_count: int = 0
    error_count: int = 0
    error: str = ""
    runs_others: bool = False
    pending: bool = False
    digest: str = ""
    modified_at_us: int = 0

    def with_faults(self, faults: Sequence[Fault]) -> Summary:
        error = str(faults[0])[:MAX_SHOWN] if faults else ""
        return replace(self, error_count=len(faults), error=error)


@dataclass(frozen=True, slots=True)
class Listing:
    """All playbooks by path; and whether there are more than were looked at."""

    summaries: tuple[Summary, ...]
    is_truncated: bool


class Readings:
    """What was read of texts, by their digests; of those used last, as much as is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[int, Reading]] = OrderedDict()
        self._kept_bytes = 0

    def of(self, text: Text) -> Reading:
        with self._lock:
            if text.digest in self._kept:
                self._kept.move_to_end(text.digest)
                return self._kept[text.digest][1]
        reading = read(text.content)
        with self._lock:
            if text.digest not in self._kept:
                self._kept[text.digest] = len(text.content), reading
                self._kept_bytes += len(text.content)
            while self._kept_bytes > MAX_KEPT_BYTES:
                _, (size, _) = self._kept.popitem(last=False)
                self._kept_bytes -= size
        return reading


_READINGS = Readings()
"""Of this process: a text reads the same for whoever has it."""


class Shelves:
    """The library as checking sees it, and the texts in it; the first folder hides the others."""

    def __init__(self, folders: Sequence[tuple[Origin, PlaybookFolder]]) -> None:
        self._folders = folders
        self._seen: dict[tuple[Origin, str], tuple[Stamp, Summary]] = {}
        self._nested: dict[str, tuple[str, Summary]] = {}
        """Of those that run others: what was found in which state of the library."""

    def text(self, path: str) -> Text | None:
        """What is at a path; None if there is nothing.

        Raises:
            UnsafePath: no playbook can be there.
            BadPlaybook: it cannot be read.
        """
        for origin, folder in self._folders_of(path):
            try:
                with closing(folder.open(path)) as file:
                    return _text(path, origin, file)
            except FileNotFoundError:
                continue
            except LeadsOut:
                raise UnsafePath("it leads out of the library") from None
            except NoFile as error:
                raise BadPlaybook([Fault(1, 1, str(error))]) from None
        return None

    def find(self, path: str) -> Playbook | None:
        """As checking wants it: without a look at those that it runs."""
        try:
            text = self.text(path)
        except UnsafePath:
            return None
        if text is None:
            return None
        reading = _READINGS.of(text)
        faults = reading.faults or (check(reading.playbook) if reading.playbook else ())
        if reading.playbook is None or faults:
            raise BadPlaybook(faults)
        return reading.playbook

    def paths(self) -> Iterable[str]:
        """All that there are."""
        return {path for _, folder in self._folders for path in folder.paths()[0]}

    def examine(self, text: Text) -> tuple[Playbook | None, tuple[Fault, ...]]:
        """What can be read of a playbook, and all its faults."""
        reading = _READINGS.of(text)
        if reading.playbook is None:
            return None, reading.faults
        meant = check(reading.playbook, path=text.path, library=self)
        return reading.playbook, first_there(reading.faults, meant)

    def listing(self, takes_s: float = LISTING_S) -> Listing:
        """Every playbook, what is new among them read for so many seconds at the most."""
        until = time.monotonic() + takes_s
        shelved: dict[str, tuple[Origin, PlaybookFolder]] = {}
        is_truncated = False
        for origin, folder in self._folders:
            paths, has_more = folder.paths()
            is_truncated |= has_more
            for path in paths:
                shelved.setdefault(path, (origin, folder))
        seen = {
            (origin, path): self._look(path, origin, folder, until)
            for path, (origin, folder) in sorted(shelved.items())
        }
        self._seen = {place: each for place, each in seen.items() if not each[1].pending}
        state = hashlib.sha256()
        for _, each in seen.values():
            state.update(f"{each.path}\0{each.digest}\0".encode())
        self._nested = {path: each for path, each in self._nested.items() if path in shelved}
        return Listing(
            tuple(self._whole(each, state.hexdigest(), until) for _, each in seen.values()),
            is_truncated,
        )

    def _folders_of(self, path: str) -> Iterator[tuple[Origin, PlaybookFolder]]:
        if wrong := why_unsafe(path):
            raise UnsafePath(wrong)
        if not is_hidden(path):
            yield from self._folders

    def _look(
        self, path: str, origin: Origin, folder: PlaybookFolder, until: float
    ) -> tuple[Stamp, Summary]:
        """What a list shows of a file, by itself."""
        unread = Summary(path, origin, _stem(path), domain=_first_folder(path))
        looked_at_ns = time.time_ns()
        try:
            with closing(folder.open(path)) as file:
                before = self._seen.get((origin, path))
                if before is not None and before[0] == file.stamp:
                    return before
                if time.monotonic() > until:
                    return file.stamp, replace(unread, pending=True)
                text = _text(path, origin, file)
        except FileNotFoundError:
            return _NO_STAMP, unread.with_faults([Fault(1, 1, "a link that leads nowhere")])
        except LeadsOut:
            return _NO_STAMP, unread.with_faults([Fault(1, 1, "it leads out of the library")])
        except NoFile as error:
            return _NO_STAMP, unread.with_faults([Fault(1, 1, str(error))])
        stamp = text.stamp
        is_fresh = looked_at_ns - max(stamp.modified_at_ns, stamp.changed_at_ns) < _FRESH_NS
        return _NO_STAMP if is_fresh else stamp, self._summary(text)

    def _summary(self, text: Text) -> Summary:
        reading = _READINGS.of(text)
        playbook = reading.playbook
        unread = Summary(
            text.path,
            text.origin,
            _stem(text.path),
            domain=_first_folder(text.path),
            digest=text.digest,
            modified_at_us=text.modified_at_us,
        )
        if playbook is None:
            return unread.with_faults(reading.faults)
        steps = [*playbook.all_steps]
        return replace(
            unread,
            name=playbook.name or unread.name,
            version=playbook.version,
            description=playbook.description[:MAX_SHOWN],
            domain=playbook.domain or unread.domain,
            group=playbook.group,
            verified=playbook.verified,
            parameter_count=len(playbook.parameters),
            step_count=len(steps),
            runs_others=any(step.type == RUN for step in steps),
        ).with_faults(first_there(reading.faults, check(playbook)))

    def _whole(self, summary: Summary, state: str, until: float) -> Summary:
        """The same with what is wrong because of other playbooks."""
        if not summary.runs_others:
            return summary
        known = self._nested.get(summary.path)
        if known is not None and known[0] == f"{summary.digest} {state}":
            return known[1]
        if time.monotonic() > until:
            return replace(summary, pending=True)
        try:
            text = self.text(summary.path)
        except (UnsafePath, BadPlaybook):
            return summary
        if text is None:
            return summary
        whole = summary.with_faults(self.examine(text)[1])
        self._nested[summary.path] = f"{summary.digest} {state}", whole
        return whole


def domain_of(playbook: Playbook, path: str) -> str:
    """As a playbook says, else the first folder of its path."""
    return playbook.domain or _first_folder(path)


def _text(path: str, origin: Origin, file: OpenFile) -> Text:
    content = file.content()
    return Text(path, origin, content, digest_of(content), file.stamp)


def digest_of(content: bytes) -> str:
    """What tells one text from another."""
    return hashlib.sha256(content).hexdigest()


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _first_folder(path: str) -> str:
    folder, slash, _ = path.partition("/")
    return folder if slash else ""


_NO_STAMP = Stamp(0, 0, 0, 0, 0)
"""That no file has."""
