"""Providers: whose models agents use, and the keys to them. Start reading at provider.py."""

from __future__ import annotations

from typing import Any

from steward.providers.v1.providers_pb2_grpc import add_ProviderServiceServicer_to_server
from steward_server.providers.room import Providers
from steward_server.providers.service import ProviderService


def register(methods: Any, *, providers: Providers, development: bool) -> None:
    """Serve ProviderService. Beside it, run `providers.last_use.keep_writing(…)`.

    In `development` a provider may be reached over plain http beyond this machine.
    """
    service = ProviderService(providers, allow_http=development)
    add_ProviderServiceServicer_to_server(service, methods)
