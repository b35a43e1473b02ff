"""Lives under chance: whatever crashes, races and fails, rows and machines agree in the end.

One simulated host outlives many servers. Callers create, delete, pause, run and look; main commands
end, machines are lost, time passes; the driver has faults; servers die between any two steps.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, ROLE_USER
from steward_server import completion
from steward_server.agents.directory import Directory
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.environments import store
from steward_server.environments.commands import Commands
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.creation import Creation, Wish
from steward_server.environments.driver import Command
from steward_server.environments.environment import Resources, Spec, State
from steward_server.environments.keeper import Keeper
from steward_server.environments.pausing import Pausing
from steward_server.environments.room import Changes, EnvironmentRoom
from steward_server.environments.snapshots import Snapshots
from steward_server.environments.tasks import Sweeper
from steward_server.errors import StewardError
from steward_server.principals import Kind, Principal
from steward_server.vault import Vault
from tests.property.environments.simulated_driver import SimDriver, SimHost

ADMIN = Principal(Kind.PERSON, "user_admin", role=ROLE_ADMIN)
USERS = [Principal(Kind.PERSON, f"user_{n}", role=ROLE_USER) for n in range(2)]
CONFIG = EnvironmentsConfig(max_per_user=6, stop_grace_s=1.0, start_timeout_s=5.0)
ROOMS = [f"steward_server.{room}" for room in ("events", "audit", "environments")]
NEXT = {
    "": {"environment.created"},
    "environment.created": {"started", "failed", "deleted", "expired"},
    "environment.started": {"stopped", "failed", "deleted", "expired"},
    "environment.expired": {"stopped", "deleted"},
    "environment.deleted": {"stopped"},
    "environment.stopped": {"deleted"},
    "environment.failed": {"deleted"},
}
ASIDE = {"environment.updated", "environment.paused", "environment.resumed"}


class Line:
    """A server's way to the database, which is cut when the server dies."""

    def __init__(self, database: Sqlite) -> None:
        self._database = database
        self.is_cut = False

    async def run(self, work: Any) -> Any:
        await self._pass()
        return await self._database.run(work)

    async def fetch_one(self, sql: str, *parameters: object) -> Any:
        await self._pass()
        return await self._database.fetch_one(sql, *parameters)

    async def fetch_all(self, sql: str, *parameters: object) -> Any:
        await self._pass()
        return await self._database.fetch_all(sql, *parameters)

    async def _pass(self) -> None:
        if self.is_cut:
            await asyncio.Event().wait()


