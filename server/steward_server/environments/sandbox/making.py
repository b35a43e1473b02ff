"""Makes one machine: what is asked of the launcher, and what is taken back if it fails."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from threading import Thread
from typing import Any

from steward_server.environments.driver import Gone, Unusable
from steward_server.environments.environment import Spec
from steward_server.environments.images.etc import hosts
from steward_server.environments.images.image import Image
from steward_server.environments.removal import remove_tree
from steward_server.environments.sandbox import ids, record
from steward_server.environments.sandbox.cgroups import Cgroups, dissolve
from steward_server.environments.sandbox.channel import Channel, listen
from steward_server.environments.sandbox.inside import linux
from steward_server.environments.sandbox.inside.build import SUPERVISOR_ID
from steward_server.environments.sandbox.inside.packets import close_all
from steward_server.environments.sandbox.launching import Launching
from steward_server.environments.sandbox.limits import Limits
from steward_server.environments.sandbox.record import Record
from steward_server.environments.sandbox.storage import Templates

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SOCKET, LOGS, SCAFFOLD, DISK = "socket", "logs", "scaffold", "disk.ext4"
"""What is in a machine's folder."""
_ANSWER_S = 30
HOSTNAME = 63
"""Characters the kernel has room for."""


Attach = Callable[[int], Awaitable[Mapping[str, str]]]
"""Gives a network namespace a network, and says what files of the machine are to tell of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a machine but whose it is."""

    image: Image
    limits: Limits
    user: int
    group: int
    read_only: bool
    runsc: str = ""
    """The program that runs it; empty: the host's kernel does."""

    @property
    def frame(self) -> Shape:
        """What of it cannot be changed once it is made; the same for all that one serves for."""
        return replace(self, limits=self.limits.frame)


@dataclass(slots=True)
class Body:
    """A machine that has been made and is nobody's yet. Its descriptor is the caller's to close."""

    shape: Shape
    folder: Path
    cgroup: str
    uid_base: int
    pid: int
    pidfd: int


