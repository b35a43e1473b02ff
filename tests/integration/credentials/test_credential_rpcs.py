"""CredentialService over a real port: passwords go in, and come out for runs only."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest

from steward.credentials.v1 import credentials_pb2 as pb
from steward.credentials.v1.credentials_pb2_grpc import CredentialServiceStub
from steward_server.auth.accounts import Role
from steward_server.credential import Credential
from steward_server.credentials.room import CredentialRoom
from steward_server.errors import NotFound, Unavailable
from steward_server.vault import Vault
from tests.integration.auth.people import delete as delete_person
from tests.integration.conftest import Metadata, Server, refusal

PASSWORD = "canary password 5e0c"


def service(server: Server) -> Any:
    return CredentialServiceStub(server.channel)


async def save(server: Server, caller: Metadata | None = None, **fields: Any) -> Any:
    wanted = {"name": "my-gateway", "username": "admin", "password": PASSWORD} | fields
    request = pb.CreateCredentialRequest(**wanted)
    return await service(server).CreateCredential(request, metadata=caller or server.admin)


async def listed(server: Server, caller: Metadata | None = None, **fields: Any) -> Any:
    request = pb.ListCredentialsRequest(**fields)
    return await service(server).ListCredentials(request, metadata=caller or server.admin)


async def names(server: Server, caller: Metadata | None = None, **fields: Any) -> list[str]:
    return [each.name for each in (await listed(server, caller, **fields)).credentials]


async def delete(server: Server, caller: Metadata | None = None, **fields: Any) -> Any:
    request = pb.DeleteCredentialRequest(**({"name": "my-gateway"} | fields))
    return await service(server).DeleteCredential(request, metadata=caller or server.admin)


def room(server: Server, vault: Vault | None = None) -> CredentialRoom:
    """What the engine is handed: the server's rows, and its vault or another one."""
    own = Vault.open(server.folder / "master.key", create=False)
    return CredentialRoom(server.database, vault or own, server.clock)


async def changes(server: Server) -> list[tuple[str, str, Any, Any]]:
    rows = await server.database.fetch_all(
        "SELECT action, reason, before, after FROM audit_entry"
        " WHERE resource_type = 'credential' ORDER BY number"
    )
    return [
        (
            row["action"],
            row["reason"],
            json.loads(row["before"] or "null"),
            json.loads(row["after"] or "null"),
        )
        for row in rows
    ]


