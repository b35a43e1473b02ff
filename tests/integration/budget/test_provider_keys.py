"""Provider keys handed to runtimes that hold a lease, and to nobody else."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from steward_client.seal import open_aes256, open_hpke
from steward_server.budget.config import BudgetConfig
from steward_server.settings import Settings
from tests.live import (
    PROVIDER_KEY,
    Agent,
    Answer,
    Api,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Scene:
    live: Live
    clock: TurnedClock
    folder: Path

    async def agent(self, provider: str = "openai") -> Agent:
        agent = await create_agent(self.live.admin)
        await self.live.admin.call(
            "PATCH", f"/api/v1/agents/{agent.agent_id}", {"provider": provider}
        )
        return agent

    async def lease(self, agent: Agent) -> str:
        body = {"requested_budget_usd": 1, "provider": "openai"}
        answer = await self._as(agent).call("POST", "/api/budget/handshake", body)
        assert answer.status == 200, answer
        return str(answer.body["lease_id"])

    async def key(self, agent: Agent, lease_id: str, **fields: Any) -> Answer:
        body = {"lease_id": lease_id} | fields
        return await self._as(agent).call("POST", "/api/v1/agents/provider-key", body)

    async def allow_plaintext(self, *, allow: bool) -> None:
        listed = await self.live.admin.call("GET", "/api/v1/providers")
        (provider_id,) = [each["id"] for each in listed.body["providers"]]
        answer = await self.live.admin.call(
            "PATCH", f"/api/v1/providers/{provider_id}", {"allow_plaintext_key": allow}
        )
        assert answer.body["allow_plaintext_key"] is allow

    def rows(self, sql: str, *parameters: object) -> list[Any]:
        with closing(sqlite3.connect(self.folder / "steward.db", timeout=10)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def change(self, sql: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.folder / "steward.db", timeout=10)) as one, one:
            one.execute(sql, parameters)

    def _as(self, agent: Agent) -> Api:
        return self.live.api.acting_as(x_ic_key=agent.ic_token)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    clock = TurnedClock()
    folder = tmp_path_factory.mktemp("keys") / "data"
    settings = Settings(budget=BudgetConfig(sweep_interval_s=3_600))
    async with live_server(live_settings(folder, settings), clock) as live:
        await create_provider(live.admin)
        yield Scene(live, clock, folder)


def fresh() -> tuple[X25519PrivateKey, str]:
    private_key = X25519PrivateKey.generate()
    return private_key, base64.b64encode(private_key.public_key().public_bytes_raw()).decode()


async def test_a_key_is_sealed_to_the_public_key_that_was_sent(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id = await scene.lease(agent)
    private_key, public_key = fresh()
    answer = await scene.key(agent, lease_id, public_key=public_key)

    assert answer.status == 200
    assert (answer.body["provider"], answer.body["provider_key"]) == ("openai", "")
    info = base64.b64decode(answer.body["seal_info"])
    opened = open_hpke(answer.body["ip_token"], private_key=private_key, info=info)
    assert opened == PROVIDER_KEY


async def test_a_public_key_is_served_once_for_a_lease(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id, other = await scene.lease(agent), await scene.lease(agent)
    _, public_key = fresh()
    answers = [
        await scene.key(agent, name, public_key=public_key) for name in (lease_id, lease_id, other)
    ]
    assert [answer.status for answer in answers] == [200, 409, 200]
    assert answers[1].body["error"]["reason"] == "PUBLIC_KEY_USED"


async def test_without_a_public_key_it_is_sealed_to_the_token(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id = await scene.lease(agent)
    answers = [await scene.key(agent, lease_id) for _ in range(2)]
    for answer in answers:
        opened = open_aes256(
            answer.body["ip_token"],
            ic_token=agent.ic_token,
            salt=base64.b64decode(answer.body["seal_salt"]),
            info=base64.b64decode(answer.body["seal_info"]),
        )
        assert opened == PROVIDER_KEY
    assert answers[0].body["ip_token"] != answers[1].body["ip_token"]


async def test_a_key_is_in_clear_only_where_that_is_allowed(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id = await scene.lease(agent)
    await scene.allow_plaintext(allow=True)
    try:
        clear = await scene.key(agent, lease_id)
        sealed = await scene.key(agent, lease_id, public_key=fresh()[1])
    finally:
        await scene.allow_plaintext(allow=False)
    assert (clear.body["provider_key"], clear.body["ip_token"]) == (PROVIDER_KEY, "")
    assert sealed.body["provider_key"] == ""
    assert (await scene.key(agent, lease_id)).body["provider_key"] == ""
    changes = scene.rows(
        "SELECT after FROM audit_entry WHERE action = 'provider.updated' ORDER BY number"
    )
    assert changes[-2:] == [('{"allow_plaintext_key":true}',), ('{"allow_plaintext_key":false}',)]


async def test_each_hand_over_is_written_down_and_the_key_is_not(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id = await scene.lease(agent)
    await scene.key(agent, lease_id, public_key=fresh()[1])
    await scene.key(agent, lease_id)

    audited = scene.rows(
        "SELECT actor_kind, actor_id, after FROM audit_entry"
        " WHERE action = 'lease.key_handed_over' AND resource_id = ?",
        lease_id,
    )
    journal = scene.rows(
        "SELECT body FROM journal WHERE kind = 'key.handed_over' AND subject = ?", lease_id
    )
    assert [row[:2] for row in audited] == [("agent", agent.agent_id)] * 2
    assert len(journal) == 2
    text = repr((audited, journal))
    assert PROVIDER_KEY not in text
    assert agent.ic_token not in text


async def test_a_lease_that_has_ended_gives_no_key(scene: Scene) -> None:
    agent = await scene.agent()
    returned, expired = await scene.lease(agent), await scene.lease(agent)
    await scene._as(agent).call("POST", "/api/budget/return", {"lease_id": returned})
    scene.change("UPDATE lease SET expires_at_us = 1 WHERE lease_id = ?", expired)
    for lease_id in (returned, expired):
        answer = await scene.key(agent, lease_id)
        assert (answer.status, answer.body["error"]["reason"]) == (409, "LEASE_CLOSED")


async def test_the_lease_of_another_agent_is_not_known(scene: Scene) -> None:
    first, second = await scene.agent(), await scene.agent()
    answer = await scene.key(second, await scene.lease(first))
    assert (answer.status, answer.body["error"]["reason"]) == (404, "LEASE_NOT_FOUND")
    assert (await scene.key(first, "none")).status == 404


async def test_an_agent_without_a_provider_of_its_own_is_refused(scene: Scene) -> None:
    agent = await scene.agent("")
    answer = await scene.key(agent, await scene.lease(agent))
    assert (answer.status, answer.body["error"]["reason"]) == (403, "NO_PROVIDER_ASSIGNED")


async def test_a_key_that_cannot_be_decrypted_is_unavailable(scene: Scene) -> None:
    agent = await scene.agent()
    lease_id = await scene.lease(agent)
    ((sealed,),) = scene.rows("SELECT sealed_key FROM provider")
    scene.change("UPDATE provider SET sealed_key = ?", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    try:
        answer = await scene.key(agent, lease_id)
    finally:
        scene.change("UPDATE provider SET sealed_key = ?", sealed)
    assert (answer.status, answer.body["error"]["reason"]) == (503, "PROVIDER_UNUSABLE")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"lease_id": ""}, {"lease_id"}),
        ({"lease_id": "x" * 101, "public_key": "AAAA"}, {"lease_id", "public_key"}),
    ],
)
async def test_a_bad_request_names_what_is_wrong(
    scene: Scene, fields: dict[str, str], wrong: set[str]
) -> None:
    answer = await scene.key(await scene.agent(), **fields)
    assert (answer.status, set(answer.body["error"]["fields"])) == (400, wrong)


async def test_people_are_not_handed_a_key(scene: Scene) -> None:
    answer = await scene.live.admin.call(
        "POST", "/api/v1/agents/provider-key", {"lease_id": "lease_1"}
    )
    assert answer.status == 403
