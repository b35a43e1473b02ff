"""A stand-in for an Ignition gateway, 8.3, on loopback: as good as one, and as bad as told.

People sign in by the challenges of its identity provider, each with a token that works once. A
session is a cookie; what changes something needs the session's CSRF token as well. API keys work
without. Modules are uploaded, accepted and installed, one over another waits for a restart, and a
restart takes a while in which only the state is told, and ends all sessions.
`python -m tests.ignition_gateway --port 0` runs one by itself and prints its URL.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import ssl
import time
import zipfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from io import BytesIO
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from aiohttp import web

API = "/data/api/v1"
VERSION = "8.3.6 (b2026042713)"
PAGE = "<html><head><title>Not an Ignition gateway</title></head><body>Hello</body></html>"
_CHUNK = b"x" * 65_536


class Fault(StrEnum):
    """How it can misbehave."""

    SLOW = "slow"
    """It takes the request, and does not answer."""
    CUT = "cut"
    """It closes the connection in the middle of an answer."""
    DROP = "drop"
    """It closes the connection without one."""
    HTML = "html"
    """A page instead of data."""
    GARBAGE = "garbage"
    """Something that is no JSON."""
    LYING = "lying"
    """JSON of another shape."""
    ENDLESS = "endless"
    """An answer that does not end."""
    NOT_HTTP = "not_http"
    """Something else than HTTP."""
    ELSEWHERE = "elsewhere"
    """A redirect to another host."""
    HTTPS = "https"
    """A redirect to the same path by https."""
    LOOP = "loop"
    """A redirect to the same place."""
    NOT_SET_UP = "not_set_up"
    """A redirect to the page of a gateway that nobody has set up."""


@dataclass
class Module:
    """A module that is installed, or was only uploaded.

    Attributes:
        next_version: what was installed over it, and runs after a restart.
        reason: why it is quarantined.
        starts_at_s: when it runs by itself, if it is to.
    """

    id: str
    name: str
    version: str
    state: str = "ACTIVE"
    description: str = ""
    on_startup: str = "enabled"
    next_version: str = ""
    reason: str = ""
    starts_at_s: float | None = None
    fails: bool = False

    def start(self) -> None:
        """Start it, in its newest version."""
        self.version, self.next_version = self.next_version or self.version, ""
        self.starts_at_s = None
        self.state = "FAULTED" if self.fails else "ACTIVE"


@dataclass
class Gateway:
    """The gateway, as far as a client sees one.

    Attributes:
        installs_live_s: after how many seconds a new module runs without a restart; None if it
            waits for one, as it does in fact.
        grace_s: how long it runs on after it was told to restart.
        restart_s: how long it is away then.
        faults: of paths, how they misbehave; "" is for every one.
        statuses: of paths, what they answer with instead.
        answers: of paths, what they say instead, as JSON.
        requests: what was asked, as `GET /path`.
        uploads: of the modules that came, how large they were.
    """

    url: str = ""
    users: dict[str, str] = field(default_factory=lambda: {"admin": "a-secret-of-admin"})
    api_keys: dict[str, str] = field(default_factory=lambda: {"steward": "a-key-of-steward"})
    installs_live_s: float | None = None
    grace_s: float = 0.05
    restart_s: float = 0.1
    wants: str = ""
    """What signing in needs beside a password: `passwordExpired` or another."""
    accepts_terms: bool = True
    """Whether the certificate and the licence of all modules are accepted already."""
    faults: dict[str, Fault] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    uploads: list[int] = field(default_factory=list)
    under_way: int = 0
    failed_sign_ins: int = 0
    restarts: int = 0
    started_at_s: float = field(default_factory=time.monotonic)
    modules: dict[str, Module] = field(default_factory=dict)
    projects: list[dict[str, Any]] = field(default_factory=list)
    _uploaded: dict[str, Module] = field(default_factory=dict)
    _accepted: set[tuple[str, str]] = field(default_factory=set)
    _challenges: dict[str, str] = field(default_factory=dict)
    """Tokens that are good, and what for."""
    _sessions: dict[str, str] = field(default_factory=dict)
    """CSRF tokens of cookies."""
    _restart_at_s: float | None = None

    def __post_init__(self) -> None:
        perspective = Module("com.inductiveautomation.perspective", "Perspective", "8.3.6 (b1)")
        perspective.description = "Builds sessions for browsers."
        mqtt = Module("com.cirrus-link.mqtt", "MQTT Engine", "5.0.1 (b2)")
        for each in (perspective, mqtt):
            self.modules.setdefault(each.id, each)
        if not self.projects:
            self.projects += [
                {"name": "base", "title": "Base", "enabled": True, "inheritable": True},
                {
                    "name": "Line 1/A",
                    "title": "Line 1",
                    "enabled": False,
                    "description": "The first line",
                    "parent": "base",
                },
            ]

    @property
    def state(self) -> str:
        """RUNNING, or STARTING while it restarts."""
        is_away = self._restart_at_s is not None and time.monotonic() >= self._restart_at_s
        return "STARTING" if is_away else "RUNNING"

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(each.split(" ", 1)[1] == path for each in self.requests)

    def end_sessions(self) -> None:
        self._sessions.clear()

    def _go_on(self) -> None:
        """Let happen what is due."""
        now_s = time.monotonic()
        for each in self.modules.values():
            if each.starts_at_s is not None and now_s >= each.starts_at_s:
                each.start()
        if self._restart_at_s is None or now_s < self._restart_at_s:
            return
        self._sessions.clear()
        if now_s < self._restart_at_s + self.restart_s:
            return
        self.started_at_s = self._restart_at_s + self.restart_s
        self._restart_at_s = None
        self.restarts += 1
        for each in self.modules.values():
            if each.next_version or (each.on_startup == "enabled" and each.state == "INACTIVE"):
                each.start()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """What a request is answered with."""
        path = unquote(request.rel_url.raw_path)
        self._go_on()
        self.requests.append(f"{request.method} {path}")
        self.under_way += 1
        try:
            fault = self.faults.get(path) or self.faults.get("")
            if fault is not None:
                return await self._misbehave(request, fault)
            status = self.statuses.get(path, 200)
            if path in self.answers:
                text = self.answers[path]
                return web.Response(status=status, text=text, content_type="application/json")
            if path in self.statuses:
                return _error(status, path)
            return await self._serve(request, path)
        finally:
            self.under_way -= 1

    async def _serve(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        route = (request.method, path)
        if route == ("GET", "/StatusPing"):
            return _json({"state": self.state})
        if self.state != "RUNNING":
            return _error(503, path)
        if path.startswith(("/idp/", "/data/app/", "/data/federate/")):
            return await self._people(request, path)
        if not path.startswith(f"{API}/"):
            return _json({"message": f"No route match for path: {path}", "status": 404}, 404)
        allowed = self._allowed(request)
        if allowed != 200:
            return _error(allowed, path)
        return await self._api(request, request.method, path.removeprefix(API))

    def _allowed(self, request: web.BaseRequest) -> int:
        api_key = request.headers.get("X-Ignition-API-Token")
        if api_key is not None:
            name, _, key = api_key.partition(":")
            return 200 if key and self.api_keys.get(name) == key else 401
        csrf_token = self._sessions.get(request.cookies.get("webui-sid-1", ""))
        if csrf_token is None:
            return 401
        if request.method != "GET" and request.headers.get("X-CSRF-Token") != csrf_token:
            return 403
        return 200

    async def _api(self, request: web.BaseRequest, method: str, path: str) -> web.StreamResponse:
        match method, path:
            case "GET", "/gateway-info":
                licence = {"mode": "Trial", "licenseRestrictions": []}
                about = {"name": "Stand-in", "edition": "standard", "ignitionVersion": VERSION}
                return _json({**about, "jvmVersion": "17.0.18", "license": licence})
            case "GET", "/overview":
                uptime_ms = round((time.monotonic() - self.started_at_s) * 1_000)
                return _json({"version": VERSION, "uptime": uptime_ms, "cpu": 0.0031})
            case "GET", "/systemPerformance/currentGauges":
                memory = {"heapMemory": 240_000_000, "maxMemory": 1_073_741_824}
                return _json({"cpu": 4.88, **memory})
            case "GET", "/systemPerformance/threads":
                return _json({"running": 32, "waiting": 39, "timedWaiting": 51, "blocked": 0})
            case "GET", "/modules/healthy":
                return _items(self._told(each) for each in self.modules.values() if not each.reason)
            case "GET", "/modules/quarantined":
                return _items(self._told(each) for each in self.modules.values() if each.reason)
            case "POST", "/modules/upload":
                return await self._upload(request)
            case "POST", "/modules/certificate" | "/modules/eula" | "/modules/install":
                return self._terms(request.query.get("moduleId", ""), path.rsplit("/", 1)[1])
            case "GET", "/projects/list":
                return _items(self.projects)
            case "POST", "/restart-tasks/restart" if request.query.get("confirm") == "true":
                self._restart_at_s = time.monotonic() + self.grace_s
                return _json(data=True)
        if method == "GET" and path.startswith("/projects/find/"):
            name = path.removeprefix("/projects/find/")
            found = [each for each in self.projects if each["name"] == name]
            return _json(found[0]) if found else _json({}, 404)
        return _json({"message": f"No route match for path: {path}", "status": 404}, 404)

    @staticmethod
    def _told(module: Module) -> dict[str, Any]:
        told = {
            "id": module.id,
            "name": module.name,
            "version": module.version,
            "description": module.description,
            "onStartup": module.on_startup,
            "licenseState": "ACTIVATED" if "inductive" in module.id else "FREE",
        }
        if module.reason:
            return {**told, "reason": module.reason}
        return {**told, "state": module.state, "shouldUpgrade": bool(module.next_version)}

    async def _upload(self, request: web.BaseRequest) -> web.StreamResponse:
        content = BytesIO(await request.content.read())
        self.uploads.append(len(content.getvalue()))
        try:
            with zipfile.ZipFile(content) as archive:
                root = ET.fromstring(archive.read("module.xml"))
        except (zipfile.BadZipFile, KeyError, ET.ParseError):
            return _json({"message": "The file is not a valid module.", "status": 400}, 400)
        module_id, name, version = (
            root.findtext(f"module/{each}", "") for each in ("id", "name", "version")
        )
        fails = root.find("module/fails") is not None
        module = Module(module_id, name, version, fails=fails)
        self._uploaded[module.id] = module
        accepted = {
            key: self.accepts_terms or (module.id, what) in self._accepted
            for what, key in (("certificate", "certAccepted"), ("eula", "licenseAccepted"))
        }
        return _json(
            {"moduleId": module.id, "containsCert": True, "containsEula": True, **accepted}
        )

    def _terms(self, module_id: str, what: str) -> web.StreamResponse:
        if module_id not in self._uploaded:
            return _json({"message": f"No module {module_id} was uploaded."}, 404)
        if what != "install":
            is_new = (module_id, what) not in self._accepted
            self._accepted.add((module_id, what))
            return _json({"success": True}) if is_new else _json({}, 409)
        new = self._uploaded.pop(module_id)
        missing = {(module_id, "certificate"), (module_id, "eula")} - self._accepted
        if missing and not self.accepts_terms:
            new.reason = "Certificate has not been accepted."
        old = self.modules.get(module_id)
        if old is not None and old.state == "ACTIVE":
            old.next_version = new.version
        else:
            new.state = "INACTIVE"
            if self.installs_live_s is not None:
                new.starts_at_s = time.monotonic() + self.installs_live_s
            self.modules[module_id] = new
        return _json({"success": True, "message": "Module successfully installed."})

    async def _people(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """How they sign in and out."""
        query = "app=gateway&response_type=code&client_id=ignition&state=st&nonce=nc"
        token = request.query.get("token", "")
        match request.method, path:
            case "GET", "/data/app/login":
                answer = _redirect(f"/idp/default/oidc/auth?{query}")
                answer.set_cookie("idp-relay-1", "relay", httponly=True)
                return answer
            case "GET", "/idp/default/oidc/auth" if not token:
                answer = _redirect(
                    f"/idp/default/authn/login?{query}&token={self._challenge('begun')}"
                )
                answer.set_cookie("idp-sid-1", "sid", path="/idp/default", samesite="Strict")
                return answer
            case "GET", "/idp/default/oidc/auth":
                if self._spent(request, token) != "complete":
                    return _error(400, path)
                code = self._challenge("code")
                return _redirect(f"/data/federate/callback/internal?code={code}&state=st")
            case "GET", "/data/federate/callback/internal":
                if self._challenges.pop(request.query.get("code", ""), "") != "code":
                    return _error(400, path)
                answer, session = _redirect("/app"), secrets.token_urlsafe()
                self._sessions[session] = secrets.token_urlsafe()
                answer.set_cookie("webui-sid-1", session, httponly=True, samesite="Strict")
                return answer
            case "GET", "/data/app/session":
                csrf_token = self._sessions.get(request.cookies.get("webui-sid-1", ""))
                if csrf_token is None:
                    return _json({"message": "Unauthorized", "url": path, "status": 401}, 401)
                return _json({"csrfToken": csrf_token, "userPayload": {"user": {}}})
            case "GET", "/data/app/logout":
                self._sessions.pop(request.cookies.get("webui-sid-1", ""), None)
                return _redirect("/app")
        if request.method == "POST" and path.startswith("/idp/default/authn/"):
            return await self._authn(request, path.removeprefix("/idp/default/authn/"))
        return _error(404, path)

    async def _authn(self, request: web.BaseRequest, what: str) -> web.StreamResponse:
        given = await request.json()
        reached = self._spent(request, given.get("token", ""))
        match what, reached:
            case "next-challenge", "begun":
                asked = [{"type": "basic", "config": {}}]
                token = self._challenge("asked")
                return _json({"complete": False, "nextChallenge": asked, "token": token})
            case "submit-challenge/basic", "asked":
                challenge = given["challenge"]
                known = self.users.get(challenge["username"])
                is_right = known is not None and known == challenge["password"]
                self.failed_sign_ins += not is_right
                token = self._challenge("entered" if is_right else "begun")
                return _json({"success": is_right, "token": token})
            case "next-challenge", "entered" if self.wants:
                token = self._challenge("asked")
                return _json({"complete": False, self.wants: True, "token": token})
            case "next-challenge", "entered":
                return _json({"complete": True, "token": self._challenge("complete")})
        return _error(400, request.path)

    def _challenge(self, what: str) -> str:
        token = secrets.token_urlsafe()
        self._challenges[token] = what
        return token

    def _spent(self, request: web.BaseRequest, token: str) -> str:
        """What a token was good for; nothing without the cookie that it came with."""
        return self._challenges.pop(token, "") if "idp-sid-1" in request.cookies else ""

    async def _misbehave(self, request: web.BaseRequest, fault: Fault) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        match fault:
            case Fault.SLOW:
                await asyncio.sleep(60)
            case Fault.HTML:
                return web.Response(text=PAGE, content_type="text/html")
            case Fault.GARBAGE:
                return web.Response(text="}{", content_type="application/json")
            case Fault.LYING:
                return _json({"items": {"state": ["RUNNING"]}, "token": 7})
            case Fault.ELSEWHERE:
                return _redirect("http://elsewhere.invalid/data?token=a-secret-of-elsewhere")
            case Fault.HTTPS:
                return _redirect(f"https://127.0.0.1:8043{request.rel_url.raw_path}")
            case Fault.LOOP:
                return _redirect(str(request.rel_url))
            case Fault.NOT_SET_UP:
                return _redirect("/welcome")
            case Fault.CUT:
                transport.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"state": "RUN')
            case Fault.NOT_HTTP:
                transport.write(b"220 mail.example ESMTP\r\n")
            case Fault.ENDLESS:
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                await response.prepare(request)
                with suppress(ConnectionError):
                    while True:
                        await response.write(_CHUNK)
                return response
            case Fault.DROP:
                pass
        transport.close()
        return web.Response()

    @asynccontextmanager
    async def served(
        self, port: int = 0, *, certificate: ssl.SSLContext | None = None
    ) -> AsyncIterator[Gateway]:
        """Serve, for as long as the block lasts."""
        server = web.Server(self.answer, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=certificate)
            await site.start()
            scheme = "http" if certificate is None else "https"
            self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()


def module_file(
    module_id: str = "com.example.pump",
    name: str = "Pump",
    version: str = "1.0.0",
    *,
    fails: bool = False,
    padding: int = 0,
) -> bytes:
    """A module, as a file; with `padding` more bytes."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        fault = "<fails/>" if fails else ""
        about = f"<id>{module_id}</id><name>{name}</name><version>{version}</version>{fault}"
        archive.writestr("module.xml", f"<modules><module>{about}</module></modules>")
        archive.writestr("padding", bytes(padding))
    return content.getvalue()


def _json(data: Any, status: int = 200) -> web.Response:
    return web.json_response(data, status=status)


def _items(items: Iterable[dict[str, Any]]) -> web.Response:
    listed = [*items]
    counts = {"total": len(listed), "matching": len(listed), "limit": -1, "offset": 0}
    return _json({"items": listed, "metadata": counts})


def _error(status: int, path: str) -> web.Response:
    """A page, as the server inside the gateway makes it."""
    text = (
        f"<html><head><title>Error {status}</title></head><body><h2>HTTP ERROR {status}</h2>"
        f"<table><tr><th>URI:</th><td>{path}</td></tr></table></body></html>"
    )
    return web.Response(status=status, text=text, content_type="text/html")


def _redirect(location: str) -> web.Response:
    return web.Response(status=302, headers={"Location": location})


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in for an Ignition gateway.")
    parser.add_argument("--port", type=int, default=8088, help="0 picks a free one")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--password", default="password")
    parser.add_argument("--restart-s", type=float, default=3, help="how long a restart takes")
    parser.add_argument(
        "--installs-live-s",
        type=float,
        help="a new module runs after so many seconds; without this, after a restart",
    )
    parser.add_argument(
        "--fault",
        metavar="PATH=FAULT",
        action="append",
        default=[],
        help=f"misbehave at a path, or everywhere without one: {', '.join(Fault)}",
    )
    given = parser.parse_args()
    faults = [each.rpartition("=") for each in given.fault]
    gateway = Gateway(
        users={given.user: given.password},
        faults={path: Fault(fault) for path, _, fault in faults},
        installs_live_s=given.installs_live_s,
        grace_s=min(1, given.restart_s),
        restart_s=given.restart_s,
    )
    async with gateway.served(given.port):
        print(gateway.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
