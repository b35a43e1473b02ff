"""Ports of environments through both clients: one connection at a time, and all that come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from steward_client import AsyncClient
from steward_client.client.environments_values import Isolation, NetworkPolicy
from steward_client.errors import Conflict, NotFound, StewardError, Unavailable
from tests.environment_site import environment_site
from tests.integration.environments.conftest import Site, until
from tests.integration.sdk.conftest import Call
from tests.integration.sdk.test_client_environments import items, on, running
from tests.live import ADMIN_PASSWORD, Live
from tests.relay import Relay

MIB = 1024 * 1024


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with environment_site(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def live(site: Site) -> Live:
    return site.live


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


def allowing(port: int) -> Isolation:
    return Isolation(network_policy=NetworkPolicy(allowed_ingress_ports=(port,)))


async def asked(port: int, question: bytes) -> bytes:
    """What is answered at a port here once everything was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(question)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b"broken off"
    finally:
        writer.close()


async def closed(stream: Any) -> None:
    ended = await asyncio.to_thread(stream.close)
    if asyncio.iscoroutine(ended):
        await ended


async def test_a_port_inside_is_connected_to(call: Call, echo: int) -> None:
    environment_id = await running(call, isolation=allowing(echo))
    connection = await call("environments.connect", environment_id, echo)
    await on(connection, "write", bytes(MIB))
    await on(connection, "end")

    assert b"".join(await items(connection)) == bytes(MIB)
    assert await items(connection) == []
    await closed(connection)
    with pytest.raises(Conflict) as refused:
        await call("environments.connect", environment_id, 1)
    assert refused.value.reason == "PORT_CLOSED"


async def test_what_connects_inside_is_accepted(call: Call) -> None:
    environment_id = await running(call)
    listener = await call("environments.listen", environment_id)
    asking = asyncio.create_task(asked(listener.port, b"question"))
    (connection_id,) = await items(listener, 1)
    connection = await call("environments.accept", connection_id)

    assert b"".join(await items(connection)) == b"question"
    await on(connection, "write", b"answer")
    await on(connection, "end")
    await on(connection, "finish")
    assert await asking == b"answer"
    await closed(connection)
    await closed(listener)
    with pytest.raises(NotFound):
        await call("environments.accept", connection_id)


async def test_a_port_here_leads_inside_until_it_is_closed(call: Call, echo: int) -> None:
    errors: list[StewardError] = []
    environment_id = await running(call, isolation=allowing(echo))
    tunnel = await call("environments.forward", environment_id, echo, on_error=errors.append)
    questions = [bytes([number]) * 100_000 for number in range(8)]
    answers = await asyncio.gather(*(asked(tunnel.port, each) for each in questions))
    assert answers == questions

    elsewhere = await call("environments.forward", environment_id, 1, on_error=errors.append)
    assert await asked(elsewhere.port, b"anybody?") in (b"", b"broken off")
    await until(lambda: [each.reason for each in errors] == ["PORT_CLOSED"], "it is told why")
    for each in (tunnel, elsewhere):
        await closed(each)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", each.port)
    with pytest.raises(OSError, match=str(echo)):
        await call("environments.forward", environment_id, 1, echo)


async def test_a_port_inside_leads_here_until_it_is_closed(call: Call, echo: int) -> None:
    errors: list[StewardError] = []
    environment_id = await running(call)
    tunnel = await call("environments.expose", environment_id, echo, on_error=errors.append)
    questions = [bytes([number]) * 100_000 for number in range(8)]
    answers = await asyncio.gather(*(asked(tunnel.port, each) for each in questions))
    assert answers == questions

    nowhere = await call("environments.expose", environment_id, 1, on_error=errors.append)
    assert await asked(nowhere.port, b"anybody?") in (b"", b"broken off")
    assert "nobody answers on 127.0.0.1:1" in str(errors[0])
    with pytest.raises(Conflict) as refused:
        await call("environments.expose", environment_id, echo, tunnel.port)
    assert refused.value.reason == "PORT_IN_USE"
    for each in (tunnel, nowhere):
        await closed(each)
    await until(lambda: _is_free(tunnel.port), "the port inside is free again")


async def test_a_reader_who_has_stopped_reading_does_not_keep_a_tunnel_open(call: Call) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(bytes(MIB))
                await writer.drain()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    environment_id = await running(call, isolation=allowing(port))
    tunnel = await call("environments.forward", environment_id, port)
    reader, writer = await asyncio.open_connection("127.0.0.1", tunnel.port, limit=1)
    await reader.readexactly(1)
    await asyncio.sleep(0.1)  # until what it does not take is full

    async with asyncio.timeout(30):
        await closed(tunnel)
    writer.close()
    server.close()


async def test_a_tunnel_says_why_it_has_ended(call: Call, echo: int) -> None:
    environment_id = await running(call)
    tunnel = await call("environments.expose", environment_id, echo)
    waiting = asyncio.create_task(on(tunnel, "wait"))
    await call("environments.delete", environment_id, force=True)

    with pytest.raises((Conflict, NotFound)):
        await asyncio.wait_for(waiting, 10)
    await closed(tunnel)


def _is_free(port: int) -> bool:

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def test_after_a_cut_the_same_port_inside_leads_here_again(site: Site, echo: int) -> None:
    cuts: list[StewardError] = []
    environment_id = await site.running()
    async with (
        Relay(site.live.running.grpc_address) as relay,
        AsyncClient(relay.address) as client,
    ):
        await client.login("admin", ADMIN_PASSWORD)
        tunnel = await client.environments.expose(environment_id, echo, on_error=cuts.append)
        assert await asked(tunnel.port, b"before") == b"before"

        relay.cut()
        async with asyncio.timeout(10):
            while not cuts or _is_free(tunnel.port):
                await asyncio.sleep(0.02)
            while await asked(tunnel.port, b"after") != b"after":
                await asyncio.sleep(0.02)
        assert isinstance(cuts[0], Unavailable)
        await tunnel.close()
