"""Finds the launcher, or starts it: see inside/launcher.py for what that is."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from steward_server.environments.driver import Gone
from steward_server.environments.sandbox.channel import Channel, listen

# Modules of this package are imported without running the package's own set-up, which would bring
# gRPC and all else into a process that is to hold nothing.
_BOOTSTRAP = """\
import sys, types
for name, folder in {folders!r}:
    module = types.ModuleType(name)
    module.__path__ = [folder]
    sys.modules[name] = module
from {module} import main
main({fd})
"""
_ATTEMPTS = 3
_MOST_LOG_BYTES = 1024 * 1024
_SANDBOX = "steward_server.environments.sandbox"


class Launching:
    """The way to the launcher of a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "launcher.sock"
        self._log = folder / "launcher.log"
        self._starting = asyncio.Lock()
        self._hold: Channel | None = None
        self._pid = 0

    async def open(self) -> None:
        """Find the launcher or start it, and hold it.

        It ends when nobody holds it and no machine that it has started lives.
        """
        async with self._starting:
            if self._hold is not None:
                self._hold.close()
            for attempt in range(_ATTEMPTS):
                try:
                    self._hold = await Channel.connect(self._path)
                    await self._hold.ask({"op": "hold"})
                    return
                except Gone:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    self._path.unlink(missing_ok=True)
                    await asyncio.to_thread(self._start)

    async def connect(self) -> Channel:
        """A connection to the launcher, which is started again if it has been killed."""
        try:
            return await Channel.connect(self._path)
        except Gone:
            await self.open()
            return await Channel.connect(self._path)

    def close(self) -> None:
        """Hold it no longer."""
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def _start(self) -> None:
        if self._pid:
            with suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)  # bury the one before
        read = program(f"{_SANDBOX}.inside.launcher", 3)
        listener = listen(self._path)
        log = open_log(self._log)
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Its environment is empty, and it closes what else it may have been given.
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-"],
                {},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, each, number)
                    for number, each in enumerate((read, nothing, log, listener.fileno()))
                ],
                setsid=True,
            )
        finally:
            listener.close()
            for fd in (read, log, nothing):
                os.close(fd)


def program(module: str, fd: int) -> int:
    """What Python reads to run `main(fd)` of a module and nothing else; a descriptor to read from.

    It comes over a descriptor: anybody in a machine may read the arguments.
    """
    packages = dict.fromkeys((*_parents(f"{_SANDBOX}."), *_parents(module)))
    folders = [(name, _folder(name)) for name in packages]
    read, write = os.pipe2(os.O_CLOEXEC)
    os.write(write, _BOOTSTRAP.format(folders=folders, module=module, fd=fd).encode())
    os.close(write)
    return read


def open_log(path: Path) -> int:
    """Open what is added to by whoever starts machines, and emptied when it is large."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.fstat(log).st_size > _MOST_LOG_BYTES:
        os.truncate(log, 0)
    return log


def _parents(module: str) -> list[str]:
    """The packages that a module is in, from the outermost."""
    words = module.split(".")
    return [".".join(words[:count]) for count in range(1, len(words))]


def _folder(package: str) -> str:
    return next(iter(importlib.import_module(package).__path__))
