"""Hashing passwords away from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from steward_server.auth.passwords import Passwords
from steward_server.errors import Unavailable
from tests.cheap_passwords import recommended


@pytest.fixture(autouse=True)
def _at_full_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steward_server.auth.passwords._hasher", recommended)


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords(workers=1, queue=2)
    yield made
    made.close()


async def test_a_hash_is_argon2id_with_the_recommended_cost(passwords: Passwords) -> None:
    stored = await passwords.hash("a password")
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_only_the_password_itself_matches(passwords: Passwords) -> None:
    stored = await passwords.hash("a password")
    assert await passwords.matches(stored, "a password")
    for other in ("", "A password", "a password ", "a passwor", "a password\0"):
        assert not await passwords.matches(stored, other)


async def test_nobody_has_a_password(passwords: Passwords) -> None:
    assert not await passwords.matches(None, "the password of nobody")


async def test_what_is_no_hash_matches_nothing(passwords: Passwords) -> None:
    assert not await passwords.matches("plain", "plain")


async def test_too_many_at_once_are_refused_and_room_comes_back(passwords: Passwords) -> None:
    go_on = threading.Event()
    waiting = [asyncio.ensure_future(passwords._on_a_thread(go_on.wait)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as caught:
        await passwords.matches(None, "x")
    assert caught.value.retry_after_s == 1
    go_on.set()
    await asyncio.gather(*waiting)
    assert not await passwords.matches(None, "x")


async def test_a_cancelled_wait_does_not_free_a_busy_thread(passwords: Passwords) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    busy = asyncio.ensure_future(passwords._on_a_thread(work))
    await asyncio.to_thread(begun.wait)
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
    queued = [asyncio.ensure_future(passwords._on_a_thread(go_on.wait)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await passwords.matches(None, "x")
    go_on.set()
    await asyncio.gather(*queued)


async def test_the_event_loop_goes_on_meanwhile(passwords: Passwords) -> None:
    hashing = asyncio.ensure_future(passwords.hash("a password"))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
