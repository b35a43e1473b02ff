"""The pods of this server, as one watch of them all keeps telling."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from steward_server.environments.driver import Gone
from steward_server.environments.kubernetes.cluster import Cluster, Object, Refused, in_namespace
from steward_server.environments.kubernetes.marks import POD, Owner

_LOOK_AGAIN_S = 30.0
"""How long nothing is heard of a pod before it is asked for, should the watch have gone astray."""


class Pods:
    """What is known of them. Start it, and close it."""

    def __init__(self, cluster: Cluster, owner: Owner) -> None:
        self._cluster = cluster
        self._owner = owner
        self._known: dict[str, Object] = {}
        self._waits: dict[str, set[asyncio.Future[None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(
            self._cluster.watch(
                "/api/v1/pods",
                {"labelSelector": self._owner.selector},
                listed=self._listed,
                changed=self._changed,
            )
        )

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def heard(self, pod: Object) -> None:
        """Take what the API has answered itself."""
        if (name := self._name(pod)) is not None:
            self._known[name] = pod
            self._tell(name)

    async def find(self, environment_id: str) -> Object:
        """The pod of an environment.

        Raises:
            Gone: it has none.
        """
        return self._known.get(environment_id) or await self.ask(environment_id)

    async def ask(self, environment_id: str) -> Object:
        """The pod of an environment, as it is now; raises as `find`."""
        namespace = self._owner.namespace(environment_id)
        if namespace is None:
            raise gone(environment_id)
        try:
            pod = await self._cluster.get(in_namespace(namespace, "pods", POD))
        except Refused as refusal:
            if refusal.status != 404:
                raise
            self._forget(environment_id)
            raise gone(environment_id) from None
        if self._name(pod) != environment_id:  # somebody else's, by the same name
            raise gone(environment_id)
        self.heard(pod)
        return pod

    async def follow(self, environment_id: str) -> AsyncGenerator[Object, None]:
        """The pod of an environment, and again whenever it changes; raises as `find`."""
        seen: Object | None = None
        while True:
            wait = asyncio.get_running_loop().create_future()
            self._waits.setdefault(environment_id, set()).add(wait)
            try:
                pod = await self.find(environment_id)
                if pod is not seen:
                    seen = pod
                    yield pod
                    continue
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await wait
                except TimeoutError:
                    await self.ask(environment_id)
            finally:
                self._leave(environment_id, wait)

    def _leave(self, environment_id: str, wait: asyncio.Future[None]) -> None:
        waits = self._waits.get(environment_id, set())
        waits.discard(wait)
        if not waits:
            self._waits.pop(environment_id, None)

    async def _listed(self, pods: Sequence[Object]) -> None:
        found = {name: pod for pod in pods if (name := self._name(pod)) is not None}
        for name in self._known.keys() - found.keys():
            self._forget(name)
        for name, pod in found.items():
            self._known[name] = pod
            self._tell(name)

    async def _changed(self, kind: str, pod: Object) -> None:
        name = self._name(pod)
        if name is None:
            return
        if kind == "DELETED":
            self._forget(name)
        else:
            self._known[name] = pod
            self._tell(name)

    def _forget(self, name: str) -> None:
        self._known.pop(name, None)
        self._tell(name)

    def _tell(self, name: str) -> None:
        for wait in self._waits.get(name, ()):
            if not wait.done():
                wait.set_result(None)

    def _name(self, pod: Mapping[str, Any]) -> str | None:
        metadata = pod["metadata"]
        name = self._owner.environment_of(metadata.get("labels") or {})
        if name is None or metadata["name"] != POD:
            return None
        return name if self._owner.namespace(name) == metadata["namespace"] else None


def gone(environment_id: str) -> Gone:
    """That there is no such machine."""
    return Gone(f"there is no machine {environment_id!r}")
