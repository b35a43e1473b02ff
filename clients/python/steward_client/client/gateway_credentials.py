"""Credentials of gateways, like the nouns of resources.py; not what the client itself shows."""

from __future__ import annotations

from typing import Any

from steward.credentials.v1 import credentials_pb2
from steward.credentials.v1.credentials_pb2_grpc import CredentialServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, nothing, rpc
from steward_client.client.values import Credential, value_of

PAGE_SIZE = 500


class GatewayCredentials(Resource[Manner]):
    """What playbooks sign in to gateways with. Passwords go in and never come back."""

    @rpc
    def save(
        self,
        name: str,
        *,
        username: str,
        password: str,
        gateway_url: str = "",
        description: str = "",
    ) -> Call[None]:
        """Save a credential of the caller's, in place of the one that has its name."""
        return Call(
            CredentialServiceStub,
            "CreateCredential",
            credentials_pb2.CreateCredentialRequest(
                name=name,
                username=username,
                password=password,
                gateway_url=gateway_url,
                description=description,
            ),
            read=nothing,
            repeatable=True,
        )

    @rpc
    def list(self, *, user_id: str = "") -> Call[tuple[Credential, ...]]:
        """The caller's credentials, newest first, or for an administrator those of `user_id`.

        Raises:
            Forbidden: `user_id` is somebody else, and the caller is no administrator.
        """

        def page(token: str) -> credentials_pb2.ListCredentialsRequest:
            return credentials_pb2.ListCredentialsRequest(
                page_size=PAGE_SIZE, page_token=token, user_id=user_id
            )

        def next_page(answer: credentials_pb2.ListCredentialsResponse) -> Any:
            return page(answer.next_page_token) if answer.next_page_token else None

        return Call(
            CredentialServiceStub,
            "ListCredentials",
            page(""),
            read=every(lambda answer: [value_of(Credential, each) for each in answer.credentials]),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def delete(self, name: str, *, user_id: str = "") -> Call[None]:
        """Delete a credential of the caller's, or for an administrator of `user_id`.

        Raises:
            NotFound: there is none of this name.
            Forbidden: `user_id` is somebody else, and the caller is no administrator.
        """
        return Call(
            CredentialServiceStub,
            "DeleteCredential",
            credentials_pb2.DeleteCredentialRequest(name=name, user_id=user_id),
            read=nothing,
        )
