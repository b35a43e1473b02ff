"""Every kind of caller; another kind is one more line in `CALLERS`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.integration.access.world import STATIC_TOKEN, Headers, World


async def anonymous(_world: World) -> Headers:
    return {}


async def client(_world: World) -> Headers:
    return {"authorization": f"Bearer {STATIC_TOKEN}"}


def agent(*scopes: str) -> Callable[[World], Awaitable[Headers]]:
    async def enter(world: World) -> Headers:
        return {"x-ic-key": (await world.token(scopes=scopes)).token}

    return enter


def person(role: str) -> Callable[[World], Awaitable[Headers]]:
    async def enter(world: World) -> Headers:
        return (await world.person(role)).headers

    return enter


def key(role: str) -> Callable[[World], Awaitable[Headers]]:
    async def enter(world: World) -> Headers:
        return {"authorization": f"Bearer {(await world.api_key(role)).key}"}

    return enter


async def newcomer(world: World) -> Headers:
    return (await world.person("admin", must_change_password=True)).headers


CALLERS: dict[str, Callable[[World], Awaitable[Headers]]] = {
    "anonymous": anonymous,
    "client": client,
    "agent": agent(),
    "agent for budget": agent("budget"),
    "agent for events": agent("events"),
    "agent for executions": agent("executions"),
    "agent for environments": agent("environments"),
    "agent for inference": agent("inference"),
    "viewer": person("viewer"),
    "user": person("user"),
    "admin": person("admin"),
    "newcomer": newcomer,
    "readonly key": key("readonly"),
    "executor key": key("executor"),
    "user key": key("user"),
    "admin key": key("admin"),
}
