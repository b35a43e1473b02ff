"""Tokens: the credentials of agents' runtimes. Start reading at token.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from steward.tokens.v1.tokens_pb2_grpc import add_TokenServiceServicer_to_server
from steward_server.db import now_us
from steward_server.tokens.room import Tokens
from steward_server.tokens.service import TokenService


def register(methods: Any, *, tokens: Tokens, clock: Callable[[], int] = now_us) -> None:
    """Serve TokenService. Beside it, run `tokens.last_use.keep_writing(…)`; `write` at the end."""
    add_TokenServiceServicer_to_server(TokenService(tokens, clock), methods)
