"""The driver of clusters.

It keeps nothing of machines that the cluster does not keep as well, but for numbered logs: whose
they are stands in labels, and one watch tells of all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import structlog

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
from steward_server.environments.environment import NetworkPolicy, Spec
from steward_server.environments.kubernetes import inside, offer, probing, scripts
from steward_server.environments.kubernetes.cluster import Cluster, Object, Refused, in_namespace
from steward_server.environments.kubernetes.files import PodFiles
from steward_server.environments.kubernetes.logs import Logs
from steward_server.environments.kubernetes.making import Maker
from steward_server.environments.kubernetes.marks import CONTAINER, POD, Owner
from steward_server.environments.kubernetes.objects import amount
from steward_server.environments.kubernetes.pods import Pods, gone
from steward_server.environments.kubernetes.policies import Network, Surroundings
from steward_server.environments.kubernetes.ports import open_port
from steward_server.environments.kubernetes.running import RunningCommand
from steward_server.environments.kubernetes.states import condition
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

_LOOK_AROUND_S = 60.0
"""How old what is known of the cluster's addresses may be when walls are built."""
_CAPACITY_S = 10.0
_SAMPLE_S = 0.25
_LEFT_AT_ONCE, _LEFT_LIMIT_S = 20, 15.0
_NOT_OPEN = "the driver is not open yet"


