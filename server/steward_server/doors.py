"""The two ports: gRPC, and the gateway in this process; opened together, closed in good order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from steward_gateway.app import Observe, RunningGateway, build_app, serve_gateway
from steward_gateway.config import GatewayConfig
from steward_gateway.cors import parse_origins
from steward_server.config import BadSetting, ServerConfig
from steward_server.dispatch import Dispatcher
from steward_server.in_process import InProcess
from steward_server.interceptors.authentication import LiveStreams
from steward_server.reflection import serve_reflection
from steward_server.tls import grpc_credentials, http_context

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A burst of more streams than the default, 1,000, is refused before it can be accepted.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    # Clients ping quiet streams; the default allows that once in five minutes only.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two servers on one port would share it without a word.
    ("grpc.so_reuseport", 0),
]


@dataclass(frozen=True, slots=True)
class Ports:
    """What is listened on; never 0."""

    http: int
    grpc: int


@asynccontextmanager
async def open_doors(
    config: ServerConfig,
    methods: Dispatcher,
    streams: LiveStreams,
    *,
    heartbeat_s: float,
    observe: Observe,
) -> AsyncIterator[Ports]:
    """Serve the methods on both ports.

    At the end of the block streams are told to connect again, and calls under way may end.

    Raises:
        BadSetting: the TLS files cannot be used, or an origin is none.
        OSError: a port cannot be listened on.
    """
    try:
        origins = parse_origins(config.cors_origins)
    except ValueError as error:
        raise BadSetting(f"STEWARD_CORS_ORIGINS: {error}") from None
    # Before gRPC sees the files: of what is wrong with them it says nothing.
    ssl_context = http_context(config)
    server, health_servicer, grpc_port = await _start_grpc(config, methods)
    try:
        gateway_config = GatewayConfig(
            drain_grace_s=config.drain_s,
            heartbeat_s=heartbeat_s,
            proxies=methods.proxies,
            cors_origins=origins,
            max_connections=config.max_connections,
            max_connections_per_address=config.max_connections_per_address,
            head_timeout_s=config.head_timeout_s,
        )
        app = build_app(InProcess(methods), config=gateway_config, observe=observe)
        try:
            gateway = await serve_gateway(
                app, host=config.host, port=config.http_port, ssl_context=ssl_context
            )
        except OSError as error:
            raise _not_ours(config.host, config.http_port, "STEWARD_HTTP_PORT") from error
    except BaseException:
        await server.stop(None)
        raise
    try:
        yield Ports(gateway.port, grpc_port)
    finally:
        await health_servicer.enter_graceful_shutdown()
        await _drain(server, gateway, streams, config.drain_s)


async def _start_grpc(
    config: ServerConfig, methods: Dispatcher
) -> tuple[grpc.aio.Server, health.aio.HealthServicer, int]:
    server = grpc.aio.server(options=GRPC_OPTIONS)
    methods.bind(server)
    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for name in ("", *methods.services):
        await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    names = [*methods.services, health.SERVICE_NAME]
    if config.profile == "development":
        channelz.add_channelz_servicer(server)
        names.append(channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name)
    serve_reflection(names, server)
    address = f"{bracketed(config.host)}:{config.grpc_port}"
    credentials = grpc_credentials(config)
    try:
        port = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise _not_ours(config.host, config.grpc_port, "STEWARD_GRPC_PORT") from error
    await server.start()
    return server, health_servicer, port


async def _drain(
    server: grpc.aio.Server, gateway: RunningGateway, streams: LiveStreams, drain_s: float
) -> None:
    # First, so that sockets close with a code of their own for it.
    await gateway.gateway.end_streams()
    streams.end_all()
    await asyncio.gather(gateway.stop(), server.stop(drain_s))


def bracketed(host: str) -> str:
    """The host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def _not_ours(host: str, port: int, variable: str) -> OSError:
    return OSError(
        f"cannot listen on {bracketed(host)}:{port}: it is taken, or not ours to use; "
        f"see STEWARD_HOST and {variable}"
    )
