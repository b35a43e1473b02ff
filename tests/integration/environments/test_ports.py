"""Connections to and from environments, as a server gives them to its callers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from steward.environments.v1 import environments_pb2
from steward.environments.v1 import ports_pb2 as pb
from steward.environments.v1.ports_pb2_grpc import PortServiceStub
from steward_server.environments import tunnels
from steward_server.errors import Unavailable
from tests.integration.conftest import Metadata, refusal_of
from tests.integration.environments.conftest import Site, until
from tests.live import Api

EOF = environments_pb2.Eof()


def metadata_of(api: Api) -> Metadata:
    return tuple(api.headers.items())


def ports(site: Site) -> Any:
    return PortServiceStub(site.live.channel)


class Line:
    """One connection, from the caller's side; of both kinds."""

    def __init__(self, stream: Any, request: Any) -> None:
        self.stream = stream
        self._request = request

    async def say(self, **frame: Any) -> None:
        await self.stream.write(self._request(**frame))

    async def read(self) -> bytes | None:
        """What comes next; None: this was all."""
        answer = await asyncio.wait_for(self.stream.read(), 10)
        if answer is grpc.aio.EOF:
            raise EOFError
        return None if answer.HasField("eof") else answer.data

    async def rest(self) -> bytes:
        found = b""
        while (data := await self.read()) is not None:
            found += data
        return found


async def accept(site: Site, connection_id: str, api: Api | None = None) -> Line:
    stream = ports(site).Accept(metadata=metadata_of(api or site.admin))
    line = Line(stream, pb.AcceptRequest)
    await line.say(start=pb.AcceptStart(connection_id=connection_id))
    return line


async def connect(site: Site, environment_id: str, port: int, api: Api | None = None) -> Line:
    stream = ports(site).Connect(metadata=metadata_of(api or site.admin))
    line = Line(stream, pb.ConnectRequest)
    await line.say(start=pb.ConnectStart(environment_id=environment_id, port=port))
    return line


@asynccontextmanager
async def listening(
    site: Site, environment_id: str, port: int = 0, api: Api | None = None
) -> AsyncIterator[tuple[int, Any]]:
    """A port that is listened on for the block, and what comes by it."""
    request = pb.ListenRequest(environment_id=environment_id, port=port)
    stream = ports(site).Listen(request, metadata=metadata_of(api or site.admin))
    try:
        first = await asyncio.wait_for(stream.read(), 10)
        yield first.listening.port, stream
    finally:
        stream.cancel()


async def incoming(stream: Any) -> str:
    return str((await asyncio.wait_for(stream.read(), 10)).incoming.connection_id)


async def inside(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """What a process in the environment has when it connects."""
    return await asyncio.open_connection("127.0.0.1", port)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 30) == b""
    except ConnectionError:
        return True


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call that is refused ends."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await asyncio.wait_for(call, 10)
    return error.value.code(), refusal_of(error.value).reason


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a service that says everything back once it has heard all of it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def allowing(*allowed: int) -> dict[str, Any]:
    return {"isolation": {"network_policy": {"allowed_ingress_ports": list(allowed)}}}


async def test_a_port_inside_is_reached_and_each_end_is_passed_on(site: Site, echo: int) -> None:
    environment_id = await site.running(**allowing(echo))
    line = await connect(site, environment_id, echo)
    for number in range(40):
        await line.say(data=bytes([number]) * 100_000)
    await line.say(eof=EOF)

    found = await line.rest()
    assert found == b"".join(bytes([number]) * 100_000 for number in range(40))
    with pytest.raises(EOFError):
        await line.read()
    entries = [each for each in site.audit(environment_id) if "port" in each["action"]]
    assert [(each["action"], each["after"]) for each in entries] == [
        ("environment.port_connected", f'{{"port":{echo}}}')
    ]


async def test_who_goes_on_connecting_is_written_down_once_a_minute(site: Site, echo: int) -> None:
    environment_id = await site.running(**allowing(echo))

    async def connections(count: int) -> int:
        for _ in range(count):
            line = await connect(site, environment_id, echo)
            await line.say(eof=EOF)
            assert await line.rest() == b""
        entries = site.audit(environment_id)
        return len([each for each in entries if each["action"] == "environment.port_connected"])

    assert await connections(5) == 1
    site.clock.advance(61)
    assert await connections(5) == 2


