"""API keys as they are asked for, like the nouns of resources.py."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from steward.api_keys.v1 import api_keys_pb2
from steward.api_keys.v1.api_keys_pb2_grpc import ApiKeyServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.values import ApiKey, KeyKind, KeyRole, PermissionWord, value_of

PAGE_SIZE = 500


class ApiKeys(Resource[Manner]):
    """The keys of people's programs; shown as the `token` of another client, or as `x-api-key`."""

    @rpc
    def create(
        self,
        *,
        description: str = "",
        expires_in_days: int | None = None,
        role: KeyRole | None = None,
        permissions: Mapping[str, PermissionWord] | None = None,
        kind: KeyKind = "agentbox",
        request_id: str = "",
    ) -> Call[ApiKey]:
        """Create a key that acts as the caller. Its text is in the answer's `key`, nowhere else.

        None for `expires_in_days` means that it does not expire. `role` is the most it may do;
        None: user, or readonly if the caller may only look. `permissions` limit it to these
        environments, by id; none: whichever the caller may use.

        Raises:
            Forbidden: `role` is above the caller's own, or the caller is a key itself.
            Conflict: the caller has as many keys as a person may.
        """
        return Call(
            ApiKeyServiceStub,
            "CreateApiKey",
            api_keys_pb2.CreateApiKeyRequest(
                description=description,
                expires_in=expires_in_days,
                role=api_keys_pb2.KeyRole.Value(f"KEY_ROLE_{role.upper()}")
                if role
                else api_keys_pb2.KEY_ROLE_UNSPECIFIED,
                permissions=[
                    api_keys_pb2.EnvironmentPermission(
                        environment_id=environment_id,
                        permission=api_keys_pb2.Permission.Value(f"PERMISSION_{word.upper()}"),
                    )
                    for environment_id, word in (permissions or {}).items()
                ],
                kind=api_keys_pb2.KeyKind.Value(f"KEY_KIND_{kind.upper()}"),
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: value_of(ApiKey, answer.api_key)),
            repeatable=True,
        )

    @rpc
    def list(self, *, user_id: str = "") -> Call[tuple[ApiKey, ...]]:
        """The caller's keys that are not revoked, newest first; an administrator sees everybody's.

        Raises:
            Forbidden: `user_id` is somebody else, and the caller is no administrator.
        """

        def page(token: str) -> api_keys_pb2.ListApiKeysRequest:
            return api_keys_pb2.ListApiKeysRequest(
                page_size=PAGE_SIZE, page_token=token, user_id=user_id
            )

        def next_page(answer: api_keys_pb2.ListApiKeysResponse) -> Any:
            return page(answer.next_page_token) if answer.next_page_token else None

        return Call(
            ApiKeyServiceStub,
            "ListApiKeys",
            page(""),
            read=every(lambda answer: [value_of(ApiKey, each) for each in answer.api_keys]),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def revoke(self, key_id: str) -> Call[None]:
        """End a key for good, on open streams too.

        Raises:
            NotFound: there is none with this id, or it is revoked already.
        """
        return Call(
            ApiKeyServiceStub,
            "RevokeApiKey",
            api_keys_pb2.RevokeApiKeyRequest(key_id=key_id),
            read=nothing,
        )
