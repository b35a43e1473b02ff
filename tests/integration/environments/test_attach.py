"""Terminals over WebSocket: the guide's frames, ours beside them, reconnection and credentials."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from tests.child_driver import Child, _marked
from tests.integration.environments.conftest import Site, Sites, until
from tests.live import Api


def attach(api: Api, environment_id: str, query: str = "", **options: Any) -> Any:
    path = f"{api.base_url}/api/v1/environments/{environment_id}/attach{query}"
    return api.session.ws_connect(path, **({"headers": api.headers} | options))


async def written(socket: Any, until_text: str) -> str:
    """What a terminal writes, up to and with a text."""
    seen = ""
    try:
        async with asyncio.timeout(10):
            while until_text not in seen:
                frame = await socket.receive_json()
                assert frame["type"] in ("stdout", "stderr"), (frame, seen)
                assert set(frame) == {"type", "data"}
                seen += frame["data"]
    except TimeoutError:
        raise AssertionError(f"never seen: {until_text!r} in {seen!r}") from None
    return seen


async def test_a_shell_behind_a_real_terminal(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id, "?cols=120&rows=40") as socket:
        await socket.send_json({"type": "stdin", "data": "tty; stty size; echo i''n\n"})
        seen = await written(socket, "in\r\n")
        assert "/dev/pts/" in seen
        assert "40 120" in seen
        await socket.send_json({"type": "resize", "cols": 100, "rows": 30})
        await socket.send_json({"type": "stdin", "data": "stty size\n"})
        await written(socket, "30 100")
        await socket.send_json({"type": "stdin", "data": "exit 7\n"})
        frame = await last_frame(socket)
        assert frame == {"type": "exit", "exit_code": 7}
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000


async def last_frame(socket: Any) -> Any:
    async with asyncio.timeout(10):
        while True:
            frame = await socket.receive_json()
            if frame["type"] not in ("stdout", "stderr"):
                return frame


async def test_control_c_and_signals_reach_what_runs(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id, "?command=sleep&command=600") as socket:
        await until(lambda: _marked(environment_id), "it runs")
        await socket.send_json({"type": "stdin", "data": "\x03"})
        frame = await last_frame(socket)
    assert frame == {"type": "exit", "exit_code": 130, "signal": "SIGINT"}
    async with attach(site.admin, environment_id, "?command=sleep&command=600&tty=0") as socket:
        await until(lambda: _marked(environment_id), "it runs")
        await socket.send_json({"type": "signal", "name": "TERM"})
        assert (await last_frame(socket))["signal"] == "SIGTERM"


async def test_without_a_terminal_both_outputs_and_the_end_of_input_are_apart(site: Site) -> None:
    environment_id = await site.running()
    query = "?tty=false&command=sh&command=-c&command=cat;echo%20e%20%3E%262"
    async with attach(site.admin, environment_id, query) as socket:
        await socket.send_json({"type": "stdin", "data": "one\n"})
        assert await socket.receive_json() == {"type": "stdout", "data": "one\n"}
        await socket.send_json({"type": "eof"})
        assert await socket.receive_json() == {"type": "stderr", "data": "e\n"}
        assert await socket.receive_json() == {"type": "exit", "exit_code": 0}


async def test_characters_are_never_split(site: Site) -> None:
    environment_id = await site.running()
    script = "printf '\\303'; sleep 0.2; printf '\\251|'; printf '\\342\\202'; sleep 0.1"
    query = {"tty": "false", "command": ["sh", "-c", script]}
    parts = "&".join(f"command={each}" for each in ("sh", "-c"))
    from urllib.parse import quote

    async with attach(
        site.admin, environment_id, f"?tty={query['tty']}&{parts}&command={quote(script)}"
    ) as socket:
        frames = [message.json() async for message in socket]
    assert "".join(each["data"] for each in frames if each["type"] == "stdout") == "é|\ufffd"
    assert frames[0]["data"].startswith("é")


async def test_ping_is_answered_and_what_cannot_be_read_is_told(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id, "?command=cat&tty=0") as socket:
        await socket.send_json({"type": "ping"})
        assert await socket.receive_json() == {"type": "pong"}
        for frame, words in (
            ({"type": "shout"}, "type must be one of"),
            ({"type": "stdin", "data": 1}, "data must be text"),
            ({"type": "resize", "cols": 0, "rows": 1}, "cols"),
            ({"type": "signal", "name": "LOUD"}, "LOUD"),
            ({"type": "open", "environment_id": "other"}, "open"),
        ):
            await socket.send_json(frame)
            told = await socket.receive_json()
            assert (told["type"], told["code"], told["error"]) == ("error", 400, "Bad Request")
            assert words in told["message"]
        await socket.send_str("{oops")
        assert (await socket.receive_json())["type"] == "error"
        await socket.send_json({"type": "stdin", "data": "still here\n"})
        assert (await socket.receive_json())["data"] == "still here\n"


async def test_whoever_closes_ends_the_shell_with_all_it_started(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id) as socket:
        await socket.send_json({"type": "stdin", "data": "setsid sleep 600 & echo o''k\n"})
        await written(socket, "ok\r\n")
    await until(lambda: not _marked(environment_id), "everything has ended")


async def test_whoever_comes_back_finds_the_same_shell_and_what_it_wrote(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id, "?session=mine") as socket:
        await socket.send_json({"type": "stdin", "data": "X=kept; echo fi''rst\n"})
        await written(socket, "first\r\n")
    async with attach(site.admin, environment_id, "?session=mine") as socket:
        await written(socket, "first\r\n")
        await socket.send_json({"type": "stdin", "data": "echo X is $X\n"})
        await written(socket, "X is kept\r\n")
        # Another person's name is another shell.
        other = await site.person("other", "admin")
        async with attach(other, environment_id, "?session=mine") as second:
            await second.send_json({"type": "stdin", "data": "echo X is ${X}none\n"})
            await written(second, "X is none\r\n")
        # The same person's second connection takes it over.
        async with attach(site.admin, environment_id, "?session=mine") as third:
            await written(third, "X is kept\r\n")
            message = await socket.receive()
            while message.type is aiohttp.WSMsgType.TEXT:
                message = await socket.receive()
            assert socket.close_code == 4009


async def test_whoever_comes_back_is_told_where_the_shell_is_no_more(sites: Sites) -> None:
    async with sites.open() as site:
        environment_id = await site.running()
        async with attach(site.admin, environment_id, "?session=mine") as socket:
            await socket.send_json({"type": "stdin", "data": "echo h''i\n"})
            await written(socket, "hi\r\n")
        async with attach(site.admin, environment_id, "?session=mine&existing=true") as socket:
            await written(socket, "hi\r\n")
    async with sites.open() as site:  # terminals end with their server
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await attach(site.admin, environment_id, "?session=mine&existing=true")
        assert refused.value.status == 404


async def test_a_shell_waits_no_longer_than_its_grace(sites: Sites) -> None:
    async with sites.open(attach_grace_s=0.2) as site:
        environment_id = await site.running()
        async with attach(site.admin, environment_id, "?session=mine") as socket:
            await socket.send_json({"type": "stdin", "data": "echo h''i\n"})
            await written(socket, "hi\r\n")
        assert _marked(environment_id)
        await until(lambda: not _marked(environment_id), "it has ended")


async def test_an_environment_has_only_so_many_terminals(sites: Sites) -> None:
    async with sites.open(max_terminals=1) as site:
        environment_id = await site.running()
        async with attach(site.admin, environment_id) as socket:
            await socket.send_json({"type": "ping"})
            await last_frame(socket)
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await attach(site.admin, environment_id)
            assert refused.value.status == 429


async def test_the_end_of_the_environment_ends_the_terminal(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id) as socket:
        await socket.send_json({"type": "ping"})
        await last_frame(socket)
        await site.admin.call("DELETE", f"/api/v1/environments/{environment_id}?force=true")
        frame = await last_frame(socket)
        assert (frame["type"], frame["exit_code"]) == ("exit", 137)


async def test_a_terminal_that_the_driver_loses_ends_and_another_can_be_opened(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id = await site.running()

    async def lost(_: Child) -> None:
        raise ConnectionResetError("the driver has lost it")

    with monkeypatch.context() as patched:
        patched.setattr(Child, "read", lost)
        async with attach(site.admin, environment_id, "?session=mine") as socket:
            message = await asyncio.wait_for(socket.receive(), 10)
            while message.type is aiohttp.WSMsgType.TEXT:
                message = await asyncio.wait_for(socket.receive(), 10)
            assert message.extra == "TERMINAL_BROKEN"
    async with attach(site.admin, environment_id, "?session=mine") as socket:
        await socket.send_json({"type": "stdin", "data": "echo a$((1 + 1))b\n"})
        await written(socket, "a2b")


async def test_an_output_flood_waits_for_its_reader(site: Site) -> None:
    environment_id = await site.running()
    async with attach(site.admin, environment_id, "?command=yes") as socket:
        await asyncio.sleep(0.5)
        seen = await written(socket, "y\r\n" * 100)
        assert set(seen) <= set("y\r\n")
    await until(lambda: not _marked(environment_id), "it has ended")


# Credentials.


async def test_the_credential_travels_as_the_guide_prints_it(site: Site) -> None:
    environment_id = await site.running()
    token = site.admin.headers["authorization"].removeprefix("Bearer ")
    url = f"{site.admin.base_url}/api/v1/environments/{environment_id}/attach"
    session = site.admin.session
    headers = {"Sec-WebSocket-Protocol": f"Authorization, Bearer {token}"}
    async with session.ws_connect(url, headers=headers) as socket:
        await socket.send_json({"type": "ping"})
        await last_frame(socket)
    async with session.ws_connect(url, protocols=("Authorization", token)) as socket:
        assert socket.protocol == "Authorization"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(url)
    assert refused.value.status == 401


async def ticket_of(api: Api, environment_id: str, purpose: str = "attach") -> Any:
    path = f"/api/v1/environments/{environment_id}/tickets"
    return await api.call("POST", path, {"purpose": purpose})


async def test_a_ticket_is_good_once_for_one_environment_and_purpose(site: Site) -> None:
    environment_id, other_id = await site.running(), await site.running()
    url = f"{site.admin.base_url}/api/v1/environments"
    session = site.admin.session
    made = await ticket_of(site.admin, environment_id)
    assert made.status == 201
    assert set(made.body) == {"ticket", "expires_at"}
    ticket = made.body["ticket"]
    async with session.ws_connect(f"{url}/{environment_id}/attach?ticket={ticket}") as socket:
        await socket.send_json({"type": "ping"})
        await last_frame(socket)
    with pytest.raises(aiohttp.WSServerHandshakeError) as used:
        await session.ws_connect(f"{url}/{environment_id}/attach?ticket={ticket}")
    assert used.value.status == 401

    ticket = (await ticket_of(site.admin, environment_id)).body["ticket"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as elsewhere:
        await session.ws_connect(f"{url}/{other_id}/attach?ticket={ticket}")
    assert elsewhere.value.status == 403
    ticket = (await ticket_of(site.admin, environment_id)).body["ticket"]
    async with session.get(f"{url}/{environment_id}/logs?follow=true&ticket={ticket}") as answer:
        assert answer.status == 403

    ticket = (await ticket_of(site.admin, environment_id, "logs")).body["ticket"]
    site.driver.host.machines[environment_id].write("stdout", "hello")
    async with session.get(f"{url}/{environment_id}/logs?follow=true&ticket={ticket}") as answer:
        assert answer.status == 200
        assert b"id: 1" in await answer.content.readline()


async def test_a_ticket_ends_after_half_a_minute_and_with_its_credential(site: Site) -> None:
    environment_id = await site.running()
    url = f"{site.admin.base_url}/api/v1/environments/{environment_id}/attach"
    session = site.admin.session
    ticket = (await ticket_of(site.admin, environment_id)).body["ticket"]
    site.clock.advance(31)
    with pytest.raises(aiohttp.WSServerHandshakeError) as late:
        await session.ws_connect(f"{url}?ticket={ticket}")
    assert late.value.status == 401

    key = await site.key(site.admin, role="admin")
    ticket = (await ticket_of(key, environment_id)).body["ticket"]
    key_id = (await site.admin.call("GET", "/api/v1/api-keys")).body["api_keys"][0]["id"]
    await site.admin.call("DELETE", f"/api/v1/api-keys/{key_id}")
    with pytest.raises(aiohttp.WSServerHandshakeError) as revoked:
        await session.ws_connect(f"{url}?ticket={ticket}")
    assert revoked.value.status == 401
