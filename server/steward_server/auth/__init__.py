"""Auth: who people are, how they sign in, and how that ends. Start reading at sessions.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward.auth.v1.auth_pb2_grpc import add_AuthServiceServicer_to_server
from steward_server.auth.config import AuthConfig
from steward_server.auth.keys import load_signer
from steward_server.auth.passwords import Passwords
from steward_server.auth.service import AuthService
from steward_server.auth.sessions import Sessions
from steward_server.auth.sign_in import SignIn
from steward_server.db import Database, now_us
from steward_server.interceptors.authentication import LiveStreams
from steward_server.vault import Vault


async def open_sessions(
    database: Database,
    vault: Vault,
    streams: LiveStreams,
    config: AuthConfig,
    clock: Callable[[], int] = now_us,
) -> Sessions:
    """The sessions of this server; makes the signing key on the first start."""
    signer = await load_signer(database, vault, clock())
    return Sessions(database, signer, vault, streams, config.lifetimes(), clock)


def register(
    methods: Any,
    database: Database,
    *,
    sessions: Sessions,
    passwords: Passwords,
    config: AuthConfig,
    clock: Callable[[], int] = now_us,
) -> None:
    """Serve AuthService."""
    sign_in = SignIn(database, passwords, sessions, config.lock_policy(), clock)
    add_AuthServiceServicer_to_server(AuthService(sign_in, sessions, clock), methods)
