"""CredentialService: translates between protos and the room."""

from __future__ import annotations

from steward.credentials.v1 import credentials_pb2 as pb
from steward.credentials.v1 import credentials_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.credential import Credential
from steward_server.credentials.credential import (
    MAX_DESCRIPTION,
    MAX_PASSWORD,
    MAX_USERNAME,
    NAME,
    StoredCredential,
    wrong_with_url,
)
from steward_server.credentials.room import CredentialRoom
from steward_server.pages import from_page_token, page_size, to_page_token


class CredentialService(rpc.CredentialServiceServicer):
    """Serves people their credentials."""

    def __init__(self, credentials: CredentialRoom) -> None:
        self._credentials = credentials

    async def ListCredentials(
        self, request: pb.ListCredentialsRequest, context: Context
    ) -> pb.ListCredentialsResponse:
        with Checks() as checks:
            checks.text("user_id", request.user_id, 0, 100)
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        found = await self._credentials.page(
            caller(context), user_id=request.user_id, before=before, limit=size + 1
        )
        response = pb.ListCredentialsResponse(
            credentials=[_to_proto(each) for each in found[:size]]
        )
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = to_page_token(last.created_at_us, last.credential_id)
        return response

    async def CreateCredential(
        self, request: pb.CreateCredentialRequest, context: Context
    ) -> pb.CreateCredentialResponse:
        with Checks() as checks:
            if not request.name:
                checks.add("name", "is missing")
            elif not NAME.fullmatch(request.name):
                checks.add("name", 'must be 1 to 100 characters of a-z, A-Z, 0-9, "-" and "_"')
            checks.text("username", request.username, 1, MAX_USERNAME)
            checks.text("password", request.password, 1, MAX_PASSWORD)
            if request.gateway_url and (wrong := wrong_with_url(request.gateway_url)):
                checks.add("gateway_url", wrong)
            description = checks.prose("description", request.description, 0, MAX_DESCRIPTION)
        credential = Credential(
            request.name, request.username, request.password, request.gateway_url, description
        )
        await self._credentials.save(caller(context), credential)
        return pb.CreateCredentialResponse(
            message="Credential saved successfully", name=request.name
        )

    async def DeleteCredential(
        self, request: pb.DeleteCredentialRequest, context: Context
    ) -> pb.DeleteCredentialResponse:
        with Checks() as checks:
            checks.text("name", request.name, 1, 100)
            checks.text("user_id", request.user_id, 0, 100)
        await self._credentials.delete(caller(context), request.name, user_id=request.user_id)
        return pb.DeleteCredentialResponse(message="Credential deleted successfully")


def _to_proto(credential: StoredCredential) -> pb.Credential:
    return pb.Credential(
        name=credential.name,
        username=credential.username,
        gateway_url=credential.gateway_url,
        description=credential.description,
    )
