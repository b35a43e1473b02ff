"""A whole server whose environments are child processes, and ways to use them."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from steward.environments.v1.environments_pb2_grpc import EnvironmentServiceStub
from steward.environments.v1.files_pb2_grpc import FileServiceStub
from steward_server import environments
from steward_server.environments.config import EnvironmentsConfig
from steward_server.rates import RatesConfig
from steward_server.settings import Settings
from tests.child_driver import ChildDriver, Host
from tests.integration.conftest import Metadata
from tests.live import ADMIN_PASSWORD, Api, Live, TurnedClock, live_server, live_settings
from tests.people import add_person


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the attacks, in the modules that take them over for another driver too."""
    for each in items:
        if isinstance(each, pytest.Function) and ".test_attacks_" in each.function.__module__:
            each.add_marker(pytest.mark.attack)


@pytest.fixture(autouse=True)
def alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """What starves others waits until nobody else does, in whatever process."""
    if request.node.get_closest_marker("starves") is None:
        yield
        return
    with Path(__file__).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


CREATION: dict[str, Any] = {
    "name": "my-python-env",
    "image": "python:3.11-slim",
    "resources": {"cpu": "500m", "memory": "512Mi", "storage": "1Gi"},
}
UNLIMITED = RatesConfig(
    default_per_minute=0,
    address_per_minute=0,
    environment_creation_per_minute=0,
    command_execution_per_minute=0,
)
PATIENCE_S = 10


async def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait until something holds; give it."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)
    raise AssertionError(what)


@dataclass
class Site:
    """A server with its driver, and what tests do with both."""

    live: Live
    driver: ChildDriver
    clock: TurnedClock
    folder: Path

    @property
    def admin(self) -> Api:
        return self.live.admin

    @property
    def metadata(self) -> Metadata:
        return tuple(self.admin.headers.items())

    @property
    def stub(self) -> Any:
        return EnvironmentServiceStub(self.live.channel)

    @property
    def files(self) -> Any:
        return FileServiceStub(self.live.channel)

    async def person(self, username: str, role: str = "user") -> Api:
        """Somebody new, signed in."""
        add_person(self.folder, username, role=role)
        login = {"username": username, "password": ADMIN_PASSWORD}
        answer = await self.live.api.call("POST", "/api/auth/login", login)
        assert answer.status == 200, answer
        return self.live.api.acting_as(authorization=f"Bearer {answer.body['access_token']}")

    async def key(self, owner: Api, **fields: Any) -> Api:
        """A program with a key of somebody's."""
        made = await owner.call("POST", "/api/v1/api-keys", fields)
        assert made.status == 201, made
        return self.live.api.acting_as(authorization=f"Bearer {made.body['key']}")

    async def create(self, api: Api | None = None, **fields: Any) -> str:
        """An environment that was just asked for; its id."""
        self.clock.advance(0.001)  # lists are ordered by time
        made = await (api or self.admin).call("POST", "/api/v1/environments", CREATION | fields)
        assert made.status == 201, made
        return str(made.body["id"])

    async def running(self, api: Api | None = None, **fields: Any) -> str:
        """An environment that runs; its id."""
        environment_id = await self.create(api, **fields)
        await self.becomes(environment_id, "running")
        return environment_id

    async def becomes(self, environment_id: str, status: str) -> Any:
        """Wait until an environment is in a state; what it looks like then."""

        async def look() -> Any:
            answer = await self.get(environment_id)
            return answer.body if answer.status == 200 and answer.body["status"] == status else None

        return await until(look, f"{environment_id} becomes {status}")

    async def get(self, environment_id: str, api: Api | None = None) -> Any:
        return await (api or self.admin).call("GET", f"/api/v1/environments/{environment_id}")

    async def run(self, environment_id: str, *command: str, **fields: Any) -> Any:
        """Run a command; the answer's body."""
        api: Api = fields.pop("api", self.admin)
        path = f"/api/v1/environments/{environment_id}/exec"
        answer = await api.call("POST", path, {"command": command, **fields})
        assert answer.status == 200, answer
        return answer.body

    async def journal(self, environment_id: str) -> list[str]:
        """The kinds of what is written down of an environment."""
        return [row["kind"] for row in self.rows("journal", "subject", environment_id)]

    def audit(self, environment_id: str) -> list[Any]:
        return self.rows("audit_entry", "resource_id", environment_id)

    def rows(self, table: str, column: str, value: str) -> list[Any]:
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(self.folder / "steward.db")) as connection:
            connection.row_factory = sqlite3.Row
            sql = f"SELECT * FROM {table} WHERE {column} = ? ORDER BY rowid"
            return connection.execute(sql, (value,)).fetchall()


@dataclass
class Sites:
    """Starts servers on one data folder and one host."""

    folder: Path
    host: Host
    monkeypatch: pytest.MonkeyPatch
    clock: TurnedClock = field(default_factory=TurnedClock)
    config: EnvironmentsConfig = field(
        default_factory=lambda: EnvironmentsConfig(sweep_interval_s=0.02, stop_grace_s=0.5)
    )
    rates: RatesConfig = UNLIMITED
    has_images: bool = False
    """Whether the driver keeps images, and so snapshots."""

    @asynccontextmanager
    async def open(self, driver: ChildDriver | None = None, **config: Any) -> AsyncIterator[Site]:
        """A server for the block; the host and what is in the folder outlive it."""
        driver = driver or ChildDriver(self.host)
        images = driver.images if self.has_images else None
        self.monkeypatch.setattr(environments, "open_driver", lambda *_: (driver, images))
        settings = live_settings(
            self.folder,
            Settings(environments=replace(self.config, **config)),
            rates=self.rates,
        )
        async with live_server(settings, self.clock) as live:
            yield Site(live, driver, self.clock, self.folder)


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sites:
    machines = tmp_path / "machines"
    machines.mkdir()
    return Sites(tmp_path / "data", Host(machines), monkeypatch)


@pytest.fixture
async def site(sites: Sites) -> AsyncIterator[Site]:
    async with sites.open() as opened:
        yield opened