class Story:
    """One run of chance."""

    def __init__(self, seed: int, database: Sqlite) -> None:
        self.random = random.Random(seed)
        self.database = database
        self.host = SimHost(self.random)
        self.now_us = 1_000_000_000_000
        self.vault = Vault({1: bytes(32)})
        self.calls: set[asyncio.Task[None]] = set()
        self.deleted: set[str] = set()
        self.surprises: list[BaseException] = []
        self.driver: SimDriver
        self.line: Line
        self.keeper: Keeper
        self.room: EnvironmentRoom
        self.commands: Commands
        self.creation: Creation
        self.pausing: Pausing
        self.sweeper: Sweeper

    def clock(self) -> int:
        return self.now_us

    async def start(self, *, unusable: str = "") -> None:
        """Another server on the same host and data."""
        self.driver, self.line = SimDriver(self.host, unusable=unusable), Line(self.database)
        driver: Any = self.driver
        line: Any = self.line
        self.keeper = Keeper(line, driver, self.vault, CONFIG, self.clock)
        self.room = EnvironmentRoom(line, self.keeper, Directory({}), CONFIG, self.clock)
        snapshots = Snapshots(line, self.room, None, CONFIG, self.clock)
        self.creation = Creation(line, self.room, None, snapshots, self.vault, CONFIG, self.clock)
        self.pausing = Pausing(line, self.room, self.clock)
        self.sweeper = Sweeper(line, self.room, CONFIG, self.clock)
        self.commands = Commands(line, self.room, CONFIG, self.clock)
        await self.room.start()

    async def die(self) -> None:
        """`kill -9`: nothing that is under way goes on, nothing is cleared up."""
        self.driver.is_dead = self.line.is_cut = True
        tasks = {*self.calls, *self.keeper._others, *completion._under_way}
        while tasks:  # some ask the dead for more before they end
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=0.01)
        self.calls.clear()
        await self.database.run(
            _nothing
        )  # what was on its way to the disk has arrived, or never will

    def spawn(self, call: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(self._guard(call))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        task.add_done_callback(lambda _: call.close())  # it may not even have begun

    async def _guard(self, call: Coroutine[Any, Any, object]) -> None:
        try:
            await call
        except StewardError:
            pass
        except OSError as fault:
            if "driver has a fault" not in str(fault):
                self.surprises.append(fault)
        except Exception as error:  # noqa: BLE001 - told at the end
            self.surprises.append(error)

    async def some_id(self) -> str:
        rows = await self.database.fetch_all(
            "SELECT environment_id FROM environment WHERE deleted_at_us IS NULL"
        )
        return str(self.random.choice([row["environment_id"] for row in rows] or ["env-none"]))

    async def step(self) -> None:
        """One thing that may happen."""
        chance, name = self.random, await self.some_id()
        caller = chance.choice([ADMIN, *USERS])
        room = self.room
        match chance.choice(STEPS):
            case "create":
                wish = Wish(
                    "name",
                    Spec("image", Resources(100, 2**24, 2**20), env={"A": "b"}),
                    timeout_s=chance.choice([10, 100, 1000]),
                    idle_timeout_s=chance.choice([None, 20]),
                )
                self.spawn(self.creation.create(caller, wish))
            case "delete":
                self.spawn(self.delete(caller, name, force=chance.random() < 0.3))
            case "pause":
                self.spawn(self.pausing.pause(caller, name))
            case "resume":
                self.spawn(self.pausing.resume(caller, name))
            case "exec":
                command = Command(("true",))
                self.spawn(self.commands.run(caller, name, command, timeout_s=5, stdin=b""))
            case "update":
                self.spawn(room.update(caller, name, Changes(timeout_s=500)))
            case "look":
                self.spawn(room.get(caller, name))
            case "sweep":
                self.spawn(self.sweeper.sweep())
            case "time":
                self.now_us += chance.choice([1, 5, 30]) * 1_000_000
                self.spawn(self.sweeper.sweep())
            case "main ends":
                self.host.end(name, chance.choice([0, 0, 1]))
            case "machine is lost":
                self.host.lose(name)
            case "faults":
                self.host.fault_rate = chance.choice([0.0, 0.0, 0.1, 0.3])
            case "leave":
                for call in list(self.calls)[:1]:
                    call.cancel()
            case "die":
                await self.die()
                await self.start(unusable="no root" if chance.random() < 0.2 else "")
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            await asyncio.sleep(0.002)

    async def delete(self, caller: Principal, name: str, *, force: bool) -> None:
        await self.room.delete(caller, name, force=force)
        self.deleted.add(name)

    async def settle(self) -> None:
        """No more faults, one more start, and time for everything that is under way."""
        self.host.fault_rate = 0.0
        if self.keeper.ability.capabilities().unusable or self.random.random() < 0.5:
            await self.die()
            await self.start()
        async with asyncio.timeout(20):
            while (
                self.calls or self.keeper._making or self.keeper._ending or await self.unsettled()
            ):
                await self.sweeper.sweep()
                await asyncio.sleep(0.005)

    async def unsettled(self) -> bool:
        living = await store.living(self.database)
        running = {
            each.environment.environment_id
            for each in living
            if each.environment.state is State.RUNNING
        }
        for each in living:
            machine = self.host.machines.get(each.environment.environment_id)
            if machine is not None and machine.is_paused is not each.environment.paused:
                return True
        whole = {
            name for name, each in self.host.machines.items() if each.exit is None and each.is_whole
        }
        return len(running) < len(living) or running != whole or whole != self.host.machines.keys()

    async def check(self) -> None:
        assert self.surprises == []
        rows = await self.database.fetch_all("SELECT * FROM environment")
        for row in rows:
            name, machine = row["environment_id"], self.host.machines.get(row["environment_id"])
            if row["state"] == "running":
                assert machine is not None
                assert machine.start_count == 1
                assert machine.is_paused is bool(row["paused"])
            else:
                assert row["state"] in ("terminated", "failed")
                assert machine is None
                assert row["sealed_env"] is None
                assert row["ended_at_us"] is not None
                assert row["reason"]
            if name in self.deleted:
                assert row["deleted_at_us"] is not None
            await self.check_journal(row)
        known = {row["environment_id"] for row in rows}
        assert self.host.machines.keys() <= known

    async def check_journal(self, row: Any) -> None:
        entries = await self.database.fetch_all(
            "SELECT kind FROM journal WHERE subject = ? ORDER BY lsn", row["environment_id"]
        )
        kinds = [each["kind"] for each in entries if each["kind"] not in ASIDE]
        audited = await self.database.fetch_all(
            "SELECT action FROM audit_entry WHERE resource_id = ? AND action <> ? ORDER BY number",
            row["environment_id"],
            "environment.command_executed",
        )
        assert [each["action"] for each in audited] == [each["kind"] for each in entries]
        before = ""
        for kind in kinds:
            allowed = {each if "." in each else f"environment.{each}" for each in NEXT[before]}
            assert kind in allowed, kinds
            before = kind
        if row["deleted_at_us"] is not None:
            assert "environment.deleted" in kinds
            assert {"environment.stopped", "environment.failed"} & set(kinds)


STEPS = [
    *["create"] * 5,
    *["delete"] * 3,
    *["exec"] * 3,
    *["pause", "resume"] * 2,
    *["sweep", "time", "update", "look", "leave"],
    *["main ends", "machine is lost", "faults", "die"],
]


async def _nothing(transaction: Any) -> None:
    del transaction


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Sqlite]:
    database = await Sqlite.open(path)
    try:
        await migrate(database, ROOMS)
        yield database
    finally:
        await database.close()


async def tell(seed: int, path: Path, steps: int) -> Story:
    async with opened(path) as database:
        story = Story(seed, database)
        await story.start()
        try:
            for _ in range(steps):
                await story.step()
            await story.settle()
            await story.check()
        finally:
            await story.die()
        return story


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_rows_and_machines_agree_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("story")
    asyncio.run(tell(seed, folder / "steward.db", 60))


def test_stories_are_not_dull(tmp_path: Path) -> None:
    """Machines are made and ended, and some of each state is seen."""
    story = asyncio.run(tell(7, tmp_path / "steward.db", 200))
    assert story.host.made_count > 10
    assert story.deleted


@pytest.mark.proof
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=1_500)
def test_they_agree_in_many_long_stories(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("story")
    asyncio.run(tell(seed, folder / "steward.db", 150))
