"""Auth: who people are, how they sign in, and how that ends. Start reading at accounts.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from steward.auth.v1.auth_pb2_grpc import add_AuthServiceServicer_to_server
from steward.users.v1.users_pb2_grpc import add_UserServiceServicer_to_server
from steward_server.auth.config import AuthConfig
from steward_server.auth.keys import load_signer
from steward_server.auth.own_password import OwnPassword
from steward_server.auth.passwords import Passwords
from steward_server.auth.service import AuthService
from steward_server.auth.sessions import Sessions
from steward_server.auth.sign_in import SignIn
from steward_server.auth.users import Users
from steward_server.auth.users_service import UserService
from steward_server.belongings import Belongings
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
    name_key: bytes,
    belongings: Sequence[Belongings] = (),
    on_rights_changed: Sequence[Callable[[str], None]] = (),
    clock: Callable[[], int] = now_us,
) -> None:
    """Serve AuthService and UserService.

    Args:
        methods: where to register them.
        database: where people are kept.
        sessions: of this server.
        passwords: hashes them.
        config: the room's settings.
        name_key: what names that nobody has are hashed with.
        belongings: rooms that keep things of people, asked in this order when one is deleted.
        on_rights_changed: told a person's id when what they may do has changed, before the answer:
            to forget what was found out about their credentials, and to end open streams.
        clock: microseconds since 1970.
    """
    policy = config.lock_policy()
    sign_in = SignIn(database, passwords, sessions, policy, name_key, clock)
    users = Users(database, passwords, sessions, belongings, on_rights_changed, clock)
    own_password = OwnPassword(database, passwords, sessions, policy, clock)
    add_AuthServiceServicer_to_server(
        AuthService(sign_in, sessions, users, own_password, clock), methods
    )
    add_UserServiceServicer_to_server(UserService(users), methods)
