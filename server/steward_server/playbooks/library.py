"""The library of a server: what is done with its playbooks, for callers on the event loop."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from steward.gateway.v1 import faults_pb2
from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.errors import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StewardError,
    Unavailable,
)
from steward_server.playbooks.checking import Library as View
from steward_server.playbooks.checking import examine, needs
from steward_server.playbooks.config import PlaybooksConfig
from steward_server.playbooks.copying import Unrenamable, renamed
from steward_server.playbooks.faults import BadPlaybook, Fault
from steward_server.playbooks.files import PlaybookFolder
from steward_server.playbooks.folders import SHIPPED
from steward_server.playbooks.paths import copy_path, is_hidden, slug, why_unsafe
from steward_server.playbooks.planning import Plan, plan
from steward_server.playbooks.playbook import Playbook
from steward_server.playbooks.shelves import (
    Listing,
    Origin,
    Shelves,
    Text,
    UnsafePath,
    digest_of,
)
from steward_server.playbooks.starting import BadStart, autofilled, check_gateway_url
from steward_server.playbooks.threads import Threads
from steward_server.principals import Principal

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_COPIES = 1_000
"""Of one name: how many numbers are tried."""
AHEAD_S = 0.5
"""How long reading ahead keeps a thread from others at a time."""
_MAX_TOLD_BYTES = 4_096
"""Of faults in a refusal: trailers of gRPC have 8 KiB for everything."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A playbook that can be used, with the text it was read from."""

    playbook: Playbook
    text: Text
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a playbook that was saved."""

    digest: str
    is_new: bool


class Library:
    """A folder of people's playbooks over those that come with the server. `close` it."""

    def __init__(
        self,
        database: Database,
        config: PlaybooksConfig,
        data_dir: Path,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._max_playbooks = config.max_playbooks
        self._clock = clock
        self._own = PlaybookFolder(config.folder or data_dir / "playbooks")
        self._shelves = Shelves(
            [(Origin.USER, self._own), (Origin.BUILT_IN, PlaybookFolder(SHIPPED))]
        )
        # Apart, so that a list does not wait for what somebody sends to be checked.
        self._reading = Threads(config.threads, "playbooks")
        self._checking = Threads(config.threads, "playbook-checks")
        self._changing = asyncio.Lock()

    @property
    def view(self) -> View:
        """The library as checking and planning want it; it reads files, so only on a thread."""
        return self._shelves

    def close(self) -> None:
        """Let the threads go."""
        self._reading.close()
        self._checking.close()

    async def read_all(self) -> None:
        """Read whatever there is, so that the first who asks for a list need not wait."""
        left, before = -1, 0
        while left not in (0, before):  # nor where a disk is so slow that nothing more is read
            before = left
            found = await self._reading.run(lambda: self._shelves.listing(AHEAD_S))
            left = sum(each.pending for each in found.summaries)

    async def listing(self) -> Listing:
        """Every playbook, those that cannot be used among them."""
        return await self._reading.run(self._shelves.listing)

    async def opened(self, path: str) -> tuple[Playbook, str]:
        """A playbook that was checked, for a run, and its text.

        Raises:
            NotFound: there is none; reason PLAYBOOK_NOT_FOUND.
            InvalidArgument: the path can be no playbook's, reason INVALID_PATH; or it has faults,
                reason VALIDATION_ERROR, which are told as `TextErrors`.
        """
        shown = await self.shown(path)
        return shown.playbook, shown.playbook.source.text

    async def shown(self, path: str) -> Shown:
        """As `opened`, with what else is known of it."""

        def work() -> Shown:
            text = self._text(path)
            playbook, faults = self._shelves.examine(text)
            if playbook is None or faults:
                raise _faulty(path, faults)
            return Shown(playbook, text, needs(playbook, self._shelves))

        return await self._reading.run(_telling_faults(path, work))

    async def source(self, path: str) -> tuple[Text, str]:
        """The text of a playbook, with faults or without.

        Raises:
            NotFound, InvalidArgument: as `opened`; faults only where it is no text.
        """

        def work() -> tuple[Text, str]:
            text = self._text(path)
            try:
                return text, text.content.decode()
            except UnicodeDecodeError:
                raise _faulty(path, self._shelves.examine(text)[1]) from None

        return await self._reading.run(work)

    async def check(self, path: str, text: str | None) -> tuple[Fault, ...]:
        """Everything that is wrong with a text, or else with what is at a path.

        Raises:
            NotFound, InvalidArgument: as `opened`, but for faults.
        """

        def work() -> tuple[Fault, ...]:
            if text is None:
                try:
                    return self._shelves.examine(self._text(path))[1]
                except _Unreadable as error:
                    return error.faults
            return self._examined(path, text)[1]

        return await self._checking.run(work)

    async def plan(
        self,
        path: str,
        text: str | None,
        parameters: Mapping[str, Any],
        *,
        gateway_url: str,
        credential: str,
    ) -> tuple[Plan, frozenset[str]]:
        """What a text, or else what is at a path, would do with these; and all that it needs.

        Raises:
            NotFound, InvalidArgument: as `opened`; or it cannot be started with these.
        """

        def work() -> tuple[Plan, frozenset[str]]:
            if text is None:
                playbook, faults = self._shelves.examine(self._text(path))
            else:
                playbook, faults = self._examined(path, text)
            if playbook is None or faults:
                raise _faulty(path, faults)
            try:
                if gateway_url:
                    check_gateway_url(gateway_url)
                given = autofilled(
                    playbook, parameters, gateway_url=gateway_url, credential=credential
                )
                return plan(playbook, given, self._shelves), needs(playbook, self._shelves)
            except BadStart as error:
                raise unstartable(error) from None

        return await self._checking.run(_telling_faults(path, work))

    async def save(
        self, caller: Principal, path: str, text: str, *, expected_digest: str | None
    ) -> Saved:
        """Write a playbook without faults, in place of what is there.

        Raises:
            InvalidArgument: as `opened`.
            Aborted: what is there has another digest than expected; empty: there must be nothing.
            ResourceExhausted: there are as many as there may be, or the disk is full.
            Unavailable: the folder cannot be written.
        """
        _check_path(path)
        content = text.encode()
        _, faults = await self._checking.run(lambda: self._examined(path, text))
        if faults:
            raise _faulty(path, faults)

        async def work() -> Saved:
            async with self._changing:
                before = await self._reading.run(lambda: self._replaced(path, expected_digest))
                is_new = before is None or before.origin is not Origin.USER
                try:
                    await self._write(path, content, replace=not is_new)
                except FileExistsError:
                    raise _unsafe(path, "something else is there") from None
                digest = digest_of(content)
                await self._record(caller, "created" if is_new else "updated", path, before, digest)
                return Saved(digest, is_new)

        return await complete(work())

    async def delete(self, caller: Principal, path: str, *, expected_digest: str | None) -> None:
        """Delete a playbook that people made.

        Raises:
            NotFound, InvalidArgument: as `opened`, but for faults.
            FailedPrecondition: it comes with the server.
            Aborted: it has another digest than expected.
            Unavailable: the folder cannot be written.
        """

        async def work() -> None:
            async with self._changing:
                before = await self._reading.run(lambda: self._replaced(path, expected_digest))
                if before is None:
                    raise _not_found(path)
                if before.origin is not Origin.USER:
                    raise FailedPrecondition(
                        f"playbook {path!r} comes with the server and cannot be deleted; save "
                        "another one at its path to hide it",
                        reason="PLAYBOOK_BUILT_IN",
                        facts={"path": path},
                    )
                try:
                    await self._reading.run(lambda: self._own.delete(path))
                except FileNotFoundError:
                    raise _not_found(path) from None
                except OSError as error:
                    raise _unwritable(path, error) from None
                await self._record(caller, "deleted", path, before, "")

        await complete(work())

    async def duplicate(self, caller: Principal, path: str, new_name: str) -> str:
        """Write a copy with another name beside a playbook; its path is told.

        Raises:
            NotFound, InvalidArgument: as `opened`; or there can be no copy of this name.
            ResourceExhausted, Unavailable: as `save`.
        """
        shown = await self.shown(path)
        stem = slug(new_name)
        if not stem:
            raise InvalidArgument.of({"new_name": "must have a letter or a digit"})
        if why := why_unsafe(copy_path(path, stem, MAX_COPIES)):
            raise InvalidArgument.of({"new_name": f"makes a path too long: {why}"})
        try:
            text = await self._checking.run(lambda: renamed(shown.playbook, new_name))
        except Unrenamable as error:
            raise InvalidArgument.of({"new_name": str(error)}) from None

        async def work() -> str:
            async with self._changing:
                taken = set(await self._reading.run(lambda: [*self._shelves.paths()]))
                for number in range(MAX_COPIES):
                    new_path = copy_path(path, stem, number)
                    if new_path in taken:
                        continue
                    try:
                        await self._write(new_path, text.encode(), replace=False)
                    except FileExistsError:
                        continue  # of what is listed nowhere, or came just now
                    digest = digest_of(text.encode())
                    await self._record(caller, "created", new_path, None, digest, copy_of=path)
                    return new_path
            raise ResourceExhausted(
                f"there are {MAX_COPIES} copies called {stem!r}; choose another name",
                reason="LIBRARY_FULL",
            )

        return await complete(work())

    def _text(self, path: str) -> Text:
        try:
            text = self._shelves.text(path)
        except UnsafePath as error:
            raise _unsafe(path, str(error)) from None
        except BadPlaybook as error:
            raise _Unreadable(path, error.faults) from None
        if text is None:
            raise _not_found(path)
        return text

    def _examined(self, path: str, text: str) -> tuple[Playbook | None, tuple[Fault, ...]]:
        return examine(text, path=path, library=self._shelves)

    def _replaced(self, path: str, expected_digest: str | None) -> Text | None:
        """What a change replaces, which must be what its caller expects."""
        try:
            text = self._shelves.text(path)
        except UnsafePath as error:
            raise _unsafe(path, str(error)) from None
        except BadPlaybook as error:
            raise _Unreadable(path, error.faults) from None
        found = text.digest if text is not None else ""
        if expected_digest not in (None, found):
            what = f"has the digest {found}" if text is not None else "is not there"
            raise Aborted(
                f"playbook {path!r} {what}: it was changed meanwhile, or never read; read it again "
                "and decide anew",
                reason="VERSION_PASSED",
                facts={"path": path, "digest": found},
            )
        return text

    async def _write(self, path: str, content: bytes, *, replace: bool) -> None:
        def work() -> None:
            if not replace and len(self._own.paths()[0]) >= self._max_playbooks:
                raise ResourceExhausted(
                    f"the library has {self._max_playbooks} playbooks, as many as it may; delete "
                    "one first",
                    reason="LIBRARY_FULL",
                )
            self._own.write(path, content, replace=replace)

        try:
            await self._reading.run(work)
        except FileExistsError:
            raise
        except NotADirectoryError:
            raise _unsafe(path, "a part of it is no folder") from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise _unsafe(path, "a part of it is too long") from None
            raise _unwritable(path, error) from None

    async def _record(
        self,
        caller: Principal,
        what: str,
        path: str,
        before: Text | None,
        digest: str,
        *,
        copy_of: str = "",
    ) -> None:
        was = {"digest": before.digest, "origin": before.origin.value} if before else None
        now = {"digest": digest, "origin": Origin.USER.value} if digest else None
        if now is not None and copy_of:
            now["copy_of"] = copy_of
        change = Change(f"playbook.{what}", path, before=was, after=now)
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            await record(transaction, now_us, caller, change)

        await self._database.run(work)


def _telling_faults(path: str, work: Callable[[], T]) -> Callable[[], T]:
    """As `work`, where a playbook that is run by another may change meanwhile."""

    def told() -> T:
        try:
            return work()
        except BadPlaybook as error:
            raise _faulty(path, error.faults) from None

    return told


def unstartable(error: BadStart) -> InvalidArgument:
    """What is wrong with the values that a run is to start with."""
    return InvalidArgument.of(
        {
            ".".join(("parameters", *map(str, problem.path))): str(problem)
            for problem in reversed(error.problems)  # of several about one the first is told
        }
    )


class _Unreadable(InvalidArgument):
    """What is at a path is there, and cannot be read."""

    def __init__(self, path: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        told = _faulty(path, faults)
        super().__init__(told.message, facts=told.facts, details=told.details)


def _faulty(path: str, faults: Sequence[Fault]) -> InvalidArgument:
    errors = faults_pb2.TextErrors()
    for fault in faults:
        errors.errors.append(text_error(fault, path))
        if errors.ByteSize() > _MAX_TOLD_BYTES:
            del errors.errors[-1]
            break
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    which = f"playbook {path!r}" if path else "the playbook"
    return InvalidArgument(
        f"{which} cannot be used: {str(faults[0])[:_MAX_MESSAGE]}{more}",
        facts={"path": path, "error_count": str(len(faults))},
        details=[errors],
    )


def text_error(fault: Fault, path: str) -> faults_pb2.TextError:
    """A fault as callers are told it."""
    return faults_pb2.TextError(
        line=fault.line, column=fault.column, path=path, message=fault.sentence[:_MAX_MESSAGE]
    )


def _check_path(path: str) -> None:
    if wrong := why_unsafe(path):
        raise _unsafe(path, wrong)
    if is_hidden(path):
        raise _unsafe(path, "a playbook is not hidden and no backup")


def _unsafe(path: str, wrong: str) -> InvalidArgument:
    shown = path[:_MAX_PATH]
    return InvalidArgument(
        f"{shown!r} cannot be the path of a playbook: {wrong}",
        reason="INVALID_PATH",
        facts={"path": shown},
    )


def _not_found(path: str) -> NotFound:
    return NotFound(
        f"Playbook {path!r} not found", reason="PLAYBOOK_NOT_FOUND", facts={"path": path}
    )


def _unwritable(path: str, error: OSError) -> StewardError:
    log.error("playbooks.not_written", path=path, exc_info=error)
    if error.errno in _FULL:
        return ResourceExhausted("the disk of the library is full", reason="LIBRARY_FULL")
    return Unavailable(
        "the library cannot be written; the server's log says why", reason="LIBRARY_NOT_WRITABLE"
    )


_FULL = (errno.ENOSPC, errno.EDQUOT)
_MAX_MESSAGE = 500
_MAX_PATH = 500