class Maker:
    """Makes machines below a folder."""

    def __init__(
        self,
        folder: Path,
        groups: Cgroups,
        launching: Launching,
        *,
        log_segment_bytes: int,
        log_segment_count: int,
    ) -> None:
        self._folder = folder / "machines"
        self.groups = groups
        self._launching = launching
        self._templates = Templates(folder / "disks")
        self._first_range = ids.first_range(folder)
        self._log_segment_bytes = log_segment_bytes
        self._log_segment_count = log_segment_count

    async def make(self, folder: Path, shape: Shape, attach: Attach | None = None) -> Body:
        """Make a machine in a folder that is empty; what is left if that fails is to be cleared.

        Raises:
            Unusable: this host cannot.
        """
        name = folder.name
        try:
            base, claim = ids.claim_range(self._first_range)
            with claim:
                for part, owner in ((LOGS, base + SUPERVISOR_ID), (SCAFFOLD, 0)):
                    (folder / part).mkdir(mode=0o700)
                    os.chown(folder / part, owner, owner)
                self.groups.make(name, shape.limits)
                self.groups.give(name, base + SUPERVISOR_ID)
                plan = self._plan(folder, shape, base, wants_network=attach is not None)
                with listen(folder / SOCKET) as listener:
                    opened = await self._open(folder, shape.limits)
                    pid, pidfd = await self._ask(plan, listener, claim, opened, attach)
                return Body(shape, folder, name, base, pid, pidfd)
        except OSError as error:
            raise refused(error.strerror, error.filename) from error

    async def give(self, body: Body, name: str, spec: Spec, shape: Shape) -> tuple[Path, Record]:
        """Make a machine an environment's: its folder, and what is kept of it.

        Raises:
            Unusable: reason ALREADY_EXISTS.
        """
        folder = self._folder / name
        if body.folder != folder:
            await self._rename(body, folder, shape)
        return folder, keep(body, folder, spec, shape)

    async def _rename(self, body: Body, folder: Path, shape: Shape) -> None:
        """Give a machine that was made ahead its name and its limits."""
        try:
            body.folder.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise taken(folder.name) from None
        body.folder = folder
        if shape.limits != body.shape.limits:
            self.groups.limit(body.cgroup, shape.limits)
        channel = await Channel.connect(folder / SOCKET)
        with closing(channel):
            await asyncio.gather(
                asyncio.to_thread(name_host, body, folder.name[:HOSTNAME]),
                channel.ask({"op": "name", "files": files_of(folder.name)}),
            )

    def _plan(
        self, folder: Path, shape: Shape, base: int, *, wants_network: bool
    ) -> dict[str, Any]:
        return {
            "op": "create",
            "scaffold": str(folder / SCAFFOLD),
            "uid_base": base,
            "is_alone": False,
            "runsc": shape.runsc,
            "user": shape.user,
            "group": shape.group,
            "hostname": folder.name[:HOSTNAME],
            "read_only": shape.read_only,
            "storage": {
                "kind": "memory" if shape.limits.is_stored_in_memory else "file",
                "bytes": shape.limits.storage_bytes,
                "inodes": shape.limits.inode_count,
            },
            "shared_memory_bytes": shape.limits.shared_memory_bytes,
            "image": str(shape.image.root),
            "binds": [[str(source), target] for source, target in shape.image.binds],
            "files": files_of(folder.name),
            "wants_network": wants_network,
            "cgroup_clone": self.groups.clones,
            "log_segment_bytes": self._log_segment_bytes,
            "log_segment_count": self._log_segment_count,
        }

    async def _open(self, folder: Path, limits: Limits) -> list[int]:
        """Open what the machine is made from, in the order of `inside.build.Descriptors`."""
        fds: list[int] = []
        try:
            fds.append(os.open(folder / LOGS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            if not limits.is_stored_in_memory:
                fds.append(await self._templates.copy(limits, folder / DISK))
            fds += self.groups.joins(folder.name)
        except BaseException:
            close_all(fds)
            raise
        return fds

    async def _ask(
        self,
        plan: dict[str, Any],
        listener: socket.socket,
        claim: FileIO,
        fds: list[int],
        attach: Attach | None,
    ) -> tuple[int, int]:
        """Have the launcher start it, and wait until it stands: its pid and pidfd."""
        pidfd = -1
        try:
            async with asyncio.timeout(_ANSWER_S):
                with closing(await self._launching.connect()) as channel:
                    logs, *rest = fds
                    handed = [listener.fileno(), logs, claim.fileno(), *rest]
                    told, given = await channel.ask(plan, handed)
                    if "pid" not in told:
                        raise refused(told.get("error", ""), "the launcher")
                    pid, pidfd = told["pid"], given[0]
                    told, given = await channel.receive()
                    if attach is not None and "error" not in told:
                        try:
                            files = await attach(given[0])
                        finally:
                            close_all(given)
                        told, _ = await channel.ask({"files": dict(files)})
                    if "error" in told:
                        raise refused(told["error"], told.get("what"))
                    return pid, pidfd
        except BaseException as error:
            if pidfd >= 0:
                os.close(pidfd)
            if isinstance(error, Gone):
                raise refused("the machine ended while it was made", "launcher.log") from None
            if isinstance(error, TimeoutError):
                raise refused("there was no answer", "the launcher") from None
            raise
        finally:
            close_all(fds)


def keep(body: Body, folder: Path, spec: Spec, shape: Shape, *, backend: str = "native") -> Record:
    """Write down what is to be known of a machine beyond the life of this server."""
    name = folder.name
    found = Record(
        environment_id=name,
        cgroup=body.cgroup,
        pid=body.pid,
        started_ticks=record.started_ticks(body.pid),
        boot_id=record.boot_id(),
        uid_base=body.uid_base,
        image_root=str(shape.image.root),
        image=shape.image.name,
        user=shape.user,
        group=shape.group,
        working_dir=shape.image.working_dir,
        command=spec.command,
        env=environment_of(shape.image, spec, shape.user, name),
        must_not_be_root=bool(spec.security.run_as_non_root),
        ingress_ports=spec.network.allowed_ingress_ports,
        created_at_us=time.time_ns() // 1_000,
        backend=backend,
        runtime_class="gvisor" if shape.runsc else "",
    )
    found.write(folder)
    return found


def name_host(body: Body, name: str) -> None:
    """Set the host name that a machine sees; in a thread, which is lost by it.

    Raises:
        OSError: it has ended.
    """
    fd = os.open(f"/proc/{body.pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)

    def work() -> None:
        linux.setns(fd, linux.CLONE_NEWUTS)
        socket.sethostname(name)

    try:
        signal.pidfd_send_signal(body.pidfd, 0)  # else the number was another's already
        thread = Thread(target=work)
        thread.start()
        thread.join()
    finally:
        os.close(fd)


async def clear(folder: Path, groups: Cgroups, name: str) -> None:
    """Remove what a machine has on the host: processes, groups, files.

    Raises:
        OSError: some of it resists.
    """
    for _ in range(100):
        if not groups.pids(name):
            break
        with suppress(OSError):
            groups.thaw(name)
            groups.kill(name)
        await asyncio.sleep(0.005)
    await dissolve(groups, name)
    await asyncio.to_thread(remove_tree, folder, ignore_errors=True)


def files_of(name: str) -> dict[str, str]:
    """What stands in a machine about its name."""
    return {"/etc/hostname": f"{name[:HOSTNAME]}\n", "/etc/hosts": hosts(name[:HOSTNAME])}


def environment_of(image: Image, spec: Spec, user: int, name: str) -> dict[str, str]:
    own = {
        "PATH": PATH,
        "HOME": ids.home(image, user),
        "LANG": "C.UTF-8",
        "HOSTNAME": name[:HOSTNAME],
    }
    alone = {} if spec.network.needs_network else image.env_alone
    return {**own, **image.env, **alone, **spec.env}


def taken(name: str) -> Unusable:
    """The refusal of a name that a machine has already."""
    return Unusable("ALREADY_EXISTS", f"there is a machine {name!r} already")


def refused(text: str | None, what: object) -> Unusable:
    # The name without its folder: this is told to whoever has asked for the machine.
    where = f" ({Path(str(what)).name})" if what else ""
    return Unusable("NO_ISOLATION", f"this host refused to isolate a machine: {text}{where}")
