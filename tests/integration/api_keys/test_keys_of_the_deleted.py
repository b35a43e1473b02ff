"""A deleted person's API keys end with them, and nobody inherits one."""

from __future__ import annotations

import asyncio
from typing import Any

from steward.api_keys.v1 import api_keys_pb2 as pb
from steward.audit.v1 import audit_pb2
from steward.audit.v1.audit_pb2_grpc import AuditServiceStub
from steward_server.auth.accounts import Role
from tests.integration.auth.people import delete, knock
from tests.integration.conftest import Server, api_key, refusal


async def test_they_are_revoked_with_their_permissions_and_streams(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    limit = pb.EnvironmentPermission(environment_id="env-1", permission=pb.PERMISSION_WRITE)
    keys = [await server.create_key(ann), await server.create_key(ann, permissions=[limit])]
    gone_before = await server.create_key(ann)
    await server.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=gone_before.id), metadata=ann)
    short_lived = await server.create_key(ann, expires_in=1)
    bystander = await server.create_key()
    for each in (*keys, bystander):
        await knock(server, api_key(each.key))  # verified, and remembered
    streams = [await server.listen(api_key(each.key)) for each in keys]
    server.clock.advance(2 * 86_400)
    admin = (("authorization", f"Bearer {(await server.sign_in('admin')).access_token}"),)

    await delete(server, ann_id, admin)

    for each in (*keys, short_lived):
        refused = await refusal(knock(server, api_key(each.key)))
        assert refused.reason == "API_KEY_REVOKED"
    for stream in streams:
        assert (await refusal(asyncio.wait_for(stream, 30))).reason == "CREDENTIAL_ENDED"
    await knock(server, api_key(bystander.key))

    request = pb.ListApiKeysRequest()
    listed = (await server.api_keys.ListApiKeys(request, metadata=admin)).api_keys
    assert [each.id for each in listed] == [bystander.id]
    by_id = pb.RevokeApiKeyRequest(key_id=keys[0].id)
    refused = await refusal(server.api_keys.RevokeApiKey(by_id, metadata=admin))
    assert refused.reason == "API_KEY_NOT_FOUND"

    audit: Any = AuditServiceStub(server.channel)
    wanted = audit_pb2.ListAuditEntriesRequest(action="api_key.revoked")
    entries = (await audit.ListAuditEntries(wanted, metadata=admin)).entries[:3]
    assert {each.resource_id for each in entries} == {each.id for each in (*keys, short_lived)}
    assert {each.reason for each in entries} == {"the owner was deleted"}
    assert {each.method for each in entries} == {"/steward.users.v1.UserService/DeleteUser"}
    (limited,) = (each for each in entries if each.resource_id == keys[1].id)
    assert dict(limited.before["permissions"]) == {"env-1": "write"}
