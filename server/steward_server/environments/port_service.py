"""PortService: translates between protos and the tunnels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from steward.environments.v1 import environments_pb2
from steward.environments.v1 import ports_pb2 as pb
from steward.environments.v1 import ports_pb2_grpc as rpc
from steward_server.calls import Context, call_of, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.environments.ability import refusal
from steward_server.environments.driver import port_closed
from steward_server.environments.previews import DEFAULT_TTL_S, MAX_TTL_S, Previews, previewed
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.sending import first_of
from steward_server.environments.tunnels import Tunnels, relayed
from steward_server.errors import InvalidArgument
from steward_server.permissions import Permission
from steward_server.principals import Principal

MAX_DATA_BYTES = 1024 * 1024
"""Of one message: what waits here for a slow reader is about as much."""
HIGHEST_PORT = 65_535

EOF = environments_pb2.Eof()


class PortService(rpc.PortServiceServicer):
    """Serves connections to and from environments."""

    def __init__(self, room: EnvironmentRoom, tunnels: Tunnels, previews: Previews) -> None:
        self._previews = previews
        self._room = room
        self._tunnels = tunnels

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncIterator[pb.ConnectResponse]:
        start = (await first_of(request_iterator, "start")).start
        environment_id, port = previewed(call_of(context).bound_to) or (
            start.environment_id,
            start.port,
        )
        _check(environment_id, port, lowest=1)
        who = caller(context)
        async with self._tunnels.connected(who, environment_id, port) as connection:
            await context.send_initial_metadata((("x-port", str(port)),))
            pieces = relayed(connection, _data(request_iterator))
            async with self._guarded(pieces, who, environment_id) as guarded:
                async for piece in guarded:
                    yield pb.ConnectResponse(data=piece) if piece else pb.ConnectResponse(eof=EOF)

    async def CreatePreview(
        self, request: pb.CreatePreviewRequest, context: Context
    ) -> pb.CreatePreviewResponse:
        ttl_s = request.ttl_seconds if request.HasField("ttl_seconds") else DEFAULT_TTL_S
        environment_id, port = request.environment_id, request.port
        with Checks() as checks:
            checks.text("environment_id", environment_id, 1, 100)
            checks.between("port", port, 1, HIGHEST_PORT)
            checks.between("ttl_seconds", ttl_s, 1, MAX_TTL_S)
        who = caller(context)
        environment = await self._room.running(who, environment_id)
        allowed = environment.spec.network.allowed_ingress_ports
        if port not in allowed:
            raise refusal(port_closed(environment_id, port, allowed), environment_id)
        token, expires_at_us = self._previews.give(
            who.subject, call_of(context).metadata, environment_id, port, ttl_s
        )
        return pb.CreatePreviewResponse(
            token=token, path=f"/preview/{token}/", expires_at=timestamp(expires_at_us)
        )

    async def Listen(
        self, request: pb.ListenRequest, context: Context
    ) -> AsyncIterator[pb.ListenResponse]:
        _check(request.environment_id, request.port, lowest=0)
        who = caller(context)
        told = self._tunnels.listen(who, request.environment_id, request.port)
        async with self._guarded(told, who, request.environment_id) as guarded:
            async for item in guarded:
                if isinstance(item, int):
                    yield pb.ListenResponse(listening=pb.Listening(port=item))
                else:
                    yield pb.ListenResponse(incoming=pb.Incoming(connection_id=item))

    async def Accept(
        self, request_iterator: AsyncIterator[pb.AcceptRequest], context: Context
    ) -> AsyncIterator[pb.AcceptResponse]:
        start = (await first_of(request_iterator, "start")).start
        with Checks() as checks:
            checks.text("connection_id", start.connection_id, 1, 100)
        who = caller(context)
        async with self._tunnels.accepted(who, start.connection_id) as (connection, listening):
            await context.send_initial_metadata(())
            pieces = relayed(connection, _data(request_iterator), listening.over)
            async with self._guarded(pieces, who, listening.environment_id) as guarded:
                async for piece in guarded:
                    yield pb.AcceptResponse(data=piece) if piece else pb.AcceptResponse(eof=EOF)

    def _guarded(
        self, items: Any, who: Principal, environment_id: str
    ) -> AbstractAsyncContextManager[AsyncIterator[Any]]:
        """Pass a stream on until the caller may no longer write to the environment."""
        return aclosing(self._room.guarded(items, who, environment_id, Permission.WRITE))


def _check(environment_id: str, port: int, *, lowest: int) -> None:
    with Checks() as checks:
        checks.text("environment_id", environment_id, 1, 100)
        checks.between("port", port, lowest, HIGHEST_PORT)


async def _data(requests: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    """What a caller sends after the first message, until it says that this is all."""
    async for request in requests:
        match request.WhichOneof("frame"):
            case "data":
                if len(request.data) > MAX_DATA_BYTES:
                    raise InvalidArgument.of(
                        {"data": f"has {len(request.data)} bytes; at most {MAX_DATA_BYTES} fit"}
                    )
                if request.data:
                    yield request.data
            case "eof":
                return
            case _:
                raise InvalidArgument.of({"start": "was given already, or nothing was"})
