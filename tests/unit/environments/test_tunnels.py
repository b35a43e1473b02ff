"""Bytes that are passed on both ways, until both sides have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from steward_server.environments import tunnels
from steward_server.environments.tunnels import relayed
from steward_server.errors import Unavailable


class Written:
    """The way into a port that has ended its own side."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def write(self, data: bytes) -> None:
        self.pieces.append(data)

    async def close(self) -> None:
        self.pieces.append(b"")


async def ended() -> AsyncIterator[bytes]:
    yield b"bye"


async def sent(piece_count: int, *, then_nothing: bool) -> AsyncIterator[bytes]:
    for _ in range(piece_count):
        await asyncio.sleep(0.03)
        yield b"."
    if then_nothing:
        await asyncio.Event().wait()


async def test_a_caller_who_neither_sends_nor_ends_is_let_go_once_the_other_side_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnels, "HALF_CLOSED_S", 0.06)
    sink, told = Written(), list[bytes]()

    async def read() -> None:
        async for piece in relayed((ended(), sink), sent(2, then_nothing=True)):
            told.append(piece)

    with pytest.raises(Unavailable) as idle:
        await asyncio.wait_for(read(), 30)
    assert idle.value.reason == "CONNECTION_IDLE"
    assert told == [b"bye", b""]
    assert sink.pieces == [b".", b"."]


async def test_a_caller_may_send_for_long_after_the_other_side_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnels, "HALF_CLOSED_S", 0.2)
    sink = Written()
    async with asyncio.timeout(30):
        told = [piece async for piece in relayed((ended(), sink), sent(10, then_nothing=False))]
    assert told == [b"bye", b""]
    assert sink.pieces == [b"."] * 10 + [b""]
