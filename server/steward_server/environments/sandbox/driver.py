"""The embedded driver: machines on this host, made of namespaces, limits and a filter of calls.

It has two back ends, and takes the first that works here: `native` needs root, and nothing that
is not in the kernel; `bubblewrap` needs no root, and holds fewer limits. Start reading at making.py
for how a machine comes to be, at machine.py for what can be done with it, and at inside/ for what
runs outside this server.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog

from steward_server.environments import host
from steward_server.environments.driver import (
    Capabilities,
    Capacity,
    Command,
    Connection,
    Exit,
    Files,
    Gone,
    Listener,
    LogRecord,
    Owned,
    Process,
    Running,
    Stats,
    Unusable,
    port_closed,
)
from steward_server.environments.environment import NetworkPolicy, Resources, Spec
from steward_server.environments.images.etc import resolv_conf
from steward_server.environments.images.image import Image
from steward_server.environments.sandbox import ids, making, record
from steward_server.environments.sandbox.bubblewrap.backend import Bubblewrap
from steward_server.environments.sandbox.files import SandboxFiles
from steward_server.environments.sandbox.limits import limits
from steward_server.environments.sandbox.logs import Bells, Cache, Reader, exit_of
from steward_server.environments.sandbox.machine import Machine
from steward_server.environments.sandbox.making import Attach, Body, Shape
from steward_server.environments.sandbox.native import Native
from steward_server.environments.sandbox.network import Network
from steward_server.environments.sandbox.pool import SPARE, Pool
from steward_server.environments.sandbox.ports import listen, open_port
from steward_server.environments.sandbox.probe import NotHere, NotNow
from steward_server.environments.sandbox.record import Record

log = structlog.get_logger(__name__)

_TRIAL = Resources(cpu_millicores=1000, memory_bytes=64 << 20, storage_bytes=4 << 20)
_TRIAL_NAME = f"{SPARE}trial"  # one that is no environment's
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_LEFT_COMMANDS_S = 20.0
_CLEAR_AGAIN_S = 10.0
_LAST_LINES_S = 0.25
"""How long a deletion lets those who follow a log read its end."""


class Images(Protocol):
    """The part of the catalogue that machines need."""

    async def find(self, name: str) -> Image: ...

    def held(self, name: str, *, by: str) -> AbstractAsyncContextManager[Image]:
        """As `find`, of one that is not removed for as long as the block lasts."""
        ...

    async def add_snapshot(
        self, name: str, base: Image, upper: Path, *, first_id: int = 0
    ) -> Image: ...


class Maker(Protocol):
    """What makes machines."""

    async def make(self, folder: Path, shape: Shape, attach: Attach | None = None) -> Body:
        """Make one in a folder that is empty; what is left if that fails is to be cleared.

        Raises:
            Unusable: this host cannot.
        """
        ...

    async def give(self, body: Body, name: str, spec: Spec, shape: Shape) -> tuple[Path, Record]:
        """Make it an environment's: its folder, and what is kept of it."""
        ...


class Backend(Protocol):
    """One way to isolate machines, on a host where it works."""

    @property
    def name(self) -> str: ...

    @property
    def has_network(self) -> bool:
        """Whether its machines can be given a network."""
        ...

    @property
    def has_spares(self) -> bool:
        """Whether machines can be made ahead."""
        ...

    @property
    def maker(self) -> Maker: ...

    @property
    def more_classes(self) -> tuple[str, ...]:
        """The runtime classes that it may have beside its own."""
        ...

    def lose_class(self, name: str, why: str) -> None:
        """Offer one of those no more: it does not work here."""
        ...

    def shaped(self, shape: Shape, runtime_class: str) -> Shape:
        """A shape, as a machine of that class has it.

        Raises:
            Unusable: reason LIMIT_TOO_SMALL.
        """
        ...

    async def open(self) -> None: ...

    def machine(self, folder: Path, record: Record, pidfd: int) -> Machine: ...

    async def clear(self, folder: Path, cgroup: str) -> None:
        """Remove what a machine has on the host: processes, groups, files.

        Raises:
            OSError: some of it resists.
        """
        ...

    def names(self) -> Collection[str]:
        """What has a control group here."""
        ...

    def capabilities(self, *, has_network: bool, has_spares: bool) -> Capabilities: ...

    def refuse(self, spec: Spec) -> None:
        """Refuse what it does not do, rather than to leave it out.

        Raises:
            Unusable: it does not.
        """
        ...

    def close(self) -> None: ...


