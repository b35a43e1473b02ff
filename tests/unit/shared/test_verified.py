"""Credentials kept in memory: found fast, forgotten at once."""

from __future__ import annotations

import asyncio

import pytest

from steward_server.errors import Unauthenticated, Unavailable
from steward_server.principals import Kind, Principal
from steward_server.verified import MAX_TRIES, Verified


class Store:
    """Loads principals and counts how often."""

    def __init__(
        self,
        credential: str = "token_1",
        expires_at_us: int | None = None,
        *,
        subject: str = "agent_1",
    ) -> None:
        self.loads = 0
        self.is_live = True
        self._principal = Principal(
            Kind.AGENT, subject, credential=credential, expires_at_us=expires_at_us
        )

    async def load(self) -> Principal:
        self.loads += 1
        if not self.is_live:
            raise Unauthenticated("revoked")
        return self._principal


async def test_the_second_look_does_not_load() -> None:
    verified, store = Verified(), Store()
    assert await verified.find("text", 0, store.load) is await verified.find("text", 0, store.load)
    assert store.loads == 1


async def test_what_is_forgotten_is_loaded_again() -> None:
    verified, store = Verified(), Store()
    await verified.find("text", 0, store.load)
    store.is_live = False
    verified.forget(["token_1"])
    with pytest.raises(Unauthenticated):
        await verified.find("text", 0, store.load)


async def test_forgetting_one_keeps_the_others() -> None:
    verified, one, two = Verified(), Store("token_1"), Store("token_2")
    await verified.find("one", 0, one.load)
    await verified.find("two", 0, two.load)
    verified.forget(["token_1"])
    await verified.find("two", 0, two.load)
    assert two.loads == 1


async def test_an_expired_one_is_loaded_again() -> None:
    verified, store = Verified(), Store(expires_at_us=10)
    await verified.find("text", 9, store.load)
    await verified.find("text", 9, store.load)
    assert store.loads == 1
    await verified.find("text", 10, store.load)
    assert store.loads == 2


async def test_what_was_read_before_a_revocation_is_not_kept_after_it() -> None:
    """The load reads a live row; the revocation commits and forgets before the load returns."""
    verified, store = Verified(), Store()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> Principal:
        principal = await store.load()
        begun.set()
        await go_on.wait()
        return principal

    finding = asyncio.ensure_future(verified.find("text", 0, slow))
    await begun.wait()
    store.is_live = False
    verified.forget(["token_1"])
    go_on.set()
    with pytest.raises(Unauthenticated):
        await finding


async def test_it_gives_up_when_everything_changes_all_the_time() -> None:
    verified, store = Verified(), Store()

    async def changing() -> Principal:
        principal = await store.load()
        verified.forget(["another"])
        return principal

    with pytest.raises(Unavailable):
        await verified.find("text", 0, changing)
    assert store.loads == MAX_TRIES


async def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    verified = Verified(most=2)
    stores = {name: Store(f"token_{name}") for name in "abc"}
    for name in "abac":
        await verified.find(name, 0, stores[name].load)
    await verified.find("a", 0, stores["a"].load)
    assert stores["a"].loads == 1
    await verified.find("b", 0, stores["b"].load)
    assert stores["b"].loads == 2
    assert len(verified._kept) == 2
    assert sum(len(hashes) for hashes in verified._hashes.values()) == 4  # by id and by owner


async def test_no_text_is_kept() -> None:
    verified = Verified()
    await verified.find("ic_a_very_secret_text", 0, Store().load)
    assert "very_secret" not in repr(vars(verified))


async def test_all_that_stand_for_someone_are_forgotten_by_whom_they_stand_for() -> None:
    verified, one, two, other = (
        Verified(),
        Store("key_1"),
        Store("key_2"),
        Store("key_3", subject="agent_2"),
    )
    stores = {"one": one, "two": two, "other": other}
    for text, store in stores.items():
        await verified.find(text, 0, store.load)
    verified.forget(["agent_1"])
    for text, store in stores.items():
        await verified.find(text, 0, store.load)

    assert (one.loads, two.loads, other.loads) == (2, 2, 1)


async def test_forgetting_by_either_name_leaves_nothing_behind() -> None:
    verified, store = Verified(), Store("key_1")
    for name in ("key_1", "agent_1", "nobody"):
        await verified.find("text", 0, store.load)
        verified.forget([name, name])
    verified.forget(["key_1"])

    assert not verified._kept
    assert not verified._hashes
