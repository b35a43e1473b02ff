"""ProviderService over a real port: keys go in, and come out only for handshakes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.providers.v1 import providers_pb2 as pb
from steward_server.auth.accounts import Role
from steward_server.errors import InvalidArgument, NotFound, Unavailable
from steward_server.providers.room import Providers
from steward_server.vault import Vault
from tests.integration.conftest import Server, refusal, refusal_of

KEY = "sk-canary-0123456789-xyz"


async def create(server: Server, **fields: Any) -> Any:
    request = pb.CreateProviderRequest(**({"name": "openai", "api_key": KEY} | fields))
    answer = await server.provider_service.CreateProvider(request, metadata=server.admin)
    return answer.provider


async def listed(server: Server, **fields: Any) -> Any:
    request = pb.ListProvidersRequest(**fields)
    return await server.provider_service.ListProviders(request, metadata=server.admin)


async def delete(server: Server, provider_id: str) -> None:
    request = pb.DeleteProviderRequest(provider_id=provider_id)
    await server.provider_service.DeleteProvider(request, metadata=server.admin)


@pytest.mark.parametrize(
    ("name", "kind", "base_url"),
    [
        ("openai", pb.PROVIDER_KIND_OPENAI, "https://api.openai.com/v1"),
        ("anthropic", pb.PROVIDER_KIND_ANTHROPIC, "https://api.anthropic.com"),
    ],
)
async def test_a_well_known_name_tells_kind_and_address(
    server: Server, name: str, kind: int, base_url: str
) -> None:
    made = await create(server, name=name)
    assert made.id.startswith("ip_")
    assert (made.kind, made.base_url, made.usable) == (kind, base_url, True)
    assert made.masked_key == "sk-c...xyz"
    assert list((await listed(server)).providers) == [made]


async def test_the_kind_decides_the_address_where_only_the_kind_is_given(server: Server) -> None:
    made = await create(server, name="claude", kind=pb.PROVIDER_KIND_ANTHROPIC)
    assert made.base_url == "https://api.anthropic.com"


async def test_the_key_comes_out_whole_for_a_handshake_only(server: Server) -> None:
    await create(server, base_url="http://127.0.0.1:9/v1/")
    lent = await server.providers.key_for(server.database, "openai")
    assert (lent.name, lent.kind, lent.base_url, lent.api_key) == (
        "openai",
        "openai",
        "http://127.0.0.1:9/v1",
        KEY,
    )
    assert KEY not in repr(lent)
    used_us = server.clock()
    server.clock.advance(9)
    (shown,) = (await listed(server)).providers
    assert shown.last_used_at.ToMicroseconds() == used_us
    await server.providers.last_use.write()
    row = await server.database.fetch_one("SELECT last_used_at_us FROM provider")
    assert row is not None
    assert row["last_used_at_us"] == used_us


async def test_no_name_means_the_only_one(server: Server) -> None:
    with pytest.raises(NotFound):
        await server.providers.key_for(server.database, "")
    await create(server)
    assert (await server.providers.key_for(server.database, "")).name == "openai"
    await create(server, name="anthropic")
    with pytest.raises(InvalidArgument) as caught:
        await server.providers.key_for(server.database, "")
    assert caught.value.reason == "PROVIDER_AMBIGUOUS"
    assert "anthropic" in caught.value.message
    with pytest.raises(NotFound):
        await server.providers.key_for(server.database, "other")


async def test_a_key_sealed_with_a_lost_master_key_shows_as_unusable(server: Server) -> None:
    await create(server)
    stranger = Vault.open(server.folder / "other.key", create=True)
    providers = Providers(server.database, stranger, server.directory, server.clock)
    (shown,) = await providers.page(before=None, limit=10)
    assert not shown.is_usable
    assert await providers.unusable_names() == ["openai"]
    assert await server.providers.unusable_names() == []
    with pytest.raises(Unavailable) as caught:
        await providers.key_for(server.database, "openai")
    assert caught.value.reason == "PROVIDER_UNUSABLE"


async def test_a_key_moved_to_another_row_does_not_open(server: Server) -> None:
    await create(server)
    await create(server, name="anthropic", api_key="sk-another-key-of-mine")
    await server.database.run(
        lambda transaction: transaction.execute(
            "UPDATE provider SET sealed_key = (SELECT sealed_key FROM provider WHERE name = ?)"
            " WHERE name = ?",
            "openai",
            "anthropic",
        )
    )
    assert await server.providers.unusable_names() == ["anthropic"]


async def test_a_name_is_taken_once(server: Server) -> None:
    outcomes = await asyncio.gather(*(create(server) for _ in range(5)), return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert [refusal_of(each).reason for each in refused] == ["PROVIDER_EXISTS"] * 4
    assert refused[0].code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, {"name", "kind"}),
        ({"name": "OpenAI"}, {"name", "kind"}),
        ({"name": "a b", "kind": 1}, {"name"}),
        ({"name": "n" * 51, "kind": 1}, {"name"}),
        ({"name": "ours"}, {"kind"}),
        ({"kind": 9}, {"kind"}),
        ({"api_key": ""}, {"api_key"}),
        ({"api_key": "k" * 501}, {"api_key"}),
        ({"api_key": "sk-a\r\nX: 1"}, {"api_key"}),
        ({"api_key": " sk-a"}, {"api_key"}),
        ({"api_key": "sk-é"}, {"api_key"}),
        ({"base_url": "ftp://a.example"}, {"base_url"}),
        ({"base_url": "http://a.example/v1"}, {"base_url"}),
        ({"base_url": "https://u:p@a.example"}, {"base_url"}),
        ({"base_url": "https://a.example/?k=1"}, {"base_url"}),
        ({"name": "", "api_key": "", "base_url": "x"}, {"name", "kind", "api_key", "base_url"}),
    ],
)
async def test_every_malformed_field_is_named_and_no_key_repeated(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    refused = await refusal(create(server, **fields))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == wrong
    assert "sk-" not in refused.message
    assert (await listed(server)).providers == []


async def test_names_and_keys_may_be_as_long_as_is_said(server: Server) -> None:
    made = await create(server, name="n" * 50, kind=pb.PROVIDER_KIND_OPENAI, api_key="k" * 500)
    assert made.name == "n" * 50


async def test_a_short_key_is_masked_whole(server: Server) -> None:
    assert (await create(server, api_key="12345678")).masked_key == "***"


async def test_a_provider_in_use_is_not_deleted(server: Server) -> None:
    made = await create(server)
    agent = await server.create_agent(provider="openai")
    refused = await refusal(delete(server, made.id))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "PROVIDER_IN_USE",
    )
    await server.agents.DeleteAgent(
        agents_pb2.DeleteAgentRequest(agent_id=agent.id), metadata=server.admin
    )
    await delete(server, made.id)
    assert (await listed(server)).providers == []
    refused = await refusal(delete(server, made.id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PROVIDER_NOT_FOUND")


async def test_pages_hold_every_provider_once(server: Server) -> None:
    for number in range(5):
        await create(server, name=f"p{number}", kind=pb.PROVIDER_KIND_OPENAI)
    first = await listed(server, page_size=3)
    second = await listed(server, page_size=3, page_token=first.next_page_token)
    names = [each.name for each in (*first.providers, *second.providers)]
    assert sorted(names) == ["p0", "p1", "p2", "p3", "p4"]
    assert second.next_page_token == ""


@pytest.mark.parametrize("fields", [{"page_size": 1_001}, {"page_size": -1}, {"page_token": "?"}])
async def test_a_page_that_is_none_is_refused(server: Server, fields: dict[str, Any]) -> None:
    assert (await refusal(listed(server, **fields))).fields.keys() == fields.keys()


async def test_providers_are_for_administrators(server: Server) -> None:
    _, user = await server.enter("ann", Role.USER)
    calls = [
        server.provider_service.CreateProvider(
            pb.CreateProviderRequest(name="openai", api_key=KEY), metadata=user
        ),
        server.provider_service.ListProviders(pb.ListProvidersRequest(), metadata=user),
        server.provider_service.DeleteProvider(
            pb.DeleteProviderRequest(provider_id="ip_1"), metadata=user
        ),
    ]
    for call in calls:
        assert (await refusal(call)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_the_journal_tells_of_providers_without_their_keys(server: Server) -> None:
    made = await create(server)
    await delete(server, made.id)
    rows = await server.journal("provider.")
    assert [row["kind"] for row in rows] == ["provider.created", "provider.deleted"]
    assert {row["subject"] for row in rows} == {made.id}
    assert json.loads(rows[0]["body"]).keys() == {"name", "kind", "base_url", "allow_plaintext_key"}
