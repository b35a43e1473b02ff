"""ProviderService: translates between protos and the room."""

from __future__ import annotations

from steward.providers.v1 import providers_pb2 as pb
from steward.providers.v1 import providers_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.providers.provider import (
    BASE_URLS,
    KEY,
    NAME,
    BadAddress,
    ProviderKind,
    checked_base_url,
)
from steward_server.providers.room import Providers, Shown
from steward_server.versions import expected_version

KINDS = {
    ProviderKind.OPENAI: pb.PROVIDER_KIND_OPENAI,
    ProviderKind.ANTHROPIC: pb.PROVIDER_KIND_ANTHROPIC,
}
FROM_PROTO = {number: kind for kind, number in KINDS.items()}
KNOWN = "openai or anthropic"


class ProviderService(rpc.ProviderServiceServicer):
    """Serves providers to administrators."""

    def __init__(self, providers: Providers, *, allow_http: bool) -> None:
        self._providers = providers
        self._allow_http = allow_http

    async def CreateProvider(
        self, request: pb.CreateProviderRequest, context: Context
    ) -> pb.CreateProviderResponse:
        with Checks() as checks:
            if not NAME.fullmatch(request.name):
                checks.add("name", 'must be 1 to 50 characters of a-z, 0-9, "-" and "_"')
            if not KEY.fullmatch(request.api_key):
                checks.add("api_key", "must be 1 to 500 visible ASCII characters, without spaces")
            kind = _kind(checks, request)
            base_url = self._base_url(checks, request.base_url, kind)
        shown = await self._providers.create(
            caller(context),
            name=request.name,
            kind=kind,
            base_url=base_url,
            api_key=request.api_key,
            allow_plaintext_key=request.allow_plaintext_key,
        )
        return pb.CreateProviderResponse(provider=_to_proto(shown))

    async def ListProviders(
        self, request: pb.ListProvidersRequest, _context: Context
    ) -> pb.ListProvidersResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        shown = await self._providers.page(before=before, limit=size + 1)
        response = pb.ListProvidersResponse(providers=[_to_proto(each) for each in shown[:size]])
        if len(shown) > size:
            last = shown[size - 1].provider
            response.next_page_token = to_page_token(last.created_at_us, last.provider_id)
        return response

    async def GetProvider(
        self, request: pb.GetProviderRequest, _context: Context
    ) -> pb.GetProviderResponse:
        _check_id(request.provider_id)
        shown = await self._providers.get(request.provider_id)
        return pb.GetProviderResponse(provider=_to_proto(shown))

    async def UpdateProvider(
        self, request: pb.UpdateProviderRequest, context: Context
    ) -> pb.UpdateProviderResponse:
        _check_id(request.provider_id)
        if not request.HasField("allow_plaintext_key"):
            raise InvalidArgument(
                "nothing to change; give `allow_plaintext_key`", reason="NO_FIELDS_PROVIDED"
            )
        shown = await self._providers.allow_plaintext(
            caller(context),
            request.provider_id,
            allow=request.allow_plaintext_key,
            expected_version=expected_version(request),
        )
        return pb.UpdateProviderResponse(provider=_to_proto(shown))

    async def DeleteProvider(
        self, request: pb.DeleteProviderRequest, context: Context
    ) -> pb.DeleteProviderResponse:
        _check_id(request.provider_id)
        await self._providers.delete(
            caller(context), request.provider_id, expected_version=expected_version(request)
        )
        return pb.DeleteProviderResponse()

    def _base_url(self, checks: Checks, given: str, kind: ProviderKind) -> str:
        if not given:
            return BASE_URLS[kind]
        try:
            return checked_base_url(given, allow_http=self._allow_http)
        except BadAddress as error:
            checks.add("base_url", str(error))
            return ""


def _check_id(provider_id: str) -> None:
    with Checks() as checks:
        checks.text("provider_id", provider_id, 1, 100)


def _kind(checks: Checks, request: pb.CreateProviderRequest) -> ProviderKind:
    if request.kind:
        if request.kind not in FROM_PROTO:
            checks.add("kind", f"is {request.kind}; it must be {KNOWN}")
        return FROM_PROTO.get(request.kind, ProviderKind.OPENAI)
    try:
        return ProviderKind(request.name)
    except ValueError:
        checks.add("kind", f"is missing, and the name does not tell it; it must be {KNOWN}")
        return ProviderKind.OPENAI


def _to_proto(shown: Shown) -> pb.Provider:
    provider = shown.provider
    return pb.Provider(
        id=provider.provider_id,
        name=provider.name,
        kind=KINDS[provider.kind],
        base_url=provider.base_url,
        masked_key=provider.masked_key,
        created_at=timestamp(provider.created_at_us),
        last_used_at=timestamp(provider.last_used_at_us),
        usable=shown.is_usable,
        allow_plaintext_key=provider.allow_plaintext_key,
        version=provider.version,
    )
