"""Scripts that run in an environment, whose runtime wants to be rid of them."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steward_client import AsyncClient
from steward_client.channels import Address
from steward_client.environment_run import KILLED, EnvironmentRun, Program
from steward_client.errors import InvalidRequest
from tests.environment_site import environment_site
from tests.integration.environments.conftest import Site, until
from tests.live import Agent, create_agent

LOUD = "import sys\nwhile True: sys.stdout.write('x' * 65_536)"
DEAF = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up', flush=True)\n" + LOUD


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with environment_site(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
async def agent(site: Site) -> Agent:
    return await create_agent(site.admin)


@pytest.fixture
async def place(site: Site, agent: Agent) -> str:
    """An environment of the agent's that stays."""
    async with AsyncClient(site.live.running.grpc_address, token=agent.ic_token) as client:
        made = await client.environments.create("mine", image="python:3.11")
        return (await client.environments.wait_until_running(made.id)).id


@contextmanager
def unread_output() -> Iterator[Callable[[], bool]]:
    """A standard output that nobody reads, for the block; whether it is full."""
    reads, writes = os.pipe()

    def is_full() -> bool:
        return not select.select([], [writes], [], 0)[1]

    kept = os.dup(1)
    os.dup2(writes, 1)
    try:
        yield is_full
    finally:
        os.close(reads)  # first: whoever is at it writes nothing more
        os.dup2(kept, 1)
        os.close(writes)
        os.close(kept)


async def start(site: Site, agent: Agent, place: str, script: Path, *args: str) -> EnvironmentRun:
    return await EnvironmentRun.start(
        Program(script, args, {}, (), ()),
        place,
        server=Address.parse(site.live.running.grpc_address),
        ic_token=agent.ic_token,
        run_token="run",
        proxy_port=1,
        on_end=lambda _: None,
        say=lambda _: None,
        quiet=False,
    )


def luggage(site: Site, place: str) -> list[Path]:
    """What runs have left in an environment."""
    return list(site.driver.host.machines[place].folder.glob("steward-*"))


@pytest.mark.parametrize("text", [LOUD, DEAF], ids=["ends when told to", "does not"])
async def test_a_run_is_stopped_though_nobody_reads_what_it_writes(
    site: Site, agent: Agent, place: str, tmp_path: Path, text: str
) -> None:
    script = tmp_path / "loud.py"
    script.write_text(text)
    with unread_output() as is_full:
        run = await start(site, agent, place, script)
        await until(is_full, "nothing more goes in")
        assert luggage(site, place)
        async with asyncio.timeout(10):
            await run.stop(grace_s=0.2)

    assert (run.exit_code, run.fault) == (KILLED, None)
    await until(lambda: not luggage(site, place), "what was copied is tidied")


async def test_what_was_copied_for_a_run_that_is_refused_is_tidied(
    site: Site, agent: Agent, place: str, tmp_path: Path
) -> None:
    script = tmp_path / "agent.py"
    script.write_text("print('never')")
    run = await start(site, agent, place, script, *["more"] * 1_000)
    await run.ended.wait()

    assert isinstance(run.fault, InvalidRequest)
    assert "at most 1000 are allowed" in run.fault.message
    assert luggage(site, place) == []
