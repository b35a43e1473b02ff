"""Snapshots, previews and live networks on the driver of this machine, over a killed server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_environments_drivers import (
    ENVIRONMENTS,
    RESOURCES,
    becomes,
    run,
    server_on,
    signed_in,
)
from tests.live import Api
from tests.missing import missing

SERVE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Set-Cookie", "a=b")
        self.end_headers()
        self.wfile.write(open("/workspace/note", "rb").read() + self.path.encode())
http.server.HTTPServer(("127.0.0.1", 8080), Page).serve_forever()
"""


async def made(admin: Api, image: str, **fields: Any) -> str:
    body = {"name": "kept", "image": image, "resources": RESOURCES, **fields}
    answer = await admin.call("POST", ENVIRONMENTS, body)
    assert answer.status == 201, answer
    await becomes(admin, answer.body["id"], "running")
    return str(answer.body["id"])


async def note(admin: Api, name: str, text: str = "") -> str:
    """Write a note inside, or read it."""
    script = f"echo {text} > /workspace/note" if text else "cat /workspace/note"
    return str((await run(admin, name, "sh", "-c", script))["stdout"])


async def shown(admin: Api, path: str) -> tuple[int, str]:
    async with admin.session.get(admin.base_url + path) as answer:
        assert "Set-Cookie" not in answer.headers
        return answer.status, await answer.text()


async def test_what_is_kept_of_an_environment_outlives_it_and_the_server(tmp_path: Path) -> None:
    server = server_on(tmp_path, "auto")
    await server.start()
    try:
        async with signed_in(server) as admin:
            health = (await admin.call("GET", "/api/v1/health")).body["environments"]
            if not health["usable"]:
                missing(f"no environments can be made on this machine: {health['reason']}")
            name = await made(admin, "host", env={"SECRET": "of-one"}, command=["sleep", "600"])
            await note(admin, name, "before")
            answer = await admin.call("POST", f"{ENVIRONMENTS}/{name}/snapshots", {"name": "one"})
            assert answer.status == 201, answer
            kept = answer.body
            assert kept["size_bytes"] >= len("before\n")
            await note(admin, name, "after")
        server.kill()
        await server.start()
        async with signed_in(server) as admin:
            other = await made(admin, kept["image"])
            assert await note(admin, other) == "before\n"
            told = await run(admin, other, "sh", "-c", "echo [$SECRET]")
            assert told["stdout"] == "[]\n"
            path = f"{ENVIRONMENTS}/{name}"
            back = await admin.call("POST", f"{path}/restore", {"snapshot": kept["id"]})
            assert (back.status, back.body["status"]) == (200, "pending")
            await becomes(admin, name, "running")
            assert await note(admin, name) == "before\n"
            assert (await admin.call("DELETE", f"/api/v1/snapshots/{kept['id']}")).status == 409
            for each in (name, other):
                ended = await admin.call("DELETE", f"{ENVIRONMENTS}/{each}?force=true")
                assert ended.status == 204
            assert (await admin.call("DELETE", f"/api/v1/snapshots/{kept['id']}")).status == 204
            assert not list((tmp_path / "data" / "images" / "roots").iterdir())
    finally:
        server.stop()


async def test_a_page_inside_is_shown_once_its_port_is_opened(tmp_path: Path) -> None:
    server = server_on(tmp_path, "auto")
    await server.start()
    try:
        async with signed_in(server) as admin:
            health = (await admin.call("GET", "/api/v1/health")).body["environments"]
            if not health["usable"]:
                missing(f"no environments can be made on this machine: {health['reason']}")
            name = await made(admin, "host", command=["python3", "-c", SERVE])
            await note(admin, name, "hello")
            path = f"{ENVIRONMENTS}/{name}"
            link = {"port": 8080}
            assert (await admin.call("POST", f"{path}/previews", link)).status == 409
            if "network_change" not in health["features"]:
                pytest.skip("networks are not changed here")
            ports = {"network": {"allowed_ingress_ports": [8080]}}
            assert (await admin.call("PATCH", path, ports)).status == 200
            preview = (await admin.call("POST", f"{path}/previews", link)).body["path"]
            async with asyncio.timeout(10):
                while (found := await shown(admin, preview + "a?b=c"))[0] == 502:
                    await asyncio.sleep(0.05)
            assert found == (200, "hello\n/a?b=c")
        server.kill()
        await server.start()
        async with signed_in(server) as admin:
            assert (await shown(admin, preview))[0] == 401
            again = (await admin.call("POST", f"{path}/previews", link)).body["path"]
            assert (await shown(admin, again))[0] == 200
            assert (await admin.call("PATCH", path, {"network": {}})).status == 200
            assert (await shown(admin, again))[0] == 409
            assert (await admin.call("DELETE", f"{path}?force=true")).status == 204
            assert (await shown(admin, again))[0] == 404
    finally:
        server.stop()
