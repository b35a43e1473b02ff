"""ApiKeyService: translates between protos and the room."""

from __future__ import annotations

from collections.abc import Sequence

from steward.api_keys.v1 import api_keys_pb2 as pb
from steward.api_keys.v1 import api_keys_pb2_grpc as rpc
from steward_server.api_keys.key import Key, KeyKind, KeyRole, KeyText
from steward_server.api_keys.room import ApiKeys, Wish
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.permissions import Permission, Permissions

DAY_US = 86_400 * 1_000_000
MAX_DAYS = 3_650
MAX_DESCRIPTION = 200
MAX_PERMISSIONS = 100

KINDS = {KeyKind.AGENTBOX: pb.KEY_KIND_AGENTBOX, KeyKind.ITK: pb.KEY_KIND_ITK}
ROLES = {
    KeyRole.ADMIN: pb.KEY_ROLE_ADMIN,
    KeyRole.USER: pb.KEY_ROLE_USER,
    KeyRole.READONLY: pb.KEY_ROLE_READONLY,
    KeyRole.EXECUTOR: pb.KEY_ROLE_EXECUTOR,
}
PERMISSIONS = {
    Permission.READ: pb.PERMISSION_READ,
    Permission.WRITE: pb.PERMISSION_WRITE,
    Permission.ADMIN: pb.PERMISSION_ADMIN,
}
FROM_KIND = {number: kind for kind, number in KINDS.items()}
FROM_ROLE = {number: role for role, number in ROLES.items()}
FROM_PERMISSION = {number: permission for permission, number in PERMISSIONS.items()}


class ApiKeyService(rpc.ApiKeyServiceServicer):
    """Serves people their keys."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: Context
    ) -> pb.ListApiKeysResponse:
        with Checks() as checks:
            checks.text("user_id", request.user_id, 0, 100)
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        keys = await self._keys.page(
            caller(context), user_id=request.user_id, before=before, limit=size + 1
        )
        response = pb.ListApiKeysResponse(api_keys=[_to_proto(key) for key in keys[:size]])
        if len(keys) > size:
            last = keys[size - 1]
            response.next_page_token = to_page_token(last.created_at_us, last.key_id)
        return response

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: Context
    ) -> pb.CreateApiKeyResponse:
        days = request.expires_in if request.HasField("expires_in") else None
        with Checks() as checks:
            checks.text("description", request.description, 0, MAX_DESCRIPTION)
            if days is not None:
                checks.between("expires_in", days, 1, MAX_DAYS)
            if request.kind and request.kind not in FROM_KIND:
                checks.add("kind", f"is {request.kind}; it is agentbox or itk")
            if request.role and request.role not in FROM_ROLE:
                checks.add("role", f"is {request.role}; it is admin, user, readonly or executor")
            permissions = _permissions(checks, request.permissions)
        wish = Wish(
            description=request.description,
            kind=FROM_KIND.get(request.kind, KeyKind.AGENTBOX),
            role=FROM_ROLE.get(request.role),
            permissions=permissions,
            expires_in_us=None if days is None else days * DAY_US,
        )
        key, text = await self._keys.create(caller(context), wish)
        return pb.CreateApiKeyResponse(api_key=_to_proto(key, text))

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: Context
    ) -> pb.RevokeApiKeyResponse:
        with Checks() as checks:
            checks.text("key_id", request.key_id, 1, 100)
        await self._keys.revoke(caller(context), request.key_id)
        return pb.RevokeApiKeyResponse()


def _permissions(checks: Checks, given: Sequence[pb.EnvironmentPermission]) -> Permissions:
    """The permissions asked for; what is wrong with them is noted."""
    if len(given) > MAX_PERMISSIONS:
        checks.add("permissions", f"has {len(given)} items; at most {MAX_PERMISSIONS} are allowed")
        return {}
    permissions: dict[str, Permission] = {}
    for index, each in enumerate(given):
        name = f"permissions[{index}]"
        checks.text(f"{name}.environment_id", each.environment_id, 1, 100)
        if each.environment_id in permissions:
            checks.add(f"{name}.environment_id", f"names {each.environment_id!r} a second time")
        permission = FROM_PERMISSION.get(each.permission)
        if permission is None:
            checks.add(f"{name}.permission", "must be read, write or admin")
        else:
            permissions[each.environment_id] = permission
    return permissions


def _to_proto(key: Key, text: KeyText | None = None) -> pb.ApiKey:
    return pb.ApiKey(
        id=key.key_id,
        key=text.text if text else "",
        description=key.description,
        created_at=timestamp(key.created_at_us),
        expires_at=timestamp(key.expires_at_us),
        last_used_at=timestamp(key.last_used_at_us),
        permissions=[
            pb.EnvironmentPermission(
                environment_id=environment_id, permission=PERMISSIONS[permission]
            )
            for environment_id, permission in key.permissions.items()
        ],
        kind=KINDS[key.kind],
        role=ROLES[key.role],
        prefix=key.prefix,
        user_id=key.user_id,
    )
