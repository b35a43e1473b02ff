"""Fetches what main commands write, while somebody wants to know it and once more at the end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import structlog

from steward_server.environments.driver import Gone, LogRecord
from steward_server.environments.kubernetes.book import MOST_LINE_BYTES, Book
from steward_server.environments.kubernetes.cluster import Cluster, Refused, in_namespace
from steward_server.environments.kubernetes.marks import CONTAINER, POD, Owner
from steward_server.environments.kubernetes.pods import Pods
from steward_server.environments.kubernetes.states import condition
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

_STREAM = "stdout"
"""A kubelet gives both outputs as one."""
_TOGETHER_S = 0.05
_AGAIN_S = 1.0
_LAST_LINES_S = 0.25
"""How long a deletion lets those who follow a log read its end."""
_MOST_WAITING_BYTES = 1024 * 1024
"""Of lines that are not in the book yet."""
_PIECE_BYTES = 16 * 1024
"""Of a line, as containerd and CRI-O keep it."""
_TIME_BYTES = 64
"""More than a time has."""
_HELD_BYTES = MOST_LINE_BYTES + _TIME_BYTES * (1 + MOST_LINE_BYTES // _PIECE_BYTES)
"""A part of a line, with the times in it."""
_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d) ")


class Logs:
    """The logs of all machines. Close it."""

    def __init__(
        self, folder: Path, cluster: Cluster, owner: Owner, pods: Pods, *, most_bytes: int
    ) -> None:
        self._folder = folder
        self._cluster = cluster
        self._owner = owner
        self._pods = pods
        self._most_bytes = most_bytes
        self._books: dict[str, Book] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._followers: dict[str, int] = {}
        self._followed: dict[str, asyncio.Task[None]] = {}
        self._said: set[str] = set()

    async def aclose(self) -> None:
        for task in self._followed.values():
            task.cancel()
        await asyncio.gather(*self._followed.values(), return_exceptions=True)

    def book(self, environment_id: str) -> Book:
        """The book of a machine."""
        if environment_id not in self._books:
            folder = self._folder / environment_id
            self._books[environment_id] = Book(folder, most_bytes=self._most_bytes)
        return self._books[environment_id]

    async def read(
        self, environment_id: str, *, after: int, tail: int | None, follow: bool
    ) -> AsyncGenerator[LogRecord, None]:
        """As the driver's `logs`."""
        await self._pods.find(environment_id)
        book = self.book(environment_id)
        if environment_id in self._followed:  # it is being fetched, up to what comes together
            await asyncio.sleep(2 * _TOGETHER_S)
        else:
            await self._fetch(environment_id, follow=False)
        if tail is not None:
            after = max(after, book.after_of_tail(tail))
        if follow:
            self._follow(environment_id)
        try:
            async for record in book.read(
                after, follow=follow, is_over=lambda: environment_id not in self._followed
            ):
                yield record
        finally:
            if follow:
                self._unfollow(environment_id)

    def _follow(self, environment_id: str) -> None:
        self._followers[environment_id] = self._followers.get(environment_id, 0) + 1
        if environment_id in self._followed:
            return
        task = asyncio.create_task(self._keep_fetching(environment_id))
        self._followed[environment_id] = task

        def ended(_: asyncio.Task[None]) -> None:
            if self._followed.get(environment_id) is task:
                del self._followed[environment_id]

        task.add_done_callback(ended)

    def _unfollow(self, environment_id: str) -> None:
        left = self._followers[environment_id] = self._followers[environment_id] - 1
        if not left:
            del self._followers[environment_id]
            if (task := self._followed.pop(environment_id, None)) is not None:
                task.cancel()

    async def _keep_fetching(self, environment_id: str) -> None:
        """Fetch lines as they come, until the main command has ended or the machine is gone."""
        while True:
            try:
                await self._fetch(environment_id, follow=True)
                if condition(await self._pods.ask(environment_id)).exit is not None:
                    await self._fetch(environment_id, follow=False)
                    return
            except Gone:
                return
            except (Refused, Unavailable, aiohttp.ClientError, OSError) as error:
                log.warning(
                    "kubernetes.log_broken", environment_id=environment_id, error=str(error)
                )
            await asyncio.sleep(_AGAIN_S)

    async def _fetch(self, environment_id: str, *, follow: bool) -> None:
        """Write down what the cluster has and the book has not.

        Raises:
            Gone: there is no such machine.
            Refused, Unavailable: as `Cluster.stream`.
        """
        namespace = self._owner.namespace(environment_id) or ""
        query: dict[str, str | int] = {"container": CONTAINER, "timestamps": "true"}
        if follow:
            query["follow"] = "true"
        async with self._locks.setdefault(environment_id, asyncio.Lock()):
            book = self.book(environment_id)
            place, _ = book.place
            if place:
                query["sinceTime"] = since(place)
            try:
                async with self._cluster.stream(
                    in_namespace(namespace, "pods", POD, "log"), query
                ) as content:
                    await self._write_down(book, content)
            except Refused as refusal:
                if refusal.status == 404:
                    raise Gone(f"there is no machine {environment_id!r}") from None
                if refusal.status != 400:  # its container has not begun, or was never made
                    raise
            if not follow:
                await self._remark(environment_id, book)

    async def _write_down(self, book: Book, content: aiohttp.StreamReader) -> None:
        last, count = book.place
        skipped = 0
        waiting: list[tuple[str, bytes]] = []
        waiting_bytes = 0

        def write() -> None:
            nonlocal last, count, waiting_bytes
            at, together = "", list[bytes]()
            for time_text, line in waiting:
                count = count + 1 if time_text == last else 1
                last = time_text
                if time_text != at and together:
                    book.add(_STREAM, together, _time_us(at))
                    together = []
                at = time_text
                together.append(line)
            if together:
                book.add(_STREAM, together, _time_us(at))
                book.place = (last, count)
            waiting.clear()
            waiting_bytes = 0

        async def write_soon() -> None:
            await asyncio.sleep(_TOGETHER_S)
            write()

        soon: asyncio.Task[None] | None = None
        begun_at, begun_count = last, count
        try:
            async for time_text, line in _lines(content):
                if not _is_time(time_text):
                    continue  # a kubelet's own word, such as of a log that was turned over
                if begun_at and _key(time_text) <= _key(begun_at):
                    skipped += _key(time_text) == _key(begun_at)
                    if _key(time_text) < _key(begun_at) or skipped <= begun_count:
                        continue
                waiting.append((time_text, line))
                waiting_bytes += len(line)
                if soon is None or soon.done():
                    soon = asyncio.create_task(write_soon())
                if len(waiting) >= 1_000 or waiting_bytes >= _MOST_WAITING_BYTES:
                    write()
        finally:
            if soon is not None:
                soon.cancel()
                with suppress(asyncio.CancelledError):
                    await soon
            write()

    async def _remark(self, environment_id: str, book: Book) -> None:
        """Say once what the cluster has to say of an end."""
        with suppress(Gone):
            told = condition(await self._pods.find(environment_id))
            if told.remark and environment_id not in self._said:
                self._said.add(environment_id)
                book.add("system", [told.remark.encode()])

    async def forget(self, environment_id: str) -> None:
        """Remove the book of a machine that is gone, once those who follow it have read its end."""
        book = self.book(environment_id)
        if (task := self._followed.pop(environment_id, None)) is not None:
            task.cancel()
        await book.last_call(_LAST_LINES_S)
        book.remove()
        self._books.pop(environment_id, None)
        self._locks.pop(environment_id, None)
        self._said.discard(environment_id)

    def keep_only(self, names: set[str]) -> None:
        """Remove the books of machines that are no more."""
        if self._folder.is_dir():
            for folder in self._folder.iterdir():
                if folder.name not in names:
                    Book(folder, most_bytes=self._most_bytes).remove()


