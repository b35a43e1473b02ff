"""Links to ports of environments: what a browser gets from inside, and what it does not."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from steward_gateway import passages
from steward_server.environments import previews
from tests.environment_site import environment_site
from tests.integration.environments.conftest import Site, until
from tests.live import Api

EVIL = {
    "Set-Cookie": "session=stolen; Path=/",
    "Clear-Site-Data": '"*"',
    "WWW-Authenticate": "Basic realm=steward",
    "Strict-Transport-Security": "max-age=99999999",
    "Service-Worker-Allowed": "/",
    "Content-Security-Policy": "default-src *",
    "Referrer-Policy": "unsafe-url",
    "Server": "inside/1.0",
    "Link": "</api>; rel=preload",
    "Report-To": "{}",
}
PARTS = "multipart/x-mixed-replace; boundary=x"
CREDENTIALS = {
    "Authorization": "Bearer secret-1",
    "Cookie": "session=secret-2",
    "X-API-Key": "secret-3",
    "X-IC-Key": "secret-4",
    "Proxy-Authorization": "Basic secret-5",
    "Referer": "http://127.0.0.1/preview/secret-6/",
    "Origin": "http://secret-7.example",
    "X-Forwarded-For": "10.0.0.7",
    "Connection": "keep-alive, X-Hop",
    "X-Hop": "secret-8",
}


@dataclass
class Inside:
    """An application in an environment."""

    port: int = 0
    heard: list[web.BaseRequest] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    closed: list[int | None] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.heard.append(request)
        match request.path:
            case "/echo":
                body = await request.read()
                told = {
                    "method": request.method,
                    "target": request.raw_path,
                    "headers": dict(request.headers),
                    "length": len(body),
                }
                return web.json_response(told, status=418, headers=EVIL)
            case "/count":
                length = 0
                async for piece in request.content.iter_any():
                    length += len(piece)
                return web.Response(text=str(length))
            case "/parts":
                return web.Response(body=b"x", headers={"Content-Type": PARTS})
            case "/away":
                return web.Response(status=302, headers={"Location": request.query["to"]})
            case "/slow":
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                await response.write(b"data: first\n\n")
                await self.gate.wait()
                await response.write(b"data: second\n\n")
                return response
            case "/cut":
                response = web.StreamResponse(headers={"Content-Length": "1000"})
                await response.prepare(request)
                await response.write(b"half")
                assert request.transport is not None
                request.transport.abort()
                return response
            case "/ws":
                socket = web.WebSocketResponse(protocols=("chat",))
                await socket.prepare(request)
                async for frame in socket:
                    if frame.data == "bye":
                        await socket.close(code=4321, message=b"as you wish")
                    elif frame.type is aiohttp.WSMsgType.TEXT:
                        await socket.send_str(frame.data.upper())
                    else:
                        await socket.send_bytes(frame.data[::-1])
                self.closed.append(socket.close_code)
                return socket
        return web.Response(text="<h1>hello</h1>", content_type="text/html")


@pytest.fixture
async def inside() -> AsyncIterator[Inside]:
    found = Inside()
    runner = web.ServerRunner(web.Server(found.answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    found.gate.set()
    await runner.cleanup()


async def environment(site: Site, port: int, api: Api | None = None) -> str:
    policy = {"network_policy": {"allowed_ingress_ports": [port]}}
    return await site.running(api, isolation=policy)


async def link(site: Site, name: str, port: int, api: Api | None = None, **fields: Any) -> Any:
    path = f"/api/v1/environments/{name}/previews"
    return await (api or site.admin).call("POST", path, {"port": port} | fields)


async def opened(site: Site, inside: Inside, **fields: Any) -> str:
    """The address of a link that was just made."""
    made = await link(site, await environment(site, inside.port), inside.port, **fields)
    assert made.status == 201, made
    return f"{site.live.api.base_url}{made.body['path']}"


@pytest.fixture
async def browser() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_page_inside_is_shown(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside)
    async with browser.get(address) as answer:
        assert (answer.status, await answer.text()) == (200, "<h1>hello</h1>")
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    async with browser.head(address) as answer:
        assert (answer.status, answer.headers["Content-Length"]) == (200, "14")
    async with browser.get(address.rstrip("/"), allow_redirects=False) as answer:
        assert answer.status == 308
        assert address.endswith(answer.headers["Location"])
    assert inside.heard[0].headers["Host"] == f"localhost:{inside.port}"


async def test_nothing_that_speaks_for_our_origin_comes_out(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside)
    async with browser.get(address + "echo") as answer:
        for name in EVIL.keys() - passages.GUARDS.keys() - {"Server"}:
            assert name not in answer.headers
        policy = answer.headers.getall("Content-Security-Policy")
        assert policy == [passages.SANDBOX]
        assert "allow-same-origin" not in policy[0]
        assert answer.headers.getall("Referrer-Policy") == ["no-referrer"]
        assert answer.headers["Server"] == "Steward"
        assert answer.cookies == {}


async def test_parts_that_could_leave_the_sandbox_are_shown_as_a_picture_only(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside) + "parts"
    for to, shown in (("document", "application/octet-stream"), ("image", PARTS)):
        async with browser.get(address, headers={"Sec-Fetch-Dest": to}) as answer:
            assert answer.headers["Content-Type"] == shown


async def test_nothing_of_the_callers_that_is_ours_goes_in(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside)
    given = CREDENTIALS | {"X-Own": "kept", "Accept-Language": "eo", "User-Agent": "Test/1"}
    target = URL(address + "echo?a=%2F&b", encoded=True)
    async with browser.get(target, headers=given) as answer:
        told = json.loads(await answer.text())
    assert answer.status == 418
    assert told["target"] == "/echo?a=%2F&b"
    assert "secret" not in json.dumps(told)
    assert "10.0.0.7" not in json.dumps(told)
    token = URL(address).parts[2]
    assert token not in json.dumps(told)
    assert told["headers"]["X-Own"] == "kept"
    assert told["headers"]["Accept-Language"] == "eo"
    assert told["headers"]["User-Agent"] == "Test/1"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_passes_with_its_body(
    site: Site, inside: Inside, browser: aiohttp.ClientSession, method: str
) -> None:
    async with browser.request(method, await opened(site, inside) + "echo", data=b"abc") as answer:
        told = json.loads(await answer.text())
    assert (told["method"], told["length"]) == (method, 3)


async def test_a_body_larger_than_any_of_ours_passes_as_it_comes(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b"x" * 1_000_000

    address = await opened(site, inside)
    for body in (io.BytesIO(b"x" * 12_000_000), pieces()):
        async with browser.post(address + "count", data=body) as answer:
            assert await answer.text() == "12000000"


async def test_an_answer_comes_as_it_is_written(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(await opened(site, inside) + "slow") as answer:
        assert await answer.content.readuntil(b"\n\n") == b"data: first\n\n"
        inside.gate.set()
        assert await answer.content.read() == b"data: second\n\n"


async def test_an_answer_that_is_cut_off_does_not_look_whole(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    async with browser.get(await opened(site, inside) + "cut") as answer:
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_an_answer_without_a_length_is_cut_off_with_the_right(
    site: Site, browser: aiohttp.ClientSession
) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    owner, guest = await site.person("owner"), await site.person("guest")
    name = await environment(site, port, owner)
    share = f"/api/v1/environments/{name}/shares/guest"
    await owner.call("PUT", share, {"permission": "write"})
    made = await link(site, name, port, guest)
    async with browser.get(site.live.api.base_url + made.body["path"]) as answer:
        assert await answer.content.readexactly(4) == b"half"
        await owner.call("DELETE", share)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.read(), 30)
    server.close()


@pytest.mark.parametrize(
    ("to", "leads"),
    [
        ("/next", "{prefix}/next"),
        ("http://localhost:{port}/next?a=b", "{prefix}/next?a=b"),
        ("next", "next"),
        ("//evil.example/", "//evil.example/"),
        ("https://elsewhere.example/", "https://elsewhere.example/"),
    ],
)
async def test_a_redirect_stays_inside_where_it_does(
    site: Site, inside: Inside, browser: aiohttp.ClientSession, to: str, leads: str
) -> None:
    address = await opened(site, inside)
    target = URL(address + "away").with_query(to=to.format(port=inside.port))
    async with browser.get(target, allow_redirects=False) as answer:
        prefix = URL(address).path.rstrip("/")
        assert answer.headers["Location"] == leads.format(prefix=prefix, port=inside.port)


async def test_a_websocket_passes_both_ways(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside)
    # A page in its sandbox has no origin of ours.
    headers = CREDENTIALS | {"Origin": "null", "Connection": "Upgrade, X-Hop"}
    async with browser.ws_connect(
        address + "ws", protocols=("chat", "other"), headers=headers
    ) as socket:
        assert socket.protocol == "chat"
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=30) == "HELLO"
        await socket.send_bytes(b"x" * 100_000 + b"y")
        assert (await socket.receive_bytes(timeout=5))[:2] == b"yx"
        await socket.send_str("bye")
        end = await socket.receive(timeout=30)
        assert (end.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 4321)
    assert "secret" not in str(inside.heard[0].headers)


async def test_a_websocket_that_is_closed_here_is_closed_inside(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    async with browser.ws_connect(await opened(site, inside) + "ws") as socket:
        await socket.send_str("hello")
        await socket.receive_str(timeout=30)
        await socket.close(code=4000)
    await until(lambda: inside.closed == [4000], "it is closed inside")


async def test_a_websocket_is_told_that_the_server_stops(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inside: Inside,
    browser: aiohttp.ClientSession,
) -> None:
    async with environment_site(tmp_path, monkeypatch) as site:
        socket = await browser.ws_connect(await opened(site, inside) + "ws")
        end = asyncio.create_task(socket.receive(timeout=30))
        await socket.send_str("hello")
        assert (await end).data == "HELLO"
        end = asyncio.create_task(socket.receive(timeout=30))

    assert (await end).data == 1001
    await until(lambda: inside.closed, "it is closed inside")


async def test_what_opens_no_websocket_is_a_bad_gateway(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with browser.ws_connect(await opened(site, inside) + "echo"):
            pass
    assert refused.value.status == 502


async def exchanged(address: str, head: str, until: bytes, body: bytes = b"") -> bytes:
    """What is answered to a head, up to where it says something; and then to a body."""
    url = URL(address)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head.format(target=url.raw_path, origin=url.origin()).encode())
    try:
        async with asyncio.timeout(30):
            heard = await reader.readuntil(until)
            if body:
                writer.write(body)
                heard += await reader.read()
            return heard
    finally:
        writer.close()


async def test_a_target_that_names_our_host_leads_inside_too(site: Site, inside: Inside) -> None:
    head = "GET {origin}{target}echo?a=b HTTP/1.1\r\nHost: x\r\n\r\n"
    heard = await exchanged(await opened(site, inside), head, b"length")
    assert b'"target": "/echo?a=b"' in heard


async def test_who_asks_before_sending_a_body_is_let(site: Site, inside: Inside) -> None:
    head = (
        "POST {target}count HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
        "Expect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    heard = await exchanged(await opened(site, inside), head, b"\r\n\r\n", b"abc")
    assert heard.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert heard.endswith(b"3")


async def test_what_leaves_http_unasked_is_a_bad_gateway(
    site: Site, browser: aiohttp.ClientSession
) -> None:
    async def switching(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(switching, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = await link(site, await environment(site, port), port)
    address = site.live.api.base_url + made.body["path"]
    heard = await exchanged(address, "GET {target} HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n")
    server.close()
    assert heard.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(("method", "data"), [("GET", None), ("POST", b"asked")])
async def test_nobody_who_listens_is_a_bad_gateway(
    site: Site,
    browser: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    data: bytes | None,
) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def babbling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"not http\r\n\r\n")
        writer.close()

    monkeypatch.setattr(passages, "ANSWER_S", 0.3)
    for talk, status in ((None, 502), (babbling, 502), (deaf, 504)):
        server = await asyncio.start_server(talk or babbling, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if talk is None:
            server.close()
        made = await link(site, await environment(site, port), port)
        async with browser.request(
            method, site.live.api.base_url + made.body["path"], data=data
        ) as answer:
            assert (answer.status, (await answer.json())["code"]) == (status, status)
        server.close()


async def test_a_link_ends_with_its_time_its_environment_and_the_right(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    async def status(address: str) -> int:
        async with browser.get(address) as answer:
            return answer.status

    address = await opened(site, inside, ttl_seconds=60)
    assert await status(address) == 200
    site.clock.advance(61)
    assert await status(address) == 401
    assert await status(site.live.api.base_url + "/preview/pv_made-up/") == 401

    owner, guest = await site.person("owner"), await site.person("guest")
    name = await environment(site, inside.port, owner)
    share = f"/api/v1/environments/{name}/shares/guest"
    await owner.call("PUT", share, {"permission": "write"})
    made = [await link(site, name, inside.port, api) for api in (owner, guest)]
    owners, guests = (site.live.api.base_url + each.body["path"] for each in made)
    assert [await status(each) for each in (owners, guests)] == [200, 200]
    await owner.call("PUT", share, {"permission": "read"})
    assert [await status(each) for each in (owners, guests)] == [200, 403]
    await owner.call("POST", "/api/auth/logout", {})
    assert await status(owners) == 401
    ended = await environment(site, inside.port)
    address = site.live.api.base_url + (await link(site, ended, inside.port)).body["path"]
    await site.admin.call("DELETE", f"/api/v1/environments/{ended}?force=true")
    assert await status(address) == 404


async def test_an_open_socket_ends_with_the_right(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    owner, guest = await site.person("owner"), await site.person("guest")
    name = await environment(site, inside.port, owner)
    share = f"/api/v1/environments/{name}/shares/guest"
    await owner.call("PUT", share, {"permission": "write"})
    made = await link(site, name, inside.port, guest)
    address = site.live.api.base_url + made.body["path"]
    async with browser.ws_connect(address + "ws") as socket:
        await socket.send_str("hello")
        await socket.receive_str(timeout=30)
        await owner.call("DELETE", share)
        end = await socket.receive(timeout=30)
        assert end.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_a_link_is_for_its_port_and_for_who_may_write(site: Site, inside: Inside) -> None:
    name = await environment(site, inside.port)
    closed = await link(site, name, 1)
    assert (closed.status, "may not be reached" in closed.body["message"]) == (409, True)
    assert (await link(site, name, 0)).status == 400
    for ttl_s in (0, 3_601):
        assert (await link(site, name, inside.port, ttl_seconds=ttl_s)).status == 400
    owner, guest = await site.person("owner"), await site.person("guest")
    theirs = await environment(site, inside.port, owner)
    assert (await link(site, theirs, inside.port, guest)).status == 404
    share = f"/api/v1/environments/{theirs}/shares/guest"
    await owner.call("PUT", share, {"permission": "read"})
    assert (await link(site, theirs, inside.port, guest)).status == 403


async def test_a_link_opens_nothing_but_its_port(site: Site, inside: Inside) -> None:
    made = await link(site, await environment(site, inside.port), inside.port)
    api = site.live.api.acting_as(x_preview=made.body["token"])
    assert (await api.call("GET", "/api/v1/environments")).status == 401


async def test_as_many_links_are_open_as_allowed(
    site: Site, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MAX_OF_ONE", 2)
    name = await environment(site, inside.port)
    statuses = [(await link(site, name, inside.port, ttl_seconds=60)).status for _ in range(3)]
    assert statuses == [201, 201, 429]
    site.clock.advance(61)
    assert (await link(site, name, inside.port)).status == 201


async def test_one_person_does_not_take_the_links_that_all_have(
    site: Site, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "MAX_OF_PERSON", 2)
    owner = await site.person("owner")
    program = await site.key(owner)
    names = [await environment(site, inside.port, owner) for _ in range(3)]
    assert (await link(site, names[0], inside.port, owner)).status == 201
    assert (await link(site, names[1], inside.port, program)).status == 201
    await owner.call("DELETE", f"/api/v1/environments/{names[0]}?force=true")
    refused = await link(site, names[2], inside.port, owner)
    assert (refused.status, "2 of yours" in refused.body["message"]) == (429, True)
    assert (await link(site, names[2], inside.port)).status == 201
    site.clock.advance(901)
    assert (await link(site, names[2], inside.port, owner)).status == 201


async def test_one_link_does_not_take_what_all_have(
    site: Site,
    inside: Inside,
    browser: aiohttp.ClientSession,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passages, "MAX_OF_LINK", 2)
    greedy, other = await opened(site, inside), await opened(site, inside)
    async with browser.get(greedy + "slow"), browser.get(greedy + "slow"):
        async with browser.get(greedy) as refused:
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
            assert "2 requests by this link" in (await refused.json())["message"]
        async with browser.get(other) as answer:
            assert answer.status == 200
    inside.gate.set()

    async def is_free() -> bool:
        async with browser.get(greedy) as answer:
            return answer.status == 200

    await until(is_free, "what was closed counts no more")


async def test_nothing_of_a_preview_stays_open(
    site: Site, inside: Inside, browser: aiohttp.ClientSession
) -> None:
    address = await opened(site, inside)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("", "echo", "cut", "away?to=/x"):
        for _ in range(3):
            async with browser.get(address + path, allow_redirects=False) as answer:
                if path != "cut":
                    await answer.read()
    (await browser.get(address + "slow")).close()
    await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before + 4, "they are closed")