async def test_who_connects_is_written_down_the_next_time_where_that_failed(
    site: Site, echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id = await site.running(**allowing(echo))

    async def failing(*_: Any) -> None:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(tunnels, "record", failing)
        line = await connect(site, environment_id, echo)
        assert (await refused(line.read()))[0] is grpc.StatusCode.UNAVAILABLE
    line = await connect(site, environment_id, echo)
    await line.say(eof=EOF)
    assert await line.rest() == b""
    written = [each["action"] for each in site.audit(environment_id)]
    assert written.count("environment.port_connected") == 1


async def test_what_connects_inside_is_told_and_taken_over(site: Site) -> None:
    environment_id = await site.running()
    async with listening(site, environment_id) as (port, stream):
        reader, writer = await inside(port)
        writer.write(b"question")
        line = await accept(site, await incoming(stream))
        assert await line.read() == b"question"
        writer.write_eof()
        assert await line.read() is None
        await line.say(data=b"answer")
        await line.say(eof=EOF)
        assert await reader.read() == b"answer"
        with pytest.raises(EOFError):
            await line.read()
        writer.close()
    written = [each["action"] for each in site.audit(environment_id)]
    assert written.count("environment.port_listened") == 1


async def test_with_whoever_listens_go_the_port_and_its_connections(site: Site) -> None:
    environment_id = await site.running()
    async with listening(site, environment_id) as (port, stream):
        taken, writer = await inside(port)
        line = await accept(site, await incoming(stream))
        await line.say(data=b"there")
        assert await taken.read(5) == b"there"
        waiting, other = await inside(port)
        await incoming(stream)

    assert await is_closed(taken)
    assert await is_closed(waiting)
    assert await refused(line.read()) == (grpc.StatusCode.UNAVAILABLE, "LISTENER_ENDED")

    def is_free() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    await until(is_free, "nobody listens any more")
    writer.close()
    other.close()


async def test_only_who_listens_may_take_what_comes(site: Site) -> None:
    owner, other = await site.person("owner"), await site.person("other")
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/other"
    assert (await owner.call("PUT", share, {"permission": "admin"})).status == 200
    async with listening(site, environment_id, api=owner) as (port, stream):
        reader, writer = await inside(port)
        connection_id = await incoming(stream)
        for thief in (other, site.admin):
            line = await accept(site, connection_id, thief)
            assert await refused(line.read()) == (grpc.StatusCode.NOT_FOUND, "CONNECTION_NOT_FOUND")
        line = await accept(site, connection_id, owner)
        await line.say(data=b"mine")
        assert await reader.read(4) == b"mine"
        again = await accept(site, connection_id, owner)
        assert (await refused(again.read()))[0] is grpc.StatusCode.NOT_FOUND
        line.stream.cancel()
        assert await is_closed(reader)
        writer.close()


async def test_what_nobody_takes_over_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "ACCEPT_S", 0.1)
    environment_id = await site.running()
    async with listening(site, environment_id) as (port, stream):
        reader, writer = await inside(port)
        connection_id = await incoming(stream)
        assert await is_closed(reader)
        line = await accept(site, connection_id)
        assert (await refused(line.read()))[0] is grpc.StatusCode.NOT_FOUND
        writer.close()


async def test_one_caller_has_so_many_connections_into_all_environments(
    site: Site, echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "MAX_OF_CALLER", 1)
    environments = [await site.running(**allowing(echo)) for _ in range(2)]
    first = await connect(site, environments[0], echo)
    await first.stream.initial_metadata()
    second = await connect(site, environments[1], echo)
    assert await refused(second.read()) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_CONNECTIONS",
    )
    first.stream.cancel()

    async def is_let_in() -> bool:
        third = await connect(site, environments[1], echo)
        try:
            await third.say(data=b"hello")
            await third.say(eof=environments_pb2.Eof())
            return await third.read() == b"hello"
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        finally:
            third.stream.cancel()

    await until(is_let_in, "the place of the first is free")


async def test_what_one_caller_takes_over_is_bounded_in_all_environments(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "MAX_TAKEN_OVER", 1)
    monkeypatch.setattr(tunnels, "MAX_WAITING_OF_CALLER", 2)
    owner = await site.person("owner")
    environments = [await site.running(owner) for _ in range(2)]
    async with (
        listening(site, environments[0], api=owner) as (port, stream),
        listening(site, environments[1], api=owner) as (other_port, other_stream),
        listening(site, environments[1]) as (others_port, others_stream),
    ):
        callers = [await inside(port) for _ in range(2)]
        ids = [await incoming(stream) for _ in callers]
        surplus, writer = await inside(other_port)
        assert await is_closed(surplus)
        callers.append((surplus, writer))
        callers.append(await inside(others_port))
        assert await incoming(others_stream)

        line = await accept(site, ids[0], owner)
        await line.stream.initial_metadata()
        second = await accept(site, ids[1], owner)
        assert await refused(second.read()) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_CONNECTIONS",
        )
        callers.append(await inside(other_port))
        assert await incoming(other_stream)
        line.stream.cancel()
        for _, writer in callers:
            writer.close()