class Lines:
    """Cuts what a kubelet sends into lines, each with its time; a long one into several.

    Where it cuts depends on the line alone: whenever a line is read again, its parts are the same.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._time = ""
        """Of the line that was begun; all its parts have it."""

    def add(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """The lines, and parts of a long one, that are whole now."""
        self._rest += data
        while True:
            end = self._rest.find(b"\n", 0, _HELD_BYTES)
            if end < 0 and len(self._rest) < _HELD_BYTES:
                return
            held = bytes(self._rest[: _HELD_BYTES if end < 0 else end])
            time, start = self._time, 0
            if not time:
                head = held[:_TIME_BYTES].partition(b" ")[0]
                time, start = head.decode(errors="replace"), len(head) + 1
            part, taken = joined(held[start:])
            is_over = end >= 0 and start + taken >= end
            if part or not self._time:  # else the line has ended with the part before
                yield time, part
            self._time = "" if is_over else time
            del self._rest[: min(start + taken, len(held)) + is_over]


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[tuple[str, bytes]]:
    lines = Lines()
    async for data in content.iter_any():
        for each in lines.add(data):
            yield each
    for each in lines.add(b"\n"):  # the last may have no end
        yield each


def joined(line: bytes) -> tuple[bytes, int]:
    """The first part of a line, and how much of the line it is with the times in it.

    Some kubelets put the time before each piece that their runtime kept of a line. The one before
    the first piece is not in the line any more.
    """
    pieces: list[bytes] = []
    at, left = 0, MOST_LINE_BYTES
    while left:
        pieces.append(line[at : at + _PIECE_BYTES])
        at, left = at + _PIECE_BYTES, left - _PIECE_BYTES
        time = _TIME.match(line, at)
        if time is None:
            pieces.append(line[at : at + left])
            at += left
            break
        at = time.end()
    return b"".join(pieces), min(at, len(line))


def _is_time(text: str) -> bool:
    return len(text) >= 20 and text[4:5] == "-" and text[10:11] == "T"


def _key(text: str) -> tuple[int, int]:
    """A time to compare: seconds and nanoseconds, whatever zone and digits it is written with."""
    head, zone = text[:19], text[19:].lstrip(".0123456789")
    fraction = text[19 : len(text) - len(zone)].lstrip(".")
    seconds = int(
        datetime.fromisoformat(head + (zone.replace("Z", "+00:00") or "+00:00")).timestamp()
    )
    return seconds, int((fraction + "000000000")[:9])


def _time_us(text: str) -> int:
    seconds, nanoseconds = _key(text)
    return seconds * 1_000_000 + nanoseconds // 1_000


def since(text: str) -> str:
    """The second of a time: the API takes no finer one."""
    return datetime.fromtimestamp(_key(text)[0], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
