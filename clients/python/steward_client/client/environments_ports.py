"""Ports of environments: connections into them and out of them, one by one or all that come."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, overload

from google.protobuf.message import Message

from steward.environments.v1 import environments_pb2
from steward.environments.v1 import ports_pb2 as pb
from steward.environments.v1.ports_pb2_grpc import PortServiceStub
from steward_client.client.calls import Awaiting, Blocking, Call, Manner, first, nothing, rpc
from steward_client.client.conversation import Conversation, Read, Say, Wait
from steward_client.client.environments_streams import LASTING_S, PIECE_BYTES, RECONNECT_S
from steward_client.client.environments_values import Preview
from steward_client.client.holding import CUTS, Holder, Holding, Open, held, no_matter
from steward_client.client.tunnels import AsyncTunnel, Expose, Forward, Tunnel
from steward_client.client.values import value_of
from steward_client.errors import Conflict, StewardError


class PortConnection(Open[Manner, bytes]):
    """A connection to or from a port inside.

    Iterate over it for what comes, until the other side says that this is all; each side says so
    for itself, with `end`. One thread, or task, may write while another reads. Closing it breaks
    off what has not arrived.
    """

    def __init__(self, holder: Holder, method: str, first: Message) -> None:
        super().__init__(holder)
        self._method = method
        self._first = first
        self._all_read = False

    def open(self) -> Conversation[None]:
        call = Call(
            PortServiceStub,
            self._method,
            self._first,
            read=nothing,
            streams=True,
            talks=True,
            lasts_s=LASTING_S,
        )
        self.stream = yield from self.holder.manners.ask(call)

    def next_item(self) -> Conversation[bytes | None]:
        if self._all_read:
            return None
        answer = yield Read(self.stream)
        if answer.HasField("eof"):
            self._all_read = True
            return None
        data: bytes = answer.data
        return data

    @held
    def write(self, data: bytes) -> Conversation[None]:
        """Send something; returns once it is on its way.

        Raises:
            Unavailable: the connection has ended.
        """
        for at in range(0, len(data), PIECE_BYTES):
            yield Say(self.stream, type(self._first)(data=data[at : at + PIECE_BYTES]))

    @held
    def end(self) -> Conversation[None]:
        """There is no more to send; what comes may still be read."""
        yield Say(self.stream, type(self._first)(eof=environments_pb2.Eof()))

    @held
    def finish(self) -> Conversation[None]:
        """Once both sides have said their end, wait until the other one has taken everything.

        What is sent just before `close` may be lost without it.
        """
        while (yield Read(self.stream, may_end=True)) is not None:
            pass


class PortListener(Open[Manner, str]):
    """A port inside that is listened on, as long as this is open.

    Iterate over it for the id of each connection, which waits ten seconds to be accepted. After a
    cut the same port is listened on again.
    """

    def __init__(
        self,
        holder: Holder,
        environment_id: str,
        port: int,
        *,
        reconnect_s: float,
        on_cut: Callable[[StewardError], None],
    ) -> None:
        super().__init__(holder)
        self.port = port
        """Which it is."""
        self._environment_id = environment_id
        self._reconnect_s = reconnect_s
        self._reconnecting = replace(holder.manners, patience_s=reconnect_s)
        self._on_cut = on_cut

    def open(self) -> Conversation[None]:
        self.stream = yield from self.holder.manners.ask(self._call())
        yield from self._begin()

    def next_item(self) -> Conversation[str]:
        while True:
            if self.stream is None:
                yield from self._open_again()
            try:
                answer = yield Read(self.stream)
            except CUTS as cut:
                if self.closed:
                    raise
                self.stream = None
                self._on_cut(cut)
                continue
            connection_id: str = answer.incoming.connection_id
            return connection_id

    def _open_again(self) -> Conversation[None]:
        delays_s, waited_s = self.holder.manners.delays_s(), 0.0
        while True:
            delay_s = next(delays_s)
            yield Wait(delay_s)
            waited_s += delay_s
            try:
                self.stream = yield from self._reconnecting.ask(self._call())
                self._end_if_closed()
                yield from self._begin()
            except CUTS as cut:
                if self.closed or waited_s > self._reconnect_s:
                    raise cut from None
            except Conflict as conflict:  # the server has not noticed the cut yet
                if conflict.reason != "PORT_IN_USE" or waited_s > self._reconnect_s:
                    raise
            else:
                return

    def _begin(self) -> Conversation[None]:
        answer = yield Read(self.stream)
        self.port = answer.listening.port

    def _call(self) -> Call[Any]:
        request = pb.ListenRequest(environment_id=self._environment_id, port=self.port)
        return Call(
            PortServiceStub,
            "Listen",
            request,
            read=nothing,
            repeatable=True,
            streams=True,
            lasts_s=LASTING_S,
        )


class Ports(Holding[Manner]):
    """Needs no network of an environment's, and the permission to write to it."""

    @rpc
    def preview(self, environment_id: str, port: int, *, ttl_s: int = 900) -> Call[Preview]:
        """A link to a port inside that speaks HTTP, for a browser; good for up to an hour.

        Its `path` is one of the server's HTTP address. It ends with the sign-in it was asked for
        with.

        Raises:
            Conflict: reason PORT_CLOSED, or nothing can run there now.
        """
        return Call(
            PortServiceStub,
            "CreatePreview",
            pb.CreatePreviewRequest(environment_id=environment_id, port=port, ttl_seconds=ttl_s),
            read=first(lambda answer: value_of(Preview, answer)),
        )

    @held
    def connect(self, environment_id: str, port: int) -> Conversation[PortConnection[Manner]]:
        """Connect to a port inside, of those that the environment allows to be reached.

        Raises:
            Conflict: reason PORT_CLOSED, PORT_REFUSED, or nothing can run there now.
        """
        start = pb.ConnectStart(environment_id=environment_id, port=port)
        connection: PortConnection[Manner] = PortConnection(
            self.holder, "Connect", pb.ConnectRequest(start=start)
        )
        yield from connection.open()
        return connection

    @held
    def listen(
        self,
        environment_id: str,
        port: int = 0,
        *,
        reconnect_s: float = RECONNECT_S,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[PortListener[Manner]]:
        """Listen on a port inside, on 127.0.0.1; 0: any that is free. See `accept`.

        A cut stream is opened again for up to `reconnect_s`; `on_cut` is told.

        Raises:
            Conflict: reason PORT_IN_USE, NOT_SUPPORTED, or nothing can run there now.
        """
        listener: PortListener[Manner] = PortListener(
            self.holder, environment_id, port, reconnect_s=reconnect_s, on_cut=on_cut
        )
        yield from listener.open()
        return listener

    @held
    def accept(self, connection_id: str) -> Conversation[PortConnection[Manner]]:
        """Take over a connection that a listener has told of.

        Raises:
            NotFound: it waits no more.
        """
        start = pb.AcceptStart(connection_id=connection_id)
        connection: PortConnection[Manner] = PortConnection(
            self.holder, "Accept", pb.AcceptRequest(start=start)
        )
        yield from connection.open()
        return connection

    @overload
    def forward(
        self: Ports[Blocking],
        environment_id: str,
        port: int,
        local_port: int = 0,
        *,
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Tunnel: ...
    @overload
    def forward(
        self: Ports[Awaiting],
        environment_id: str,
        port: int,
        local_port: int = 0,
        *,
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Coroutine[Any, Any, AsyncTunnel]: ...
    def forward(
        self,
        environment_id: str,
        port: int,
        local_port: int = 0,
        *,
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Any:
        """Let a port of 127.0.0.1 here lead to one inside, until what this gives is closed.

        Its `port` is the one here; with 0 any that is free. `on_error` is told of connections that
        could not be made.

        Raises:
            OSError: the port here is taken.
        """
        return self.holder.opened(
            lambda client: Forward(client, environment_id, port, local_port, on_error), Tunnel
        )

    @overload
    def expose(
        self: Ports[Blocking],
        environment_id: str,
        local_port: int,
        port: int = 0,
        *,
        local_host: str = "127.0.0.1",
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Tunnel: ...
    @overload
    def expose(
        self: Ports[Awaiting],
        environment_id: str,
        local_port: int,
        port: int = 0,
        *,
        local_host: str = "127.0.0.1",
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Coroutine[Any, Any, AsyncTunnel]: ...
    def expose(
        self,
        environment_id: str,
        local_port: int,
        port: int = 0,
        *,
        local_host: str = "127.0.0.1",
        on_error: Callable[[StewardError], None] = no_matter,
    ) -> Any:
        """Let a port of 127.0.0.1 inside lead to one here, until what this gives is closed.

        Its `port` is the one inside; with 0 any that is free. Nothing else of here can be reached
        by it. After a cut the same port leads here again; `on_error` is told of cuts, and of
        connections that could not be made.

        Raises:
            Conflict: as `listen`.
        """
        return self.holder.opened(
            lambda client: Expose(client, environment_id, (local_host, local_port), port, on_error),
            Tunnel,
        )
