"""A server with real machines for benchmarks, and the bare spawns its figures are held against."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from steward.environments.v1.environments_pb2_grpc import EnvironmentServiceStub
from steward.environments.v1.files_pb2_grpc import FileServiceStub
from tests.benchmarks.harness import quantile
from tests.forking import serve_anew
from tests.live import Api, ServerProcess

ENVIRONMENTS = "/api/v1/environments"
SMALL = {"cpu": "500m", "memory": "64Mi", "storage": "16Mi"}
UNLIMITED = {
    "STEWARD_ENVIRONMENTS_DRIVER": "auto",
    "STEWARD_ENVIRONMENTS_MAX_PER_USER": "1000",
    "STEWARD_ENVIRONMENTS_MAX_TOTAL": "1000",
    "STEWARD_ENVIRONMENTS_CPU_PER_USER": "1000",
    "STEWARD_RATES_ENVIRONMENT_CREATION_PER_MINUTE": "0",
    "STEWARD_RATES_COMMAND_EXECUTION_PER_MINUTE": "0",
}


@dataclass(frozen=True, slots=True)
class Site:
    """A server, and ways to use its environments."""

    server: ServerProcess
    admin: Api
    channel: grpc.aio.Channel

    @property
    def stub(self) -> Any:
        return EnvironmentServiceStub(self.channel)

    @property
    def files(self) -> Any:
        return FileServiceStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.admin.headers.items())

    def own_channel(self) -> grpc.aio.Channel:
        """A connection that is shared with no other channel."""
        return grpc.aio.insecure_channel(
            self.server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )

    async def create(self, **fields: Any) -> str:
        """An environment that runs; its id."""
        wish = {"name": "bench", "image": "host", "resources": SMALL, "wait": 30, **fields}
        made = await self.admin.call("POST", ENVIRONMENTS, wish)
        assert made.status == 201, made
        assert made.body["status"] == "running", made
        return str(made.body["id"])

    async def echo(self, environment_id: str) -> None:
        """Run `echo` over REST."""
        path = f"{ENVIRONMENTS}/{environment_id}/exec"
        answer = await self.admin.call("POST", path, {"command": ["echo", "hi"]})
        assert answer.body["stdout"] == "hi\n", answer

    async def do(self, method: str, environment_id: str, what: str = "", status: int = 200) -> None:
        answer = await self.admin.call(method, f"{ENVIRONMENTS}/{environment_id}{what}")
        assert answer.status == status, answer

    async def delete_all(self) -> None:
        """Leave no machine behind."""
        while True:
            page = await self.admin.call("GET", f"{ENVIRONMENTS}?limit=1000")
            living = [
                each["id"]
                for each in page.body["environments"]
                if each["status"] in ("pending", "running", "terminating")
            ]
            if not living:
                return
            many = asyncio.Semaphore(8)

            async def delete(environment_id: str, many: asyncio.Semaphore = many) -> None:
                async with many:
                    path = f"{ENVIRONMENTS}/{environment_id}?force=true"
                    await self.admin.call("DELETE", path)

            await asyncio.gather(*(delete(each) for each in living))


@asynccontextmanager
async def site(**environ: str) -> AsyncIterator[Site]:
    """A server on both cores; its machines go with it."""
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        server = await ServerProcess(Path(folder), serve_anew, **UNLIMITED | environ).start()
        try:
            connector = aiohttp.TCPConnector(limit=0)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                grpc.aio.insecure_channel(server.grpc_address) as channel,
            ):
                admin = await Api(f"http://{server.http_address}", session).sign_in()
                here = Site(server, admin, channel)
                try:
                    yield here
                finally:
                    await here.delete_all()
        finally:
            server.stop()


async def timed_ms(call: Callable[[], Awaitable[object]]) -> float:
    """How long a call takes."""
    begun_s = time.perf_counter()
    await call()
    return (time.perf_counter() - begun_s) * 1e3


BARE_ROUNDS = 15
_PARTS = ("bin", "lib", "lib64", "sbin")


def bare_bwrap_ms() -> float | None:
    """The median of spawns of `echo` in all namespaces bubblewrap has; None without it."""
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/usr", "/usr"]
    for part in _PARTS:
        command += ["--symlink", f"usr/{part}", f"/{part}"]
    return _median_ms([*command, "--proc", "/proc", "--dev", "/dev", "echo", "hi"])


def bare_crun_ms() -> float | None:
    """The median of spawns of `echo` in a bundle on the machine's /usr; None without crun.

    Measured in a mount namespace without the second hierarchy of control groups, since crun refuses
    hosts that have both.
    """
    here = [sys.executable, "-m", "tests.benchmarks.environments_site"]
    hidden = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", *here],
        capture_output=True,
        text=True,
        check=False,
    )
    return float(done.stdout) if done.stdout.strip() else None


def _crun_ms() -> float | None:
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as name:
        folder = Path(name)
        root = folder / "rootfs"
        for part in ("usr", "proc", "dev"):
            (root / part).mkdir(parents=True)
        for part in _PARTS:
            (root / part).symlink_to(f"usr/{part}")
        (folder / "config.json").write_text(json.dumps(_BUNDLE))
        state = str(folder / "state")
        options = ["--root", state, "--cgroup-manager=disabled", "run", "--bundle", name]
        return _median_ms(["crun", *options, f"bench-{os.getpid()}"])


_BUNDLE: dict[str, Any] = {
    "ociVersion": "1.0.2",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["echo", "hi"],
        "env": ["PATH=/usr/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": {},
    },
    "root": {"path": "rootfs", "readonly": False},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "namespaces": [
            {"type": each} for each in ("pid", "network", "ipc", "uts", "mount", "cgroup")
        ]
    },
}


def _median_ms(command: list[str]) -> float | None:
    times_ms = []
    for _ in range(BARE_ROUNDS):
        begun_s = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            return None
        if done.stdout != b"hi\n":
            return None
        times_ms.append((time.perf_counter() - begun_s) * 1e3)
    return quantile(times_ms, 0.5)


def beside(value_ms: float, bares_ms: dict[str, float | None]) -> str:
    """How a figure stands against the bare spawns."""
    return ", ".join(
        f"{value_ms / bare_ms:.2g} x a bare {name} ({bare_ms:.3g} ms)"
        for name, bare_ms in bares_ms.items()
        if bare_ms
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes hold."""

    pss_bytes: int = 0
    page_table_bytes: int = 0

    @classmethod
    def below(cls, pid: int) -> Memory:
        """Of everything that a process has started, without itself."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found, left = [], list(children.get(pid, []))
        while left:
            found.append(left.pop())
            left += children.get(found[-1], [])
        return cls(
            sum(_kilobytes(each, "smaps_rollup", "Pss:") for each in found) * 1024,
            sum(_kilobytes(each, "status", "VmPTE:") for each in found) * 1024,
        )


def available_bytes() -> int:
    """Memory the host has left."""
    return _kilobytes("self/..", "meminfo", "MemAvailable:") * 1024


def _kilobytes(pid: int | str, file: str, key: str) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(key):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    print(_crun_ms() or "")
