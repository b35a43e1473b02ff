"""The way to an engine: Docker's API, which Podman speaks too."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from steward_server.environments.driver import Away, Unusable

_SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock", "/var/run/docker.sock")
_NO_CONNECTION = 900
"""What aiodocker calls it when nobody answers."""
_CONNECT_S = 10.0
_ANSWER_S = 120.0
_LEAST_API = (1, 40)
"""Of Docker 19.03; from then on both engines take all that is sent."""
_DISKS_WITH_QUOTAS = ("btrfs", "zfs", "windowsfilter")
_KERNELS_OF_THEIR_OWN = re.compile("runsc|gvisor|kata|krun|wasm|nabla")
"""Runtimes whose processes are not this kernel's: their commands cannot be seen from here."""


class Engine:
    """One engine, reached by its socket.

    `url` is such as `unix:///run/docker.sock`; empty: what DOCKER_HOST names, or the first socket
    of Docker or Podman that is there.
    """

    def __init__(self, url: str = "") -> None:
        self._wanted = url
        self.url = url
        self._docker: Docker | None = None
        self.name = "engine"
        self.version = ""
        self.runtimes: tuple[str, ...] = ()
        self.root: Path | None = None
        """Where it keeps images and containers, if that can be seen from here."""
        self.holds_disk = False
        """Whether it can limit what a container writes to its root."""

    @property
    def docker(self) -> Docker:
        """Its client.

        Raises:
            Away: it was not reached.
        """
        if self._docker is None:
            raise Away("NO_ENGINE", self.lacking("it was not reached yet"))
        return self._docker

    @property
    def is_podman(self) -> bool:
        return self.name == "podman"

    @property
    def command(self) -> str:
        """The program by which people use it."""
        return "podman" if self.is_podman else "docker"

    def lacking(self, why: object) -> str:
        """Why there is no engine, and what to do."""
        return (
            f"no container engine answers at {self.url or 'any known socket'} ({why}); start "
            "Docker, or `podman system service --time=0`, and name its socket with "
            "STEWARD_ENVIRONMENTS_CONTAINER_ENGINE or DOCKER_HOST, such as "
            "unix:///run/podman/podman.sock"
        )

    async def open(self) -> None:
        """Reach it, and learn what it can.

        Raises:
            Away: it does not answer.
            Unusable: reason NO_ENGINE, it is not on this host; or OLD_ENGINE.
        """
        await self.aclose()
        self.url = self._wanted or os.environ.get("DOCKER_HOST", "") or _first_socket()
        if not self.url:
            raise Away("NO_ENGINE", self.lacking("there is none"))
        if not self.url.startswith("unix://"):
            raise Unusable(
                "NO_ENGINE",
                self.lacking(
                    "machines are watched through this host's /proc and control groups, so its "
                    "engine has to be on this host and be reached by a Unix socket"
                ),
            )
        timeout = aiohttp.ClientTimeout(
            total=_ANSWER_S, sock_connect=_CONNECT_S, sock_read=_ANSWER_S
        )
        connector = aiohttp.UnixConnector(self.url.removeprefix("unix://"), limit=0)
        self._docker = Docker("unix://localhost", connector=connector, timeout=timeout)
        # aiodocker closes a connector that it has made itself only.
        try:
            async with self.asked():
                version, info = await self.facts()
        except DockerError as error:
            raise Away("NO_ENGINE", self.lacking(error.message)) from None
        parts = [each["Name"] for each in version.get("Components") or ()]
        self.name = "podman" if any("Podman" in name for name in parts) else "docker"
        self.version = version["Version"]
        numbers = tuple(int(part) for part in version["ApiVersion"].split(".")[:2])
        if numbers < _LEAST_API:
            raise Unusable(
                "OLD_ENGINE",
                f"{self.name} {self.version} speaks version {version['ApiVersion']} of the engine "
                f"API; 1.40 or later is needed, as from Docker 19.03",
            )
        self.root = _folder_here(info.get("DockerRootDir") or "")
        self.runtimes = _usable(info.get("Runtimes") or {})
        disk = dict(row for row in info.get("DriverStatus") or () if len(row) == 2)
        self.holds_disk = (
            info.get("Driver") in _DISKS_WITH_QUOTAS or disk.get("Backing Filesystem") == "xfs"
        )

    async def facts(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What it says of its version and of itself; Podman thinks about it for half a second."""
        version = await self.docker.version()
        self.docker.api_version = f"v{version['ApiVersion']}"  # else it is asked for once more
        return version, await self.docker.system.info()

    async def ping(self) -> None:
        """See whether it answers.

        Raises:
            Away: it does not.
        """
        async with self.asked(), self.docker.session.get(f"{self.docker.docker_host}/_ping"):
            pass

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Ask it something within the block.

        Raises:
            Away: it is not there, or does not answer.
        """
        try:
            yield
        except DockerError as error:
            if error.status != _NO_CONNECTION:
                raise
            raise Away("NO_ENGINE", self.lacking(error.message)) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Away("NO_ENGINE", self.lacking(error or type(error).__name__)) from None

    @asynccontextmanager
    async def stream(
        self, path: str, parameters: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that goes on for as long as it likes.

        Raises:
            DockerError: it refuses.
        """
        endless = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        url = f"{self.docker.docker_host}/{self.docker.api_version}/{path}"
        async with self.docker.session.get(url, params=parameters, timeout=endless) as answer:
            if answer.status != 200:
                raise DockerError(answer.status, await answer.text())
            yield answer

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Ask what aiodocker has no method for, or one that cannot say all of it.

        Raises:
            DockerError: it refuses.
        """
        url = f"{self.docker.docker_host}/{self.docker.api_version}/{path}"
        content = io.BytesIO(json.dumps(body).encode())  # as bytes, it warns of large ones
        headers = {"Content-Type": "application/json"}
        async with self.docker.session.post(url, data=content, headers=headers) as answer:
            told = await answer.json(content_type=None)
            if answer.status >= 400:
                raise DockerError(answer.status, told.get("message", "") if told else "")
            return told

    async def aclose(self) -> None:
        if self._docker is not None:
            await self._docker.close()
            await self._docker.session.close()
            if self._docker.connector is not None:
                await self._docker.connector.close()
            self._docker = None


def _first_socket() -> str:
    return next((f"unix://{path}" for path in _SOCKETS if os.path.exists(path)), "")  # noqa: PTH110


def _usable(registered: Mapping[str, Any]) -> tuple[str, ...]:
    """The runtimes that are there and run their processes on this kernel."""
    return tuple(
        sorted(
            name
            for name, told in registered.items()
            if not _KERNELS_OF_THEIR_OWN.search(name)
            and not name.startswith("io.containerd.kata")
            and (not told.get("path") or shutil.which(told["path"]))
        )
    )


def _folder_here(path: str) -> Path | None:
    """A folder that an engine tells of, if it is one here too."""
    folder = Path(path)
    return folder if folder.is_absolute() and folder.is_dir() else None
