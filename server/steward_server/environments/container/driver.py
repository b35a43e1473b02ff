"""The driver of a container engine: each machine is a container of Docker's or Podman's.

The engine makes containers, runs commands in them, passes on their streams, freezes, commits and
removes them. What it cannot do is done from this host, where their processes are: ending all that
a command has started (reach.py), and the work in files and to ports, by a process that goes in
(inside.py). A container with all that is known of it is found again by its labels.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import platform
import re
import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiodocker.exceptions import DockerError

from steward_server.environments import host
from steward_server.environments.container import offer, request
from steward_server.environments.container.engine import Engine
from steward_server.environments.container.entering import Door
from steward_server.environments.container.images import EngineImages
from steward_server.environments.container.machine import Machine
from steward_server.environments.container.profile import profile
from steward_server.environments.driver import (
    Away,
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
from steward_server.environments.environment import NetworkPolicy, Spec
from steward_server.environments.images.etc import resolv_conf
from steward_server.environments.images.image import canonical
from steward_server.environments.images.room import must_fit
from steward_server.environments.removal import remove_tree
from steward_server.environments.sandbox.files import SandboxFiles
from steward_server.environments.sandbox.inside.syscalls import AUDIT_ARCH
from steward_server.environments.sandbox.limits import limits
from steward_server.environments.sandbox.logs import Bells, Cache, Reader, exit_of
from steward_server.environments.sandbox.network import Address, Network
from steward_server.environments.sandbox.ports import listen, open_port

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_LOGS, _RESOLV_CONF, _PORTS = "logs", "resolv.conf", "ports.json"
_NOT_FOUND, _CONFLICT = 404, 409
_LAST_LINES_S = 0.25
"""How long a deletion lets those who follow a log read its end."""
_STOP_ANSWER_S = 30
_REMOVALS = 6
_ADOPTED_AT_ONCE = 16


class ContainerDriver:
    """The container engine's `Driver`."""

    files: Files

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        network: Network | None = None,
        *,
        max_processes: int = 256,
        log_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._folder = folder
        self._engine = engine
        self._images = EngineImages(engine)
        self._network = network
        self._no_network = "it was not asked for"
        self._max_processes = max_processes
        self._log_bytes = log_bytes
        digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:10]
        self._owner = f"steward-{digest}"
        self._machines: dict[str, Machine] = {}
        self._making: set[str] = set()
        self._policies: dict[str, NetworkPolicy] = {}
        self._seccomp = ""
        self._door = Door()
        self._bells = Bells()
        self._log_cache = Cache()
        self._capabilities = Capabilities(offer.DRIVER, "", unusable="the driver is not open yet")
        self.files = SandboxFiles(self._machine)

    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        (self._folder / "machines").mkdir(exist_ok=True)
        try:
            _check_host()
            await self._engine.open()
        except Unusable as error:
            self._capabilities = Capabilities(
                offer.DRIVER, "", unusable=str(error), may_come=isinstance(error, Away)
            )
            return
        text = json.dumps(profile(platform.machine()))
        path = self._folder / "seccomp.json"
        path.write_text(text)
        # Podman reads a file on its host, which is this one; Docker wants the profile itself.
        self._seccomp = str(path.resolve()) if self._engine.is_podman else text
        try:
            await self._adopt()
        except Away as error:
            self._capabilities = Capabilities(offer.DRIVER, "", unusable=str(error), may_come=True)
            return
        if self._network is not None:
            self._no_network = await self._network.open()
            if not self._no_network:
                for name in await self._network.list_owned() - self._machines.keys():
                    await self._network.detach(name)
        has_network = self._network is not None and not self._no_network
        told = offer.capabilities(self._engine, has_network=has_network)
        warnings = self._network.warnings if has_network and self._network else ()
        self._capabilities = replace(told, warnings=warnings)

    async def aclose(self) -> None:
        await asyncio.gather(*(machine.aclose() for machine in self._machines.values()))
        self._machines = {}
        self._bells.close()
        self._door.close()
        if self._network is not None:
            await self._network.aclose()
        await self._engine.aclose()

    async def _adopt(self) -> None:
        """Take up the containers of a server before this one."""
        filters = json.dumps({"label": [f"{request.OWNER}={self._owner}"]})
        async with self._engine.asked():
            found = await self._engine.docker.containers.list(all=True, filters=filters)
        at_once = asyncio.Semaphore(_ADOPTED_AT_ONCE)

        async def take_up(container: Any) -> None:
            labels = container["Labels"]
            name = request.name_of(self._owner, labels.get(request.ENVIRONMENT, ""))
            if f"/{name}" not in container["Names"]:
                return  # somebody else's, of an image that a snapshot has labelled
            async with at_once:
                machine = self._add(container, labels)
                with suppress(Unusable, DockerError):  # dead, or to be ended as unknown
                    await machine.adopt()

        await asyncio.gather(*(take_up(each) for each in found))
        for folder in (self._folder / "machines").iterdir():
            if folder.name not in self._machines:
                remove_tree(folder, ignore_errors=True)

    def _add(self, container: Any, labels: dict[str, str]) -> Machine:
        kept = request.kept(labels)
        with suppress(FileNotFoundError, ValueError):  # labels are as they were made
            changed = (self._folder_of(kept.environment_id) / _PORTS).read_text()
            kept = replace(kept, ports=tuple(json.loads(changed)))
        machine = Machine(
            self._engine,
            self._door,
            container,
            kept,
            self._folder_of(kept.environment_id) / _LOGS,
            log_bytes=self._log_bytes,
        )
        self._machines[kept.environment_id] = machine
        return machine

    # Machines

    def _machine(self, environment_id: str) -> Machine:
        """One that lives."""
        machine = self._known(environment_id)
        if not machine.is_alive:
            raise Gone(f"there is no machine {environment_id!r} that runs")
        return machine

    def _known(self, environment_id: str) -> Machine:
        """One that exists, dead or alive."""
        if self._capabilities.may_come:  # nobody has looked yet
            raise Away("NO_ENGINE", self._capabilities.unusable)
        machine = self._machines.get(environment_id)
        if machine is None:
            raise Gone(f"there is no machine {environment_id!r}")
        return machine

    async def capacity(self) -> Capacity:
        """What this host has, if its engine answers."""
        if not self._capabilities.unusable:
            await self._engine.ping()
        return await host.capacity()

    async def create(self, environment_id: str, spec: Spec) -> None:
        if self._capabilities.unusable:
            raise Unusable("NO_ENGINE", self._capabilities.unusable)
        if not _NAME.fullmatch(environment_id):
            raise Unusable("BAD_NAME", f"{environment_id!r} cannot name a machine")
        if environment_id in self._machines or environment_id in self._making:
            raise Unusable("ALREADY_EXISTS", f"there is a machine {environment_id!r} already")
        offer.refuse(self._engine, spec)
        wants_network = spec.network.allow_internet or bool(spec.network.allowed_egress)
        if wants_network and (self._network is None or self._no_network):
            raise Unusable("NO_NETWORK", f"environments have no network here: {self._no_network}")
        image = await self._images.find(spec.image)
        body = request.container(
            spec,
            image,
            limits(spec.resources, process_count=self._max_processes),
            self._wanted(environment_id, wants_network=wants_network),
        )
        self._making.add(environment_id)
        try:
            await self._make(environment_id, spec, body)
        except BaseException:
            remove_tree(self._folder_of(environment_id), ignore_errors=True)
            raise
        finally:
            self._making.discard(environment_id)

    def _folder_of(self, environment_id: str) -> Path:
        return self._folder / "machines" / environment_id

    def _wanted(self, environment_id: str, *, wants_network: bool) -> request.Wanted:
        resolv_conf = self._folder_of(environment_id) / _RESOLV_CONF
        if wants_network:
            resolv_conf.parent.mkdir(exist_ok=True)
            resolv_conf.write_text("")
            resolv_conf.chmod(0o644)
        return request.Wanted(
            environment_id,
            self._owner,
            seccomp=self._seccomp,
            log_bytes=self._log_bytes,
            is_podman=self._engine.is_podman,
            is_disk_held=self._engine.holds_disk,
            most_open_files=_hard_limit(resource.RLIMIT_NOFILE),
            most_processes_of_user=_hard_limit(resource.RLIMIT_NPROC),
            resolv_conf=str(resolv_conf.resolve()) if wants_network else "",
        )

    async def _make(self, environment_id: str, spec: Spec, body: dict[str, Any]) -> None:
        name = request.name_of(self._owner, environment_id)
        making = self._engine.docker.containers
        try:
            async with self._engine.asked():
                container = await making.create(body, name=name)
        except DockerError as error:
            if error.status == _CONFLICT:
                raise Unusable(
                    "ALREADY_EXISTS", f"the engine has a container {name!r} already"
                ) from None
            raise Unusable(
                "ENGINE_REFUSED", f"the engine does not make a container: {error.message[:500]}"
            ) from None
        except asyncio.CancelledError:
            await asyncio.shield(self._remove(making.container(name)))
            raise
        try:
            if not spec.security.read_only_root_filesystem:
                await self._make_workspace(container, body)
            self._policies[environment_id] = spec.network
            self._add(container, body["Labels"])
        except BaseException:
            await asyncio.shield(self._remove(container))
            raise

    async def _make_workspace(self, container: Any, body: dict[str, Any]) -> None:
        """A folder that the commands start in and own; there is none in most images."""
        if body["WorkingDir"] != request.WORKSPACE:
            return
        archive = request.folder_archive(request.WORKSPACE, body["User"])
        try:
            async with self._engine.asked():
                await container.put_archive("/", archive)
        except DockerError as error:
            raise Unusable(
                "ENGINE_REFUSED", f"the engine does not make a workspace: {error.message[:500]}"
            ) from None

    async def _remove(self, container: Any) -> None:
        with suppress(DockerError):
            async with self._engine.asked():
                await container.delete(force=True, v=True)

    async def start(self, environment_id: str) -> None:
        machine = self._known(environment_id)
        await machine.start()
        policy = self._policies.pop(environment_id, None)
        if policy is not None and machine.kept.has_network:
            try:
                await self._attach(machine, policy)
            except BaseException:
                machine.reach.kill()
                raise

    async def _attach(self, machine: Machine, policy: NetworkPolicy) -> None:
        """Give a container its network; its first moments are without one."""
        if self._network is None:
            raise Unusable("NO_NETWORK", f"environments have no network here: {self._no_network}")
        namespace = machine.reach.network_namespace()
        try:
            address = await self._network.attach(machine.name, namespace, policy)
        finally:
            os.close(namespace)
        self._tell_nameservers(machine, address)

    def _tell_nameservers(self, machine: Machine, address: Address | None) -> None:
        servers = () if address is None else tuple(map(str, address.nameservers))
        (self._folder_of(machine.name) / _RESOLV_CONF).write_text(resolv_conf(servers))

    async def change_network(self, environment_id: str, policy: NetworkPolicy) -> None:
        machine = self._machine(environment_id)
        if machine.kept.has_network and self._network is not None and not self._no_network:
            address = await self._network.change(environment_id, policy)
            self._tell_nameservers(machine, address)
        elif policy.allow_internet or policy.allowed_egress:
            raise Unusable(
                "NO_NETWORK",
                f"environment {environment_id!r} was made without a network; make another one",
            )
        if policy.allowed_ingress_ports != machine.kept.ports:
            machine.kept = replace(machine.kept, ports=policy.allowed_ingress_ports)
            path = self._folder_of(environment_id) / _PORTS
            new = path.with_suffix(".new")  # whole or not at all: it is read by the next server
            new.write_text(json.dumps(policy.allowed_ingress_ports))
            new.replace(path)

    async def wait(self, environment_id: str) -> Exit:
        return await self._known(environment_id).wait()

    async def exec(self, environment_id: str, command: Command) -> Running:
        return await self._machine(environment_id).exec(command)

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        folder = self._known(environment_id).folder
        reader = Reader(folder, self._log_cache, self._bells)
        if tail is not None:
            after = max(after, reader.after_of_tail(tail))

        def is_over() -> bool:
            machine = self._machines.get(environment_id)
            return machine is None or not machine.is_alive

        async for lines in reader.follow(after, is_over=is_over, follow=follow):
            for line in lines:
                yield line

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        self._machine(environment_id).log(stream, lines)

    async def stats(self, environment_id: str) -> Stats:
        return await self._machine(environment_id).stats()

    async def processes(self, environment_id: str) -> Sequence[Process]:
        return self._machine(environment_id).reach.processes()

    async def signal(self, environment_id: str, pid: int, number: int) -> None:
        if not self._machine(environment_id).reach.signal(pid, number):
            raise Gone(f"environment {environment_id!r} has no process {pid} that takes signals")

    async def pause(self, environment_id: str) -> None:
        machine = self._machine(environment_id)
        await self._ask(machine, machine.pause())

    async def resume(self, environment_id: str) -> None:
        machine = self._machine(environment_id)
        await self._ask(machine, machine.resume())

    async def _ask(self, machine: Machine, question: Any) -> Any:
        try:
            async with self._engine.asked():
                return await question
        except DockerError as error:
            if error.status == _NOT_FOUND or not machine.is_alive:
                raise Gone(f"there is no machine {machine.name!r}") from None
            raise Unusable("ENGINE_REFUSED", f"the engine refuses: {error.message[:500]}") from None

    async def connect(self, environment_id: str, port: int) -> Connection:
        machine = self._machine(environment_id)
        if port not in machine.kept.ports:
            raise port_closed(environment_id, port, machine.kept.ports)
        return await open_port(machine, port)

    async def listen(self, environment_id: str, port: int) -> Listener:
        machine = self._machine(environment_id)
        return await listen(machine, port, machine.wait())

    async def snapshot(self, environment_id: str, name: str) -> int:
        machine = self._machine(environment_id)
        wanted = canonical(name)
        if self._engine.root is not None:
            used_bytes = await self._ask(machine, machine.storage_bytes())
            must_fit(self._engine.root, used_bytes or 0, "the snapshot")
        repository, _, tag = wanted.partition(":")
        commit = machine.container.commit(
            repository=repository,
            tag=tag or "latest",
            # Variables are the environment's, and may be secrets: an engine would keep them.
            changes=await self._ask(machine, self._variables_of_image(machine)),
            config={},  # Podman refuses a commit without a body
        )
        await self._ask(machine, commit)
        return (await self._images.find(wanted)).size_bytes

    async def _variables_of_image(self, machine: Machine) -> list[str]:
        """What to change of a container, for its variables to be those of its image."""
        told = await machine.container.show()
        image = await self._engine.docker.images.inspect(told["Image"])
        before = request.variables((image.get("Config") or {}).get("Env"))
        now = request.variables((told.get("Config") or {}).get("Env"))
        return request.changes(before, now)

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        machine = self._known(environment_id)
        if machine.is_alive:
            if machine.is_paused:
                with suppress(Unusable, Gone):
                    await self._ask(machine, machine.resume())
            if grace_s > 0:
                await self._ask_to_stop(machine, grace_s)
            if machine.is_alive:
                machine.is_deleted = True
                machine.reach.kill()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_ANSWER_S):
                        await machine.wait()
        await self._bells.last_call(machine.folder, _LAST_LINES_S)
        if self._network is not None and not self._no_network:
            await self._network.detach(environment_id)
        await self._remove_dead(machine)
        await machine.aclose()
        self._machines.pop(environment_id, None)
        self._policies.pop(environment_id, None)
        self._log_cache.forget(machine.folder)
        await asyncio.to_thread(remove_tree, machine.folder.parent, ignore_errors=True)

    async def _remove_dead(self, machine: Machine) -> None:
        """Remove a container that has ended; its engine may be about to notice."""
        for attempt in range(_REMOVALS):
            try:
                async with self._engine.asked():
                    await machine.container.delete(force=True, v=True)
            except DockerError as error:
                if error.status == _NOT_FOUND:
                    return
                if attempt == _REMOVALS - 1:
                    raise Unusable(
                        "ENGINE_REFUSED",
                        f"the engine does not remove a container: {error.message[:500]}",
                    ) from None
                await asyncio.sleep(0.05 * 2**attempt)
            else:
                return

    async def _ask_to_stop(self, machine: Machine, grace_s: float) -> None:
        with suppress(DockerError, TimeoutError):
            async with self._engine.asked():
                await machine.container.kill(signal="SIGTERM")
            async with asyncio.timeout(grace_s):
                await machine.wait()

    async def list_owned(self) -> Sequence[Owned]:
        return [
            Owned(name, machine.is_alive, exit_of(machine.folder))
            for name, machine in self._machines.items()
        ]


def _check_host() -> None:
    """What can be seen without an engine.

    Raises:
        Unusable: reason NO_REACH.
    """
    if platform.system() != "Linux" or platform.machine() not in AUDIT_ARCH:
        raise Unusable(
            "NO_REACH",
            f"containers are filtered and watched on Linux, {' or '.join(sorted(AUDIT_ARCH))}; "
            f"this is {platform.system()} {platform.machine()}",
        )
    if os.geteuid() != 0:
        raise Unusable(
            "NO_REACH",
            f"the server runs as user {os.geteuid()}; it ends commands through the control groups "
            "of containers and goes into their files, so run it as root on the engine's host",
        )


def _hard_limit(name: int) -> int:
    _, hard = resource.getrlimit(name)
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard
