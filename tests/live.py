"""Whole servers for tests: one in this process, and one as a process of its own to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import grpc

from steward_server.app import ROOMS, Running, serving
from steward_server.budget.pricing import PriceBook
from steward_server.config import ServerConfig
from steward_server.db import now_us
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.environments.config import EnvironmentsConfig
from steward_server.inference.config import InferenceConfig
from steward_server.rates import RatesConfig
from steward_server.settings import Settings
from tests import forking
from tests.forking import Process, Start

ADMIN_PASSWORD = "a long walk in the rain"
UNLIMITED = RatesConfig(default_per_minute=0, address_per_minute=0)
"""Tests call faster than people do."""
UNLIMITED_VARIABLES = {
    "STEWARD_RATES_DEFAULT_PER_MINUTE": "0",
    "STEWARD_RATES_ADDRESS_PER_MINUTE": "0",
}
PROVIDER_KEY = "sk-live-canary-0123456789abcdef"
START_TIMEOUT_S = 30


class TurnedClock:
    """Microseconds since 1970, from the time it was made; moves only when told to."""

    def __init__(self) -> None:
        self.now_us = now_us()

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    body: Any
    headers: dict[str, str]


@dataclass(slots=True)
class Api:
    """Calls a server's REST paths, as a dashboard or a runtime would."""

    base_url: str
    session: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=dict)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send `body` as JSON; header names are given with underscores."""
        sent = self.headers | {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.session.request(
            method, self.base_url + path, json=body, headers=sent
        ) as response:
            text = await response.text()
            is_json = response.content_type == "application/json" and text
            return Answer(
                response.status,
                await response.json() if is_json else text,
                dict(response.headers),
            )

    def acting_as(self, **headers: str) -> Api:
        """The same server, called with other credentials."""
        return replace(self, headers={name.replace("_", "-"): v for name, v in headers.items()})

    async def sign_in(self, password: str = ADMIN_PASSWORD) -> Api:
        """The same server, called by the administrator."""
        login = {"username": "admin", "password": password}
        answer = await self.call("POST", "/api/auth/login", login)
        assert answer.status == 200, answer
        return self.acting_as(authorization=f"Bearer {answer.body['access_token']}")


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent with its credential."""

    agent_id: str
    token_id: str
    ic_token: str

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-ic-key", self.ic_token),)


async def create_provider(
    admin: Api,
    *,
    name: str = "openai",
    base_url: str = "http://127.0.0.1:9",
    key: str = PROVIDER_KEY,
) -> None:
    body = {"name": name, "base_url": base_url, "api_key": key}
    answer = await admin.call("POST", "/api/v1/providers", body)
    assert answer.status == 201, answer


async def create_agent(admin: Api, *, budget_usd: float = 10, name: str = "test") -> Agent:
    body = {"name": name, "budget_usd": budget_usd}
    created = await admin.call("POST", "/api/v1/agents", body)
    assert created.status == 201, created
    agent_id = created.body["id"]
    token = await admin.call("POST", "/api/tokens", {"agent_id": agent_id})
    assert token.status == 201, token
    return Agent(agent_id, token.body["id"], token.body["token"])


def live_settings(
    data_dir: Path,
    settings: Settings | None = None,
    *,
    rates: RatesConfig = UNLIMITED,
    **server: Any,
) -> Settings:
    """Settings of a test's server: free ports, a known password, as many calls as it likes."""
    config = ServerConfig(
        **{
            "data_dir": data_dir,
            "http_port": 0,
            "grpc_port": 0,
            "admin_password": ADMIN_PASSWORD,
            "drain_s": 1.0,
            **server,
        }
    )
    chosen = settings or Settings()
    if chosen.environments == EnvironmentsConfig():
        # A driver tries out what it can do; most tests are not about that.
        chosen = replace(chosen, environments=EnvironmentsConfig(driver="off"))
    if chosen.inference == InferenceConfig():
        # Policies are loaded by those tests that step.
        chosen = replace(chosen, inference=InferenceConfig(load="demand"))
    return replace(chosen, server=config, rates=rates)


@dataclass(frozen=True, slots=True)
class Live:
    """A server in this process, and ways to call it."""

    running: Running
    api: Api
    admin: Api
    channel: grpc.aio.Channel


_fresh: bytes = b""
"""A database with every table and the prices that ship, once this process has made one."""


async def lay_tables(data_dir: Path) -> None:
    """Where there is no database, put a fresh one: to make it takes half of a start."""
    global _fresh  # noqa: PLW0603 - made once for hundreds of servers
    if not _fresh:
        with tempfile.TemporaryDirectory() as folder:
            database = await Sqlite.open(Path(folder) / "steward.db")
            await migrate(database, ROOMS)
            await PriceBook(database).start(now_us())
            await database.close()
            _fresh = (Path(folder) / "steward.db").read_bytes()
    file = data_dir / "steward.db"
    if not file.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(_fresh)


@asynccontextmanager
async def live_server(settings: Settings, clock: Callable[[], int] = now_us) -> AsyncIterator[Live]:
    """Start a whole server on free ports, signed in to as the administrator."""
    await lay_tables(settings.server.data_dir)
    async with (
        serving(settings, clock) as running,
        aiohttp.ClientSession() as session,
        grpc.aio.insecure_channel(running.grpc_address) as channel,
    ):
        api = Api(f"http://{running.http_address}", session)
        yield Live(running, api, await api.sign_in(), channel)


def port_to_return_to() -> int:
    """A free port that is still free when a server that had it starts again.

    Those that the system hands out (from 32768 on Linux) may go to anybody meanwhile.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """`steward serve` as a process: started, killed without warning, started again."""

    def __init__(self, data_dir: Path, start: Start = forking.serve, /, **environ: str) -> None:
        self.data_dir = data_dir
        self._begin = start
        self._environ = environ
        self._process: Process | None = None
        self._ports = {
            "STEWARD_HTTP_PORT": str(port_to_return_to()),
            "STEWARD_GRPC_PORT": str(port_to_return_to()),
        }
        self.grpc_address = ""
        self.http_address = ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> Self:
        """Start and wait for `ready`; on the same ports each time."""
        return await asyncio.to_thread(self._start)

    def _start(self) -> Self:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("STEWARD_")}
        variables = (
            kept
            | self._ports
            | UNLIMITED_VARIABLES
            | {
                "STEWARD_DATA_DIR": str(self.data_dir),
                "STEWARD_ADMIN_PASSWORD": ADMIN_PASSWORD,
                "STEWARD_LOG_LEVEL": "warning",
                "STEWARD_ENVIRONMENTS_DRIVER": "off",
                "STEWARD_INFERENCE_LOAD": "demand",
                "STEWARD_ENVIRONMENTS_RUNSC": "",  # a trial of it takes as long as all the rest
            }
            | self._environ
        )
        reader, writer = os.pipe()
        self._said = os.fdopen(reader)
        with os.fdopen(writer, "w") as given:
            self._process = self._begin(variables, Path.cwd(), given.fileno(), 2)
        line = self._said.readline()
        found = re.match(r"ready grpc=(\S+) http=https?://(\S+)", line)
        assert found, f"the server did not start: {line!r}"
        self.grpc_address, self.http_address = found[1], found[2]
        return self

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop, and give its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        code = self._process.wait(START_TIMEOUT_S)
        self._said.close()
        return code