async def test_what_is_open_at_a_time_is_bounded(
    site: Site, echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnels, "MAX_CONNECTIONS", 1)
    monkeypatch.setattr(tunnels, "MAX_LISTENERS", 1)
    monkeypatch.setattr(tunnels, "MAX_WAITING", 2)
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    environment_id = await site.running(**allowing(echo))
    first = await connect(site, environment_id, echo)
    await first.stream.initial_metadata()
    second = await connect(site, environment_id, echo)
    assert await refused(second.read()) == (exhausted, "TOO_MANY_CONNECTIONS")
    first.stream.cancel()
    async with listening(site, environment_id) as (port, stream):
        request = pb.ListenRequest(environment_id=environment_id)
        another = ports(site).Listen(request, metadata=site.metadata)
        assert await refused(another.read()) == (exhausted, "TOO_MANY_LISTENERS")
        callers = [await inside(port) for _ in range(3)]
        ids = [await incoming(stream) for _ in range(2)]
        third = asyncio.ensure_future(incoming(stream))
        await asyncio.sleep(0.1)
        assert not third.done()
        line = await accept(site, ids[0])
        assert await third
        line.stream.cancel()
        for _, writer in callers:
            writer.close()


async def test_refusals_say_what_is_wrong(site: Site, echo: int) -> None:
    environment_id = await site.running(**allowing(echo, 1))
    precondition = grpc.StatusCode.FAILED_PRECONDITION
    for port, code, reason in (
        (echo + 1, precondition, "PORT_CLOSED"),
        (1, precondition, "PORT_REFUSED"),
        (0, grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_ERROR"),
        (65_536, grpc.StatusCode.INVALID_ARGUMENT, "VALIDATION_ERROR"),
    ):
        line = await connect(site, environment_id, port)
        assert await refused(line.read()) == (code, reason)
    nowhere = await connect(site, "env-0", echo)
    assert (await refused(nowhere.read()))[0] is grpc.StatusCode.NOT_FOUND
    taken = ports(site).Listen(
        pb.ListenRequest(environment_id=environment_id, port=echo), metadata=site.metadata
    )
    assert await refused(taken.read()) == (precondition, "PORT_IN_USE")
    twice = await connect(site, environment_id, echo)
    await twice.say(start=pb.ConnectStart(environment_id=environment_id, port=echo))
    assert (await refused(twice.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT
    large = await connect(site, environment_id, echo)
    await large.say(data=bytes(1024 * 1024 + 1))
    assert (await refused(large.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT
    late = Line(ports(site).Connect(metadata=site.metadata), pb.ConnectRequest)
    await late.say(data=b"without a start")
    assert (await refused(late.read()))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_is_open_ends_with_the_right_to_it_and_with_the_environment(
    site: Site, echo: int
) -> None:
    owner, other = await site.person("owner"), await site.person("other")
    environment_id = await site.running(owner, **allowing(echo))
    share = f"/api/v1/environments/{environment_id}/shares/other"
    assert (await owner.call("PUT", share, {"permission": "write"})).status == 200
    line = await connect(site, environment_id, echo, other)
    await line.stream.initial_metadata()
    async with (
        listening(site, environment_id, api=other) as (_, theirs),
        listening(site, environment_id, api=owner) as (_, own),
    ):
        assert (await owner.call("PUT", share, {"permission": "read"})).status == 200
        denied = (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_CHANGED")
        assert await refused(line.read()) == denied
        assert await refused(theirs.read()) == denied
        again = await connect(site, environment_id, echo, other)
        assert (await refused(again.read()))[1] == "ENVIRONMENT_PERMISSION"

        path = f"/api/v1/environments/{environment_id}?force=true"
        deleting = asyncio.create_task(owner.call("DELETE", path))
        assert (await refused(own.read()))[0] in (
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.NOT_FOUND,
        )
        assert (await deleting).status == 204
    assert site.driver.calls.count(("listen", environment_id)) == 2
