"""Credentials: what people's playbooks sign in to gateways with. Start reading at credential.py."""

from __future__ import annotations

from typing import Any

from steward.credentials.v1.credentials_pb2_grpc import add_CredentialServiceServicer_to_server
from steward_server.credentials.room import CredentialRoom
from steward_server.credentials.service import CredentialService


def register(methods: Any, *, credentials: CredentialRoom) -> None:
    """Serve CredentialService."""
    add_CredentialServiceServicer_to_server(CredentialService(credentials), methods)
