"""Connections into a machine that has no network, and out of it."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steward_server.environments.driver import (
    Command,
    Connection,
    Driver,
    Gone,
    Listener,
    Unusable,
)
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, Ran, spec
from tests.missing import missing

CALL = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5) as out:
    out.sendall(sys.argv[2].encode())
    out.shutdown(socket.SHUT_WR)
    print(b"".join(iter(lambda: out.recv(65536), b"")).decode(), flush=True)
"""
"""Says something, then that this is all, and prints what it is told after that."""

LAST_WORD = """
import socket
with socket.create_server(("127.0.0.1", 8080)) as server:
    print("up", flush=True)
    inside, _ = server.accept()
    heard = b"".join(iter(lambda: inside.recv(65536), b""))
    inside.sendall(b"%d bytes" % len(heard))
    inside.close()
"""


async def called(machines: Machines, name: str, listener: Listener, text: str) -> Ran:
    return await machines.run(name, "python3", "-c", CALL, str(listener.port), text)


async def text_of(connection: Connection) -> str:
    """All that comes."""
    return b"".join([part async for part in connection[0]]).decode()


async def close(connection: Connection) -> None:
    reader: Any = connection[0]
    await reader.aclose()


async def test_a_port_inside_leads_out_of_a_machine_without_a_network(machines: Machines) -> None:
    name = await machines.make()
    listener = await machines.driver.listen(name, 0)
    calls = [
        asyncio.create_task(called(machines, name, listener, f"call {number}"))
        for number in range(3)
    ]

    heard = []
    for _ in calls:
        connection = await asyncio.wait_for(anext(aiter(listener)), 10)
        heard.append(await text_of(connection))
        await connection[1].write(heard[-1].upper().encode())
        await connection[1].close()

    assert sorted(heard) == ["call 0", "call 1", "call 2"]
    told = [(await each).stdout for each in calls]
    assert told == ["CALL 0\n", "CALL 1\n", "CALL 2\n"]
    await listener.aclose()
    assert (await called(machines, name, listener, "")).code == 1


async def test_a_port_is_listened_on_once_and_free_again_after_that(machines: Machines) -> None:
    name = await machines.make()
    first = await machines.driver.listen(name, 8787)
    assert first.port == 8787

    with pytest.raises(Unusable) as refusal:
        await machines.driver.listen(name, 8787)
    assert refusal.value.reason == "PORT_IN_USE"
    with pytest.raises(Unusable) as refusal:
        await machines.driver.listen(name, 80)
    assert refusal.value.reason == "PORT_REFUSED"

    await first.aclose()
    again = await machines.driver.listen(name, 8787)
    await again.aclose()


async def test_a_listener_ends_with_its_machine(machines: Machines, driver: Driver) -> None:
    name = await machines.make()
    listener = await driver.listen(name, 0)
    waiting = asyncio.ensure_future(anext(aiter(listener), None))
    await asyncio.sleep(0.05)

    await driver.delete(name, grace_s=0)

    assert await asyncio.wait_for(waiting, 30) is None
    await listener.aclose()
    with pytest.raises(Gone):
        await driver.listen(name, 0)


async def test_a_connection_ends_with_its_machine(machines: Machines, driver: Driver) -> None:
    name = await machines.make()
    listener = await driver.listen(name, 0)
    caller = asyncio.create_task(called(machines, name, listener, "hello"))
    connection = await asyncio.wait_for(anext(aiter(listener)), 10)
    await driver.delete(name, grace_s=0)

    with suppress(ConnectionError):
        assert await asyncio.wait_for(text_of(connection), 30) in ("", "hello")
    await close(connection)
    await listener.aclose()
    await asyncio.gather(caller, return_exceptions=True)


async def test_the_end_of_each_direction_is_told_apart(machines: Machines) -> None:
    network = NetworkPolicy(allowed_ingress_ports=(8080,))
    name = await machines.make(replace(spec(), network=network))
    server = await machines.driver.exec(name, Command(("python3", "-c", LAST_WORD)))
    assert await server.read()
    connection = await machines.driver.connect(name, 8080)
    for _ in range(64):
        await connection[1].write(os.urandom(65_536))
    await connection[1].close()

    assert await text_of(connection) == f"{64 * 65_536} bytes"
    await server.aclose()


async def test_who_does_not_read_holds_up_who_writes(machines: Machines) -> None:
    name = await machines.make()
    listener = await machines.driver.listen(name, 0)
    flood = f"""
import socket
out = socket.create_connection(("127.0.0.1", {listener.port}))
out.settimeout(0.5)
sent = 0
try:
    while sent < 1 << 30:
        sent += out.send(bytes(1 << 16))
except TimeoutError:
    print(sent, flush=True)
"""
    flooding = asyncio.create_task(machines.python(name, flood))
    connection = await asyncio.wait_for(anext(aiter(listener)), 10)

    assert 0 < int((await flooding).stdout) < 16 << 20
    await close(connection)
    await listener.aclose()


async def test_one_that_was_taken_up_by_another_server_leads_out_too(
    images: Catalogue, tmp_path: Path
) -> None:
    first, heir = (SandboxDriver(tmp_path / "kept", images) for _ in range(2))
    await first.open()
    if why := first.capabilities().unusable:
        missing(f"machines cannot be made here: {why}")
    name = await Machines(first).make()
    left = await first.listen(name, 0)
    await left.aclose()
    await first.aclose()
    await heir.open()
    machines = Machines(heir)
    try:
        listener = await heir.listen(name, left.port)
        calling = asyncio.create_task(called(machines, name, listener, "still there"))
        connection = await asyncio.wait_for(anext(aiter(listener)), 10)
        assert await text_of(connection) == "still there"
        await close(connection)
        await calling
        await listener.aclose()
    finally:
        await machines.clear()
        await heir.aclose()
