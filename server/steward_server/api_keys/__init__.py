"""API keys: the credentials of people's programs. Start reading at key.py."""

from __future__ import annotations

from typing import Any

from steward.api_keys.v1.api_keys_pb2_grpc import add_ApiKeyServiceServicer_to_server
from steward_server.api_keys.room import ApiKeys
from steward_server.api_keys.service import ApiKeyService


def register(methods: Any, *, keys: ApiKeys) -> None:
    """Serve ApiKeyService. Beside it, run `keys.last_use.keep_writing(…)`; `write` at the end."""
    add_ApiKeyServiceServicer_to_server(ApiKeyService(keys), methods)
