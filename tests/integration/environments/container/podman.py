"""An engine of the tests' own: Podman's service on a socket in a folder, and an image made here."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import aiodocker
import pytest

from steward_server.environments.container.engine import Engine
from tests.missing import missing

IMAGE = "steward-test:1"
_PROGRAMS = (
    "sh", "bash", "su", "cat", "chmod", "chown", "cp", "date", "dd", "echo", "env", "false", "find",
    "grep", "head", "hwclock", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mount", "mv", "nohup",
    "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sleep", "sort", "stat", "stty",
    "tail", "test", "touch", "tr", "true", "tty", "unshare", "wc", "xargs",
)  # fmt: skip
_UNNEEDED = re.compile(
    "__pycache__|/tests?(/|$)|-packages|/config-3|idlelib|tkinter|ensurepip|lib2to3|turtledemo"
)
_START_S = 20
# crun refuses where version 2 of the control groups offers a controller beside those of version 1:
# there the service, and all it starts, do not see version 2.
_SERVE = """
if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec "$@"
"""
_CONFIGURATION = """
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
exit_command_delay = 2
runtime = "{runtime}"
init_path = "{init}"
"""


class Podman:
    """One service, with storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Podman takes a folder for what goes with a reboot if its name is short, and no other.
        self.passing = Path(tempfile.mkdtemp(prefix="steward-podman-"))
        self.socket = self.passing / "podman.sock"
        self.url = f"unix://{self.socket}"
        self.runtime = next(name for name in ("crun", "runc") if shutil.which(name))
        self._process: subprocess.Popen[bytes] | None = None
        configuration = folder / "containers.conf"
        configuration.write_text(
            _CONFIGURATION.format(runtime=self.runtime, init=shutil.which("catatonit"))
        )
        self._env = {**os.environ, "CONTAINERS_CONF": str(configuration)}

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", _SERVE, "sh", *self._podman(),
                 "system", "service", "--time=0", self.url],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env,
                cwd=self.folder,  # conmon leaves a file there where memory was out
            )  # fmt: skip
        until = time.monotonic() + _START_S
        while not asyncio.run(self._answers()):
            if self._process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"podman does not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End the service; containers live on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every container."""
        asyncio.run(self._clear())

    def load(self, archive: Path, name: str) -> None:
        subprocess.run(
            [*self._podman(), "import", "--quiet", str(archive), name],
            check=True, capture_output=True, env=self._env,
        )  # fmt: skip

    def _podman(self) -> list[str]:
        return [
            "podman",
            *("--root", str(self.folder / "storage")),
            *("--runroot", str(self.passing / "run")),
            *("--tmpdir", str(self.passing / "tmp")),
        ]

    async def _answers(self) -> bool:
        async with aiodocker.Docker(self.url) as docker:
            try:
                await docker.version()
            except aiodocker.DockerError:
                return False
        return True

    async def _clear(self) -> None:
        async with aiodocker.Docker(self.url) as docker:
            for container in await docker.containers.list(all=True):
                await container.delete(force=True)


class KnownEngine(Engine):
    """The engine of a service that was asked for its facts before: no test waits for them again."""

    _known: ClassVar[dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}

    async def facts(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        known = self._known.get(self.url) or await super().facts()
        self._known[self.url] = known
        self.docker.api_version = f"v{known[0]['ApiVersion']}"
        return known


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Podman]:
    """A service with the image `steward-test:1`, gone behind the block."""
    lacking = [name for name in ("podman", "conmon", "catatonit") if not shutil.which(name)]
    if not any(map(shutil.which, ("crun", "runc"))):
        lacking.append("crun")
    if os.geteuid() != 0:
        lacking.append("root")
    if lacking:
        missing(f"no container engine can run here: there is no {', '.join(lacking)}")
    podman = Podman(folder)
    podman.start()
    try:
        archive = folder / "image.tar"
        write_image(archive)
        podman.load(archive, IMAGE)
        archive.unlink()
        yield podman
    finally:
        podman.clear()
        podman.stop()
        shutil.rmtree(podman.passing, ignore_errors=True)


def write_image(target: Path) -> None:
    """A root file system with a shell, small programs and Python: this machine's own."""
    library = Path(sysconfig.get_path("stdlib"))
    programs = {f"/usr/bin/{name}": shutil.which(name) for name in _PROGRAMS}
    files = {path: os.path.realpath(found) for path, found in programs.items() if found}
    files["/usr/bin/python3"] = os.path.realpath(sys.executable)
    extensions = map(str, (library / "lib-dynload").glob("*.so"))
    for found in _libraries([*files.values(), *extensions]):
        files[found] = os.path.realpath(found)
    with tarfile.open(target, "w") as archive:
        for name, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            archive.addfile(folder)
        link = tarfile.TarInfo("bin")
        link.type, link.linkname = tarfile.SYMTYPE, "usr/bin"
        archive.addfile(link)
        for path, source in files.items():
            archive.add(source, path.lstrip("/"))
        archive.add(
            library,
            str(library).lstrip("/"),
            filter=lambda each: None if _UNNEEDED.search(each.name) else each,
        )
        for name, content in _TEXTS.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(content), 0o644
            archive.addfile(file, io.BytesIO(content.encode()))


_FOLDERS = {
    "dev": 0o755, "etc": 0o755, "proc": 0o555, "root": 0o755, "sys": 0o555, "tmp": 0o1777,
    "usr": 0o755, "usr/bin": 0o755, "var": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nagent:x:1000:1000::/workspace:/bin/sh\n",
    "etc/group": "root:x:0:\nagent:x:1000:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
}


def _libraries(paths: Iterable[str]) -> set[str]:
    told = subprocess.run(["ldd", *paths], check=False, capture_output=True, text=True).stdout
    return set(re.findall(r"(/\S+) \(0x", told))
