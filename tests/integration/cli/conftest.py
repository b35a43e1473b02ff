"""The real `steward` command, as a process, against a server that is a process too."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.environment_site import environment_site
from tests.integration.cli import warm
from tests.integration.environments.conftest import Site
from tests.live import ADMIN_PASSWORD, ServerProcess

COMMAND = Path(sys.executable).with_name("steward")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs `steward` with a home of its own, without a terminal."""

    home: Path
    server: str
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: text for key, text in os.environ.items() if not key.startswith("STEWARD_")}
        return kept | {
            "STEWARD_HOME": str(self.home),
            "STEWARD_STATE_DIR": str(self.home / "state"),
            "STEWARD_SERVER": self.server,
            **self.environ,
        }

    async def __call__(self, *arguments: str, stdin: str = "", **environ: str) -> Ended:
        return await asyncio.to_thread(self._run, arguments, stdin, environ)

    def _run(self, arguments: tuple[str, ...], stdin: str, environ: dict[str, str]) -> Ended:
        return Ended(*warm.run(arguments, self.environment | environ, stdin))

    @contextmanager
    def running(
        self, *arguments: str, terminal: int | None = None, source: int | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on until the test has seen enough, perhaps at a terminal."""
        nowhere = subprocess.DEVNULL if source is None else source
        nowhere = nowhere if terminal is None else terminal
        errors = subprocess.PIPE if terminal is None else terminal
        with subprocess.Popen(
            [COMMAND, *arguments],
            env=self.environment,
            stdin=nowhere,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    async def sign_in(self) -> Shell:
        ended = await self("login", "--user", "admin", "--password-stdin", stdin=ADMIN_PASSWORD)
        assert ended.code == 0, ended
        return self


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server for the tests of a module."""
    data_dir = tmp_path_factory.mktemp("data")
    process = ServerProcess(data_dir, STEWARD_AUTH_LOGINS_PER_MINUTE="1000")
    asyncio.run(process.start())
    yield process
    process.stop()


@pytest.fixture
def stranger(server: ServerProcess, tmp_path: Path) -> Shell:
    """A shell in which nobody has signed in."""
    return Shell(tmp_path / "home", server.grpc_address)


@pytest.fixture(scope="module")
def signed_in_home(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a sign-in leaves behind."""
    home = tmp_path_factory.mktemp("signed-in") / "home"
    asyncio.run(Shell(home, server.grpc_address).sign_in())
    return home


@pytest.fixture
def shell(stranger: Shell, signed_in_home: Path) -> Shell:
    """A shell of the administrator."""
    shutil.copytree(signed_in_home, stranger.home)
    return stranger


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A server in this process that makes environments."""
    async with environment_site(tmp_path / "site", monkeypatch) as opened:
        yield opened


@pytest.fixture
async def operator(site: Site, tmp_path: Path) -> Shell:
    """A shell of the administrator of that server."""
    return await Shell(tmp_path / "home", site.live.running.grpc_address).sign_in()