class KubernetesDriver:
    """The cluster's `Driver`."""

    files: Files

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        *,
        server: str = "",
        namespace_prefix: str = "agentbox-",
        runtime_class: str = "",
        network: Literal["auto", "enforced"] = "auto",
        cluster_ranges: Sequence[Network] = (),
        most_life_s: int | None = None,
        start_timeout_s: float = 110.0,
        log_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        """Take where and how.

        `server` marks what is made as this server's; by itself a hash of the folder.
        `runtime_class` is for environments that name none. `network` says that policies are
        enforced where no plugin that is known to do so is found. `cluster_ranges` are closed
        beside those that the cluster tells of itself. `most_life_s` is the longest life of a pod,
        whatever becomes of this server.
        """
        self._cluster = cluster
        self._owner = Owner(
            server or hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:10],
            namespace_prefix,
        )
        self._pods = Pods(cluster, self._owner)
        self._logs = Logs(folder / "logs", cluster, self._owner, self._pods, most_bytes=log_bytes)
        self._maker = Maker(
            cluster,
            self._owner,
            self._pods,
            most_life_s=most_life_s,
            start_timeout_s=start_timeout_s,
        )
        self._runtime_class = runtime_class
        self._is_trusted = network == "enforced"
        self._cluster_ranges = tuple(cluster_ranges)
        self._found = probing.Found()
        self._around: tuple[float, Surroundings] | None = None
        self._room: tuple[float, Capacity | Unavailable] | None = None
        self._counting = asyncio.Lock()
        self._is_open = False
        self._samples: dict[str, tuple[float, int]] = {}
        self._made: set[str] = set()
        """Made, and not started yet as far as whoever asks knows."""
        self._capabilities = Capabilities(offer.DRIVER, "", unusable=_NOT_OPEN)
        self.files = PodFiles(self)

    def capabilities(self) -> Capabilities:
        return self._capabilities

    async def open(self) -> None:
        if not self._is_open:
            try:
                await self._cluster.open()
            except Unavailable as error:
                self._cannot(str(error))
                return
            self._pods.start()
            self._is_open = True
        if await self._probe():
            await self._end_left_commands()

    async def aclose(self) -> None:
        await self._logs.aclose()
        await self._pods.aclose()
        await self._cluster.aclose()

    async def _probe(self) -> bool:
        """Find out what the cluster can do; whether it answers."""
        try:
            found = await probing.probe(self._cluster)
        except (Refused, Unavailable) as error:
            self._cannot(str(error))
            return False
        self._found = found
        unusable = ""
        if found.lacks:
            unusable = (
                f"this server's account on the cluster may not {', '.join(found.lacks)}; give it a "
                "role with these rights"
            )
        elif self._runtime_class and self._runtime_class not in found.runtime_classes:
            unusable = (
                f"the cluster has no runtime class {self._runtime_class!r}, which environments are "
                "to have; install it or name another"
            )
        if unusable:
            self._cannot(unusable)
            return False
        self._capabilities = offer.capabilities(
            version=found.version,
            plugin=found.plugin,
            is_trusted=self._is_trusted,
            runtime_classes=found.runtime_classes,
        )
        return True

    def _cannot(self, why: str) -> None:
        self._capabilities = Capabilities(offer.DRIVER, "", unusable=why, may_come=True)

    async def _end_left_commands(self) -> None:
        """End commands that nobody holds any more: the server that started them is gone."""
        at_once = asyncio.Semaphore(_LEFT_AT_ONCE)

        async def end(environment_id: str) -> None:
            async with at_once:
                try:
                    pod = await self._running(environment_id)
                    await inside.end(
                        self._cluster,
                        self._path(pod, "exec"),
                        scripts.ANY_MARK,
                        signal.SIGKILL,
                        whole=False,
                        is_over=lambda: self._has_ended(environment_id),
                    )
                except (Gone, Refused, Unavailable, Unusable, TimeoutError) as error:
                    log.warning(
                        "kubernetes.left_commands", environment_id=environment_id, error=str(error)
                    )

        try:
            names = await self._maker.namespaces()
            async with asyncio.timeout(_LEFT_LIMIT_S):
                await asyncio.gather(*map(end, names))
        except (Refused, Unavailable, TimeoutError) as error:
            log.warning("kubernetes.left_commands", error=str(error))

    async def capacity(self) -> Capacity:
        """What the cluster has left, some seconds old at most."""
        async with self._counting:
            now_s = time.monotonic()
            if self._room is None or now_s - self._room[0] > _CAPACITY_S:
                self._room = (now_s, await self._counted())
            told = self._room[1]
        if isinstance(told, Unavailable):
            raise told
        return told

    async def _counted(self) -> Capacity | Unavailable:
        try:
            return await probing.capacity(self._cluster)
        except Unavailable as error:
            return error
        except Refused as error:
            return Unavailable(
                f"the cluster does not say what it has: {error}", reason="CLUSTER_FAILED"
            )

    # Machines.

    async def create(self, environment_id: str, spec: Spec) -> None:
        """Make a machine. Its main command runs as soon as its pod does."""
        if self._capabilities.unusable:
            raise Unusable("CLUSTER_UNREACHABLE", self._capabilities.unusable)
        offer.refuse(spec, self._found.runtime_classes)
        name = spec.runtime_class or self._runtime_class
        runtime = self._found.runtime_classes[name] if name else None
        await self._maker.make(environment_id, spec, runtime, await self._look_around())
        self._made.add(environment_id)

    async def _look_around(self) -> Surroundings:
        now_s = time.monotonic()
        if self._around is None or now_s - self._around[0] > _LOOK_AROUND_S:
            self._around = (now_s, await probing.surroundings(self._cluster))
        around = self._around[1]
        return Surroundings((*around.ranges, *self._cluster_ranges), around.server_namespace)

    async def start(self, environment_id: str) -> None:
        """Nothing is left to do once it is made: a pod that exists has been started."""
        await self._pods.find(environment_id)
        if environment_id not in self._made:
            raise Unusable("ALREADY_STARTED", f"{environment_id!r} was started before")
        self._made.discard(environment_id)

    async def wait(self, environment_id: str) -> Exit:
        async with aclosing(self._pods.follow(environment_id)) as changes:
            async for pod in changes:
                told = condition(pod)
                if told.exit is not None:
                    return told.exit
                if told.fault is not None:
                    return Exit(127)
        raise gone(environment_id)

    async def exec(self, environment_id: str, command: Command) -> Running:
        pod = await self._running(environment_id)
        user = pod["spec"]["securityContext"]["runAsUser"]
        if command.user not in (None, user):
            raise Unusable(
                "BAD_USER",
                f"a cluster runs all commands of an environment as one user, here {user}; leave it "
                f"out, or make the environment with run_as_user {command.user}",
            )
        path = self._path(pod, "exec")

        async def end(mark: str, number: int, whole: bool) -> bool:  # noqa: FBT001
            return await inside.end(
                self._cluster,
                path,
                mark,
                number,
                whole=whole,
                is_over=lambda: self._has_ended(environment_id),
            )

        try:
            return await RunningCommand.start(self._cluster, path, command, end=end)
        except (Refused, Unusable, TimeoutError) as error:
            raise await self._not_run(environment_id, error) from error

    async def run(self, environment_id: str, script: str, *words: str) -> bytes:
        """What a script of the server's own has to say; raises as `exec`."""
        pod = await self._running(environment_id)
        try:
            return await inside.run(self._cluster, self._path(pod, "exec"), script, *words)
        except (Refused, Unusable, TimeoutError) as error:
            raise await self._not_run(environment_id, error) from error

    async def _running(self, environment_id: str) -> Object:
        """The pod of a machine whose main command runs; without that nothing can be run in it."""
        pod = await self._pods.find(environment_id)
        told = condition(pod)
        if told.exit is not None or told.fault is not None:
            raise Gone(f"the main command of {environment_id!r} has ended, and its machine with it")
        return pod

    async def _has_ended(self, environment_id: str) -> bool:
        try:
            told = condition(await self._pods.ask(environment_id))
        except Gone:
            return True
        except (Refused, Unavailable):  # nobody can say
            return False
        return told.exit is not None or told.fault is not None

    async def _not_run(self, environment_id: str, error: Exception) -> Exception:
        """Why something could not be run, in words for who wanted it."""
        if isinstance(error, Unusable) and error.reason not in ("CANNOT_START", "NO_SHELL"):
            return error
        if await self._has_ended(environment_id):
            return gone(environment_id)
        if isinstance(error, Unusable):
            return error
        if isinstance(error, Refused) and error.status == 403:
            return Unusable(
                "FORBIDDEN", f"this server's account may not run commands: {error.text}"
            )
        return Unavailable(
            f"the cluster could not run a command: {error or 'it does not answer'}",
            reason="CLUSTER_FAILED",
        )

    def _path(self, pod: Object, sub: str) -> str:
        return in_namespace(pod["metadata"]["namespace"], "pods", POD, sub)

    # What goes on in them.

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        async with aclosing(
            self._logs.read(environment_id, after=after, tail=tail, follow=follow)
        ) as records:
            async for record in records:
                yield record

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        await self._pods.find(environment_id)
        self._logs.book(environment_id).add(stream, [line.encode() for line in lines])

    async def stats(self, environment_id: str) -> Stats:
        """By the cluster's metrics where it has them, else by what the pod can see of itself."""
        pod = await self._running(environment_id)
        measured, (count, used) = await asyncio.gather(
            self._measured(pod), self._use(environment_id)
        )
        if measured is None:
            cpu = await self._cpu(environment_id, used)
            measured = cpu, used.get("memory", 0)
        return Stats(
            cpu_millicores=measured[0],
            memory_bytes=measured[1],
            storage_bytes=None,
            process_count=count,
        )

    async def _measured(self, pod: Object) -> tuple[int, int] | None:
        if not self._found.has_metrics:
            return None
        namespace = pod["metadata"]["namespace"]
        try:
            told = await self._cluster.get(
                f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{POD}"
            )
        except (Refused, Unavailable):  # not measured yet
            return None
        for each in told.get("containers") or ():
            if each["name"] == CONTAINER:
                usage = each["usage"]
                return round(amount(usage["cpu"]) * 1_000), int(amount(usage["memory"]))
        return None

    async def _use(self, environment_id: str) -> tuple[int, dict[str, int]]:
        count, used = inside.use(await self.run(environment_id, scripts.USE))
        return count, dict(used)

    async def _cpu(self, environment_id: str, used: dict[str, int]) -> int:
        """Thousandths of a core since it was last asked."""
        now, cpu_us = time.monotonic(), _cpu_us(used)
        before = self._samples.get(environment_id)
        if before is None:
            await asyncio.sleep(_SAMPLE_S)
            before = now, cpu_us
            _, used = await self._use(environment_id)
            now, cpu_us = time.monotonic(), _cpu_us(used)
        self._samples[environment_id] = now, cpu_us
        return max(0, round((cpu_us - before[1]) / 1_000 / max(now - before[0], 0.001)))

    async def processes(self, environment_id: str) -> Sequence[Process]:
        return inside.processes(await self.run(environment_id, scripts.PROCESSES))

    async def signal(self, environment_id: str, pid: int, number: int) -> None:
        told = await self.run(environment_id, scripts.SIGNAL, str(pid), str(number))
        if told.strip() == b"gone":
            raise Gone(f"environment {environment_id!r} has no process {pid}")
        if told.strip():
            raise Unusable("NOT_PERMITTED", f"process {pid} takes no signals from here")

    async def pause(self, environment_id: str) -> None:
        await self._pods.find(environment_id)
        raise offer.unsupported("pause")

    async def resume(self, environment_id: str) -> None:
        await self._pods.find(environment_id)
        raise offer.unsupported("resume")

    async def change_network(self, environment_id: str, policy: NetworkPolicy) -> None:
        del policy
        await self._pods.find(environment_id)
        raise offer.unsupported("change the network of")

    async def snapshot(self, environment_id: str, name: str) -> int:
        del name
        await self._pods.find(environment_id)
        raise offer.unsupported("take a snapshot of")

    async def connect(self, environment_id: str, port: int) -> Connection:
        pod = await self._running(environment_id)
        told = pod["spec"]["containers"][0].get("ports") or ()
        allowed = [each["containerPort"] for each in told]
        if port not in allowed:
            raise port_closed(environment_id, port, allowed)
        try:
            forward = await open_port(self._cluster, self._path(pod, "portforward"), port)
        except Refused as error:
            raise await self._not_run(environment_id, error) from error
        return forward, forward

    async def listen(self, environment_id: str, port: int) -> Listener:
        await self._running(environment_id)
        raise offer.unsupported(f"listen on port {port} of")

    # The end.

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        await self._maker.remove(environment_id, grace_s=grace_s)
        self._samples.pop(environment_id, None)
        self._made.discard(environment_id)
        await self._logs.forget(environment_id)

    async def list_owned(self) -> Sequence[Owned]:
        names = await self._maker.namespaces()
        owned = []
        for name in names:
            try:
                pod = await self._pods.find(name)
            except Gone:  # half made, or its pod was deleted by somebody else
                owned.append(Owned(name, is_alive=False))
                continue
            told = condition(pod)
            is_over = told.exit is not None or told.fault is not None
            is_going = bool(pod["metadata"].get("deletionTimestamp"))
            owned.append(Owned(name, is_alive=not is_over and not is_going, exit=told.exit))
        self._logs.keep_only(set(names))
        return owned


def _cpu_us(used: dict[str, int]) -> int:
    return used.get("cpu_us", used.get("cpu_ns", 0) // 1_000)
