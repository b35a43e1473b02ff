"""How a server's address becomes a gRPC channel."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

DEFAULT_SERVER = "127.0.0.1:50051"
MAX_MESSAGE_BYTES = 16 * 2**20

PING_MS = 30_000
PING_TIMEOUT_MS = 20_000
"""A server that does not answer a ping for so long is gone; a line that hangs says nothing."""

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # `min_reconnect_backoff_ms` is left alone: it bounds how long a connection may take to come
    # about, and a server that is far away or busy needs more than a moment.
    ("grpc.http2.max_pings_without_data", 0),  # a stream may be quiet for as long as it likes
    # Two channels to one address are two connections: none waits for the other's flow control.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and how it is spoken to."""

    target: str
    secure: bool
    ca_file: str = ""

    @classmethod
    def parse(cls, text: str, *, ca_file: str = "") -> Address:
        """`host:port` is plain text; `https://host:port` is TLS, by a file's roots or the system's.

        Raises:
            ValueError: neither.
        """
        scheme, mark, rest = text.partition("://")
        target = rest if mark else text
        secure = scheme in ("https", "grpcs") if mark else bool(ca_file)
        if mark and scheme not in ("https", "grpcs", "http", "grpc"):
            raise ValueError(
                f"{text!r} is no server's address; write host:port or https://host:port"
            )
        if "/" in target.rstrip("/") or not target:
            raise ValueError(
                f"{text!r} is no server's address; write host:port or https://host:port"
            )
        return cls(target.rstrip("/"), secure, ca_file)

    def _credentials(self) -> grpc.ChannelCredentials:
        roots = Path(self.ca_file).read_bytes() if self.ca_file else None
        return grpc.ssl_channel_credentials(root_certificates=roots)

    def open(self) -> grpc.Channel:
        if self.secure:
            return grpc.secure_channel(self.target, self._credentials(), options=_options())
        return grpc.insecure_channel(self.target, options=_options())

    def open_async(self) -> grpc.aio.Channel:
        if self.secure:
            return grpc.aio.secure_channel(self.target, self._credentials(), options=_options())
        return grpc.aio.insecure_channel(self.target, options=_options())


def _options() -> tuple[tuple[str, Any], ...]:
    return (
        *_OPTIONS,
        ("grpc.keepalive_time_ms", PING_MS),
        # `keepalive_timeout_ms` alone leaves a connection open for a minute more.
        ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    )


def server_address(given: str | None) -> Address:
    """The address given, else `STEWARD_SERVER`, else the one a fresh server listens on."""
    text = given or os.environ.get("STEWARD_SERVER") or DEFAULT_SERVER
    return Address.parse(text, ca_file=os.environ.get("STEWARD_CA_FILE", ""))