async def test_a_credential_is_saved_listed_opened_and_deleted(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    fields = {"gateway_url": "http://localhost:8088", "description": "the local one"}
    saved = await save(server, ann, **fields)
    assert (saved.message, saved.name) == ("Credential saved successfully", "my-gateway")
    (shown,) = (await listed(server, ann)).credentials
    assert shown == pb.Credential(name="my-gateway", username="admin", **fields)

    opened = await room(server).opened(server.database, ann_id, "my-gateway")
    assert opened == Credential("my-gateway", "admin", PASSWORD, **fields)

    deleted = await delete(server, ann)
    assert deleted.message == "Credential deleted successfully"
    assert await names(server, ann) == []
    with pytest.raises(NotFound):
        await room(server).opened(server.database, ann_id, "my-gateway")
    refused = await refusal(delete(server, ann))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    assert refused.reason == "CREDENTIAL_NOT_FOUND"
    assert refused.message == "Credential 'my-gateway' not found"


async def test_saving_a_name_again_replaces_the_whole_credential(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    await save(server, ann, gateway_url="http://one", description="one")
    server.clock.advance(1)
    await save(server, ann, name="other")
    server.clock.advance(1)
    await save(server, ann, username="root", password="another one")

    (_, replaced) = (await listed(server, ann)).credentials
    assert replaced == pb.Credential(name="my-gateway", username="root")
    opened = await room(server).opened(server.database, ann_id, "my-gateway")
    assert opened == Credential("my-gateway", "root", "another one")
    written = await changes(server)
    assert [change[0] for change in written] == [
        "credential.created",
        "credential.created",
        "credential.updated",
    ]
    before, after = written[-1][2:]
    assert (before["username"], before["gateway_url"], before["description"]) == (
        "admin",
        "http://one",
        "one",
    )
    assert after == {
        "owner_id": ann_id,
        "name": "my-gateway",
        "username": "root",
        "gateway_url": "",
        "description": "",
    }


async def test_of_savings_at_the_same_time_one_credential_comes(server: Server) -> None:
    await asyncio.gather(*(save(server, username=f"user-{number}") for number in range(8)))
    assert await names(server) == ["my-gateway"]
    actions = [change[0] for change in await changes(server)]
    assert actions == ["credential.created"] + ["credential.updated"] * 7


async def test_names_are_each_persons_own(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    ben_id, ben = await server.enter("ben", Role.USER)
    await save(server, ann, password="of ann")
    await save(server, ben, password="of ben")
    server.clock.advance(1)
    await save(server, ann, name="only-anns")

    assert await names(server, ann) == ["only-anns", "my-gateway"]
    assert await names(server, ben) == ["my-gateway"]
    assert await names(server) == []  # an administrator has names of their own too
    for owner_id, password in ((ann_id, "of ann"), (ben_id, "of ben")):
        opened = await room(server).opened(server.database, owner_id, "my-gateway")
        assert opened.password == password
    with pytest.raises(NotFound):
        await room(server).opened(server.database, ben_id, "only-anns")
    foreign = await refusal(delete(server, ben, name="only-anns"))
    unknown = await refusal(delete(server, ben, name="nobodys"))
    assert foreign.message.replace("only-anns", "nobodys") == unknown.message
    assert (foreign.code, foreign.reason) == (unknown.code, unknown.reason)
    await delete(server, ben)
    assert await names(server, ann) == ["only-anns", "my-gateway"]


async def test_an_administrator_sees_and_deletes_those_of_others_by_their_id(
    server: Server,
) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    _, ben = await server.enter("ben", Role.USER)
    await save(server, ann)
    for call in (listed(server, ben, user_id=ann_id), delete(server, ben, user_id=ann_id)):
        refused = await refusal(call)
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
        assert refused.reason == "ROLE_NOT_ALLOWED"

    assert await names(server, user_id=ann_id) == await names(server, ann, user_id=ann_id)
    await delete(server, user_id=ann_id)
    assert await names(server, ann) == []
    assert (await changes(server))[-1][0] == "credential.deleted"


async def test_pages_follow_one_another_newest_first(server: Server) -> None:
    for number in range(5):
        await save(server, name=f"gateway-{number}")
        server.clock.advance(number % 2)  # some at the same time
    seen: list[str] = []
    token = ""
    for _ in range(3):
        answer = await listed(server, page_size=2, page_token=token)
        seen += [each.name for each in answer.credentials]
        token = answer.next_page_token
    assert token == ""
    assert sorted(seen) == [f"gateway-{number}" for number in range(5)]
    assert seen[0] == "gateway-4"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, {"name": "is missing"}),
        ({"name": "my gateway"}, {"name": "1 to 100 characters"}),
        ({"name": "my.gateway"}, {"name": "1 to 100 characters"}),
        ({"name": "../gateway"}, {"name": "1 to 100 characters"}),
        ({"name": "gateway\n"}, {"name": "1 to 100 characters"}),
        ({"name": "gätewäy"}, {"name": "1 to 100 characters"}),
        ({"name": "g" * 101}, {"name": "1 to 100 characters"}),
        ({"username": ""}, {"username": "is missing"}),
        ({"username": "u" * 256}, {"username": "has 256 characters"}),
        ({"password": ""}, {"password": "is missing"}),
        ({"password": "p" * 1001}, {"password": "has 1001 characters"}),
        ({"password": f"{PASSWORD}\0"}, {"password": "control character U+0000"}),
        ({"gateway_url": "ftp://gateway"}, {"gateway_url": "must begin with http"}),
        ({"description": "d" * 501}, {"description": "has 501 characters"}),
        (
            {"name": "", "username": "", "password": "", "gateway_url": "x"},
            {
                "name": "is missing",
                "username": "is missing",
                "password": "is missing",
                "gateway_url": "must begin",
            },
        ),
    ],
)
async def test_what_is_wrong_is_told_at_once_and_without_the_password(
    server: Server, fields: dict[str, Any], wrong: dict[str, str]
) -> None:
    refused = await refusal(save(server, **fields))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == wrong.keys()
    assert all(words in refused.fields[name] for name, words in wrong.items())
    assert PASSWORD not in repr(refused)
    assert await names(server) == []


async def test_a_password_sealed_with_a_lost_master_key_is_said_to_be_lost(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    await save(server, ann)
    stranger = Vault.open(server.folder / "other.key", create=True)
    with pytest.raises(Unavailable) as caught:
        await room(server, stranger).opened(server.database, ann_id, "my-gateway")
    assert caught.value.reason == "CREDENTIAL_UNUSABLE"
    assert await names(server, ann) == ["my-gateway"]


async def test_a_password_moved_to_another_row_does_not_open(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    await save(server, ann)
    await save(server, ann, name="other", password="another one")
    await server.database.run(
        lambda transaction: transaction.execute(
            "UPDATE credential SET sealed_password ="
            " (SELECT sealed_password FROM credential WHERE name = ?) WHERE name = ?",
            "my-gateway",
            "other",
        )
    )
    with pytest.raises(Unavailable):
        await room(server).opened(server.database, ann_id, "other")


async def test_a_deleted_persons_credentials_end_with_them(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    _, ben = await server.enter("ben", Role.USER)
    await save(server, ann)
    await save(server, ann, name="other")
    await save(server, ben)

    await delete_person(server, ann_id)

    assert await names(server, user_id=ann_id) == []
    assert await names(server) == []  # nobody inherits a password
    assert await names(server, ben) == ["my-gateway"]
    written = (await changes(server))[-2:]
    assert [(action, reason) for action, reason, *_ in written] == [
        ("credential.deleted", "the owner was deleted")
    ] * 2