class SandboxDriver:
    """The sandbox' `Driver`."""

    files: Files

    def __init__(
        self,
        folder: Path,
        images: Images,
        network: Network | None = None,
        *,
        max_processes: int = 256,
        log_bytes: int = 16 * 1024 * 1024,
        spare_machines: int = 0,
        runsc: str | None = None,
    ) -> None:
        self._folder = folder
        self._images = images
        self._network = network
        self._max_processes = max_processes
        self._log_bytes = log_bytes
        self._spare_machines = spare_machines
        self._runsc = runsc
        self._pool: Pool | None = None
        self._bells = Bells()
        self._log_cache = Cache()
        self._machines: dict[str, Machine] = {}
        self._making: set[str] = set()
        self._left: dict[Path, str] = {}  # what is to be cleared, with its control group
        self._clearing = asyncio.Lock()
        self._clearing_again: asyncio.Task[None] | None = None
        self._backend: Backend | None = None
        self._no_network = "it was not asked for"
        self._warnings: list[str] = []
        self._capabilities = Capabilities("sandbox", "", unusable="the driver is not open yet")
        self.files = SandboxFiles(self._machine)

    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        machines = self._folder / "machines"
        machines.mkdir(exist_ok=True)
        label = f"steward-{_hash(self._folder)}"
        whys = []
        may_come = False
        for kind in (Native, Bubblewrap):
            try:
                find: Callable[[], Backend] = partial(
                    kind, self._folder, label, log_bytes=self._log_bytes, runsc=self._runsc
                )
                backend: Backend = await asyncio.to_thread(find)
            except NotHere as error:
                whys.append(f"{kind.name}: {error}")
                may_come |= isinstance(error, NotNow)
                continue
            self._backend = backend
            await self._adopt(backend)
            self._capabilities = await self._try(backend)
            if not self._capabilities.unusable:
                await self._open_network(backend)
                spare_machines = self._spare_machines if backend.has_spares else 0
                self._pool = Pool(self._made, spare_machines, self._discard)
                return
            whys.append(f"{kind.name}: {self._capabilities.unusable}")
            backend.close()
        why = ". ".join(whys)
        self._capabilities = Capabilities("sandbox", "", unusable=why, may_come=may_come)

    async def _open_network(self, backend: Backend) -> None:
        if not backend.has_network:
            self._no_network = (
                f"the back end {backend.name} cannot give one; run the server as root"
            )
        elif self._network is not None:
            self._no_network = await self._network.open()
            if not self._no_network:
                for name in await self._network.list_owned() - self._machines.keys():
                    await self._network.detach(name)
        has_network = backend.has_network and self._network is not None and not self._no_network
        has_spares = backend.has_spares and self._spare_machines > 0
        told = backend.capabilities(has_network=has_network, has_spares=has_spares)
        warnings = self._network.warnings if has_network and self._network else ()
        self._capabilities = replace(told, warnings=(*self._warnings, *warnings))

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()
        if self._clearing_again is not None:
            self._clearing_again.cancel()
            await asyncio.gather(self._clearing_again, return_exceptions=True)
        for machine in self._machines.values():
            machine.close()
        self._machines = {}
        self._bells.close()
        if self._network is not None:
            await self._network.aclose()
        if self._backend is not None:
            self._backend.close()

    async def _try(self, backend: Backend) -> Capabilities:
        """Make a machine of nothing: what cannot be made now is better said now."""
        empty = self._folder / "empty"
        empty.mkdir(exist_ok=True)
        image = Image(name="nothing", digest="", root=empty)
        try:
            await backend.open()
            await self._try_class("", image)
        except (Unusable, Gone) as error:
            return Capabilities("sandbox", "", unusable=str(error))
        for name in backend.more_classes:
            try:
                await self._try_class(name, image)
            except (Unusable, Gone) as error:
                backend.lose_class(name, str(error))
        return backend.capabilities(has_network=False, has_spares=False)

    async def _try_class(self, runtime_class: str, image: Image) -> None:
        with suppress(Gone, OSError):  # the last server was killed at this
            await self.delete(_TRIAL_NAME, grace_s=0)
        await self._make(_TRIAL_NAME, Spec("nothing", _TRIAL, runtime_class=runtime_class), image)
        try:
            if warning := await self._machine(_TRIAL_NAME).check():
                self._warnings.append(warning)
        finally:
            try:
                await self.delete(_TRIAL_NAME, grace_s=0)
            except OSError as error:  # when a server starts it is tried again
                log.warning("sandbox.not_cleared", machine=_TRIAL_NAME, why=str(error))

    async def _adopt(self, backend: Backend) -> None:
        """Take up the machines that outlived the last server, and clear what is half made."""
        known = set()
        for folder in _folders(self._folder):
            found = record.read(folder)
            if found is None:
                await self._clear(backend, folder, folder.name)
                continue
            known.add(found.cgroup)
            pidfd = found.open() if found.backend == backend.name else None
            if pidfd is not None:
                self._machines[folder.name] = backend.machine(folder, found, pidfd)
        for name in set(backend.names()) - known:
            await self._clear(backend, self._folder / "machines" / name, name)
        await asyncio.gather(*map(_end_left_commands, self._machines.values()))

    async def _clear(self, backend: Backend, folder: Path, cgroup: str) -> None:
        """Remove what a machine that is nobody's has on the host, and what others have left there.

        What resists is tried again from time to time, and when a server starts.
        """
        self._left[folder] = cgroup
        await self._clear_left(backend)
        if self._left and (self._clearing_again is None or self._clearing_again.done()):
            self._clearing_again = asyncio.create_task(self._clear_again())

    async def _clear_again(self) -> None:
        while self._left:
            await asyncio.sleep(_CLEAR_AGAIN_S)
            if self._capabilities.unusable:
                return
            await self._clear_left(self._backend_now)

    async def _clear_left(self, backend: Backend) -> None:
        # One at a time: a name that has been cleared may be a new machine's at once.
        async with self._clearing:
            for folder, cgroup in list(self._left.items()):
                try:
                    await backend.clear(folder, cgroup)
                except OSError as error:
                    log.warning("sandbox.not_cleared", machine=folder.name, why=str(error))
                else:
                    del self._left[folder]

    # Machines

    def _machine(self, environment_id: str) -> Machine:
        machine = self._machines.get(environment_id)
        if machine is None or not machine.is_alive:
            raise Gone(f"there is no machine {environment_id!r}")
        return machine

    def _place(self, environment_id: str) -> Path:
        return self._folder / "machines" / environment_id

    def _known(self, environment_id: str) -> Path:
        """The folder of a machine, dead or alive."""
        folder = self._place(environment_id)
        if not _NAME.fullmatch(environment_id) or not folder.exists():
            raise Gone(f"there is no machine {environment_id!r}")
        return folder

    async def capacity(self) -> Capacity:
        return await host.capacity()

    async def create(self, environment_id: str, spec: Spec) -> None:
        if self._capabilities.unusable:
            raise Unusable("NO_ISOLATION", self._capabilities.unusable)
        if not _NAME.fullmatch(environment_id) or environment_id.startswith(SPARE):
            raise Unusable("BAD_NAME", f"{environment_id!r} cannot name a machine")
        self._backend_now.refuse(spec)
        async with self._images.held(spec.image, by=environment_id) as image:
            await self._make(environment_id, spec, image, is_claim=True)

    async def _make(
        self, environment_id: str, spec: Spec, image: Image, *, is_claim: bool = False
    ) -> None:
        user = ids.who(image, spec.security)
        most = limits(spec.resources, process_count=self._max_processes)
        shape = Shape(image, most, *user, read_only=bool(spec.security.read_only_root_filesystem))
        shape = self._backend_now.shaped(shape, spec.runtime_class)
        # Asked before anything is made: to take back what was made would hit whoever has the name.
        if environment_id in self._making or self._place(environment_id).exists():
            raise making.taken(environment_id)
        self._making.add(environment_id)
        body = None
        try:
            body = await self._body(environment_id, spec.network, shape, is_claim=is_claim)
            backend = self._backend_now
            folder, made = await backend.maker.give(body, environment_id, spec, shape)
            self._machines[environment_id] = backend.machine(folder, made, body.pidfd)
        except BaseException:
            await asyncio.shield(self._undo(environment_id, body))
            raise
        finally:
            self._making.discard(environment_id)

    async def _body(
        self, environment_id: str, policy: NetworkPolicy, shape: Shape, *, is_claim: bool
    ) -> Body:
        if policy.allow_internet or policy.allowed_egress:
            if self._network is None or self._no_network:
                raise Unusable(
                    "NO_NETWORK", f"environments have no network here: {self._no_network}"
                )
            attach = partial(self._attach, self._network, environment_id, policy)
            return await self._made(environment_id, shape, attach)
        is_claim = is_claim and not shape.runsc  # kernels of their own are not kept ahead
        spare = self._pool.take(shape) if self._pool and is_claim else None
        return spare or await self._made(environment_id, shape)

    async def _made(self, name: str, shape: Shape, attach: Attach | None = None) -> Body:
        """Have a machine made; what that leaves if it fails is cleared, at once or later.

        Raises:
            Unusable: this host cannot; reason ALREADY_EXISTS.
        """
        backend, folder = self._backend_now, self._place(name)
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            raise making.taken(name) from None
        try:
            return await backend.maker.make(folder, shape, attach)
        except BaseException:
            await asyncio.shield(self._clear(backend, folder, name))
            raise

    @property
    def _backend_now(self) -> Backend:
        if self._backend is None:
            raise Unusable("NO_ISOLATION", self._capabilities.unusable)
        return self._backend

    async def _undo(self, environment_id: str, body: Body | None) -> None:
        """Take back a machine whose making was not finished."""
        if body is not None:
            await self._discard(body)
        await self._detach(environment_id)

    async def _discard(self, body: Body) -> None:
        """End a machine that is nobody's."""
        os.close(body.pidfd)
        if self._backend is not None:
            await self._clear(self._backend, body.folder, body.cgroup)

    @staticmethod
    async def _attach(
        network: Network, environment_id: str, policy: NetworkPolicy, namespace_fd: int
    ) -> Mapping[str, str]:
        address = await network.attach(environment_id, namespace_fd, policy)
        servers = () if address is None else tuple(map(str, address.nameservers))
        return {"/etc/resolv.conf": resolv_conf(servers)}

    async def change_network(self, environment_id: str, policy: NetworkPolicy) -> None:
        machine = self._machine(environment_id)
        network = self._network
        is_to_reach = bool(policy.allow_internet or policy.allowed_egress)
        if network is None or self._no_network:
            if is_to_reach:
                raise Unusable(
                    "NO_NETWORK", f"environments have no network here: {self._no_network}"
                )
        elif network.address(environment_id) is not None:
            before = network.address(environment_id)
            address = await network.change(environment_id, policy)
            if address and before and set(address.nameservers) != set(before.nameservers):
                await machine.tell_nameservers(resolv_conf(tuple(map(str, address.nameservers))))
        elif is_to_reach:
            namespace = machine.network_namespace()
            try:
                files = await self._attach(network, environment_id, policy, namespace)
            finally:
                os.close(namespace)
            await machine.tell_nameservers(files["/etc/resolv.conf"])
        if policy.allowed_ingress_ports != machine.record.ingress_ports:
            machine.record = replace(machine.record, ingress_ports=policy.allowed_ingress_ports)
            machine.record.write(machine.folder)

    async def _detach(self, environment_id: str) -> None:
        if self._network is not None and not self._no_network:
            await self._network.detach(environment_id)

    async def start(self, environment_id: str) -> None:
        await self._machine(environment_id).start()

    async def wait(self, environment_id: str) -> Exit:
        self._known(environment_id)
        machine = self._machines.get(environment_id)
        if machine is None:
            raise Gone(f"there is no machine {environment_id!r}")
        return await machine.wait()

    async def exec(self, environment_id: str, command: Command) -> Running:
        return await self._machine(environment_id).exec(command)

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        folder = self._known(environment_id) / making.LOGS
        reader = Reader(folder, self._log_cache, self._bells)
        if tail is not None:
            after = max(after, reader.after_of_tail(tail))
        read = self._machines.get(environment_id)

        def is_over() -> bool:
            machine = self._machines.get(environment_id)
            return machine is None or machine is not read or not machine.is_alive

        async for lines in reader.follow(after, is_over=is_over, follow=follow):
            for line in lines:
                yield line

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        await self._machine(environment_id).log(stream, lines)

    async def stats(self, environment_id: str) -> Stats:
        return await self._machine(environment_id).stats()

    async def processes(self, environment_id: str) -> Sequence[Process]:
        return await self._machine(environment_id).processes()

    async def signal(self, environment_id: str, pid: int, number: int) -> None:
        await self._machine(environment_id).signal(pid, number)

    async def pause(self, environment_id: str) -> None:
        await self._machine(environment_id).pause()

    async def resume(self, environment_id: str) -> None:
        await self._machine(environment_id).resume()

    async def connect(self, environment_id: str, port: int) -> Connection:
        machine = self._machine(environment_id)
        if port not in machine.record.ingress_ports:
            raise port_closed(environment_id, port, machine.record.ingress_ports)
        return await open_port(machine, port)

    async def listen(self, environment_id: str, port: int) -> Listener:
        machine = self._machine(environment_id)
        return await listen(machine, port, machine.ended())

    async def snapshot(self, environment_id: str, name: str) -> int:
        machine = self._machine(environment_id)
        base = await self._images.find(machine.record.image)
        base = replace(base, root=Path(machine.record.image_root))
        upper = await machine.upper()
        try:
            await machine.pause()
            made = await self._images.add_snapshot(
                name, base, Path(f"/proc/self/fd/{upper}"), first_id=machine.record.uid_base
            )
        finally:
            os.close(upper)
            await asyncio.shield(machine.resume())
        return made.size_bytes

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        folder = self._known(environment_id)
        machine = self._machines.get(environment_id)
        if machine is not None and machine.is_alive:
            if grace_s > 0:
                await machine.ask_to_stop(grace_s)
            # First the disk's name: what is not written yet then need never be.
            (folder / making.DISK).unlink(missing_ok=True)
            await machine.kill()
        await self._bells.last_call(folder / making.LOGS, _LAST_LINES_S)
        await self._detach(environment_id)
        found = machine.record if machine else record.read(folder)
        if self._backend is not None:
            await self._backend.clear(folder, found.cgroup if found else environment_id)
        self._log_cache.forget(folder / making.LOGS)
        if machine is not None:
            machine.close()
        self._machines.pop(environment_id, None)

    async def list_owned(self) -> Sequence[Owned]:
        owned = []
        for folder in _folders(self._folder):
            machine = self._machines.get(folder.name)
            found = machine.record if machine else record.read(folder)
            if found is None:
                continue  # it is being made
            is_alive = machine is not None and machine.is_alive
            owned.append(Owned(folder.name, is_alive, exit_of(folder / making.LOGS)))
        return owned

    def uses(self, root: Path) -> Collection[str]:
        """The machines that stand on a root file system, which may then not be removed."""
        found = ((folder.name, record.read(folder)) for folder in _folders(self._folder))
        return [name for name, each in found if each and each.image_root == str(root)]


def _hash(folder: Path) -> str:
    """A short name of a folder, which tells what one server puts on the host from another's."""
    return hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:10]


async def _end_left_commands(machine: Machine) -> None:
    """End what nobody holds any more; one machine that resists keeps no server from starting."""
    try:
        async with asyncio.timeout(_LEFT_COMMANDS_S):
            await machine.end_left_commands()
    except (Unusable, Gone, OSError) as error:
        log.warning("sandbox.commands_left", environment_id=machine.name, why=str(error))


def _folders(folder: Path) -> list[Path]:
    return list((folder / "machines").iterdir())
