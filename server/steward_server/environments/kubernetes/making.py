"""How a machine comes to be on a cluster, and how it goes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import aclosing, suppress
from uuid import uuid4

import structlog

from steward_server.environments.driver import Gone, Unusable
from steward_server.environments.environment import Spec
from steward_server.environments.kubernetes import objects, policies
from steward_server.environments.kubernetes.cluster import Cluster, Object, Refused, in_namespace
from steward_server.environments.kubernetes.marks import MAKING, POD, Owner
from steward_server.environments.kubernetes.objects import RuntimeClass
from steward_server.environments.kubernetes.pods import Pods, gone
from steward_server.environments.kubernetes.policies import Surroundings
from steward_server.environments.kubernetes.states import Condition, condition
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

_NAMESPACES = "/api/v1/namespaces"
_SETTLE_S = 20.0
"""How long a new namespace is waited for: its service account and its quota come by themselves."""
_UNSETTLED = ("status unknown for quota", "serviceaccount", "service account")
_POLL_S = 0.1
_CONFIRM_S = 20.0
"""How long beyond its grace a node has to confirm the end of a pod, before it is taken for dead."""


class Maker:
    """Makes and removes machines."""

    def __init__(
        self,
        cluster: Cluster,
        owner: Owner,
        pods: Pods,
        *,
        most_life_s: int | None,
        start_timeout_s: float,
    ) -> None:
        self._cluster = cluster
        self._owner = owner
        self._pods = pods
        self._most_life_s = most_life_s
        self._start_timeout_s = start_timeout_s

    async def make(
        self, environment_id: str, spec: Spec, runtime: RuntimeClass | None, around: Surroundings
    ) -> None:
        """Make a machine, and wait until its main command runs; nothing is left if that fails.

        Raises:
            Unusable: it cannot be made as it is wanted, with the cluster's own words.
        """
        namespace = self._namespace(environment_id)
        labels = self._owner.labels(environment_id, spec.labels)
        walls = policies.policies(labels, spec.network, around)
        pod = objects.pod(
            environment_id,
            labels,
            spec,
            runtime_class=runtime.name if runtime else "",
            most_life_s=self._most_life_s,
        )
        around_it = objects.namespace(namespace, labels, spec.security, making=uuid4().hex)
        try:
            await self._make_namespace(around_it)
        except BaseException:
            await asyncio.shield(self._take_back_unanswered(environment_id, around_it))
            raise
        try:
            await self._add(
                in_namespace(namespace, "resourcequotas"), objects.quota(labels, spec, runtime)
            )
            for wall in walls:
                await self._add(
                    f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies", wall
                )
            self._pods.heard(await self._make_pod(namespace, pod))
            await self._started(environment_id)
        except BaseException:
            await asyncio.shield(self._take_back(environment_id))
            raise

    def _namespace(self, environment_id: str) -> str:
        namespace = self._owner.namespace(environment_id)
        if namespace is None:
            raise Unusable("BAD_NAME", f"{environment_id!r} cannot be in the name of a namespace")
        return namespace

    async def _make_namespace(self, namespace: Object) -> None:
        """Make it, after one of the same name that is on its way out."""
        name = namespace["metadata"]["name"]
        deadline = asyncio.get_running_loop().time() + self._start_timeout_s
        while True:
            try:
                await self._cluster.create(_NAMESPACES, namespace)
                return
            except Refused as refusal:
                if refusal.status != 409:
                    raise _cannot(refusal) from refusal
            found = await self._found(name)
            if found is not None and _is_of_one_making(found, namespace):
                return  # an attempt whose answer was lost
            if found is not None and not found["metadata"].get("deletionTimestamp"):
                raise Unusable("ALREADY_EXISTS", f"the cluster already has a namespace {name!r}")
            if asyncio.get_running_loop().time() > deadline:
                raise Unusable(
                    "ALREADY_EXISTS",
                    f"the namespace {name!r} is being deleted, which does not come to an end",
                )
            await asyncio.sleep(_POLL_S)

    async def _found(self, name: str) -> Object | None:
        """A namespace; None if there is none."""
        try:
            return await self._cluster.get(f"{_NAMESPACES}/{name}")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def _add(self, path: str, made: Object) -> None:
        try:
            await self._cluster.create(path, made)
        except Refused as refusal:
            if refusal.status != 409:  # an attempt whose answer was lost
                raise _cannot(refusal) from refusal

    async def _make_pod(self, namespace: str, pod: Object) -> Object:
        deadline = asyncio.get_running_loop().time() + _SETTLE_S
        path = in_namespace(namespace, "pods")
        while True:
            try:
                return await self._cluster.create(path, pod)
            except Refused as refusal:
                # A second one is over the quota before its name is looked at.
                is_there = refusal.status == 409 or "exceeded quota" in refusal.text
                if is_there and (found := await self._pod(path)) is not None:
                    return found
                is_settling = refusal.status == 403 and any(
                    each in refusal.text for each in _UNSETTLED
                )
                if not is_settling or asyncio.get_running_loop().time() > deadline:
                    raise _cannot(refusal) from refusal
            await asyncio.sleep(_POLL_S)

    async def _pod(self, path: str) -> Object | None:
        try:
            return await self._cluster.get(f"{path}/{POD}")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def _started(self, environment_id: str) -> None:
        told = Condition()
        try:
            async with (
                asyncio.timeout(self._start_timeout_s),
                aclosing(self._pods.follow(environment_id)) as changes,
            ):
                async for pod in changes:
                    told = condition(pod)
                    if told.fault is not None:
                        raise told.fault
                    if told.is_running or told.exit is not None:
                        return
        except Gone:
            raise Unusable("DELETED", "its pod was deleted by somebody else") from None
        except TimeoutError:
            why = told.waits_for or "the cluster does not say why"
            raise Unusable(
                "START_TIMEOUT", f"its pod did not run within {self._start_timeout_s:g} s: {why}"
            ) from None

    async def _take_back_unanswered(self, environment_id: str, namespace: Object) -> None:
        """Remove a namespace that was made all the same, though nobody was told."""
        name = namespace["metadata"]["name"]
        try:
            found = await self._found(name)
        except (Refused, Unavailable) as error:
            log.warning("kubernetes.not_taken_back", path=name, error=str(error))
            return
        if found is not None and _is_of_one_making(found, namespace):
            await self._take_back(environment_id)

    async def _take_back(self, environment_id: str) -> None:
        """Remove what was made; the cluster goes on with it by itself."""
        namespace = self._namespace(environment_id)
        for path in (in_namespace(namespace, "pods", POD), f"{_NAMESPACES}/{namespace}"):
            try:
                await self._cluster.delete(path, grace_s=1 if path.endswith(POD) else None)
            except Refused as refusal:
                if refusal.status != 404:
                    log.warning("kubernetes.not_taken_back", path=path, error=str(refusal))
            except Exception:
                log.exception("kubernetes.not_taken_back", path=path)

    async def remove(self, environment_id: str, *, grace_s: float) -> None:
        """End a machine: its pod first, then all that stands around it.

        Returns when no process of it is left; the empty namespace may take some seconds more.

        Raises:
            Gone: there is none.
            Refused, Unavailable: it could not be removed.
        """
        await self._must_be_ours(environment_id)
        namespace = self._namespace(environment_id)
        path = in_namespace(namespace, "pods", POD)
        # 0 would take it for gone before its node has ended it.
        for grace, limit_s in ((max(1, math.ceil(grace_s)), grace_s + _CONFIRM_S), (0, _CONFIRM_S)):
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._end_pod(environment_id, path, grace)
                break
            log.warning("kubernetes.pod_not_confirmed", environment_id=environment_id)
        try:
            await self._cluster.delete(f"{_NAMESPACES}/{namespace}")
        except Refused as refusal:
            if refusal.status not in (404, 409):  # gone, or on its way
                raise

    async def _end_pod(self, environment_id: str, path: str, grace_s: int) -> None:
        try:
            self._pods.heard(await self._cluster.delete(path, grace_s=grace_s))
        except Refused as refusal:
            if refusal.status != 404:
                raise
        with suppress(Gone):
            while True:
                await self._pods.ask(environment_id)
                await asyncio.sleep(_POLL_S)

    async def _must_be_ours(self, environment_id: str) -> None:
        name = self._owner.namespace(environment_id)
        if name is None:
            raise gone(environment_id)
        try:
            found = await self._cluster.get(f"{_NAMESPACES}/{name}")
        except Refused as refusal:
            if refusal.status == 404:
                raise gone(environment_id) from None
            raise
        if self._owner.environment_of(found["metadata"].get("labels") or {}) != environment_id:
            raise gone(environment_id)

    async def namespaces(self) -> Sequence[str]:
        """The environments that have a namespace which is not on its way out."""
        found, _ = await self._cluster.all_of(_NAMESPACES, {"labelSelector": self._owner.selector})
        names = []
        for each in found:
            metadata = each["metadata"]
            name = self._owner.environment_of(metadata.get("labels") or {})
            is_ours = name is not None and self._owner.namespace(name) == metadata["name"]
            if name is not None and is_ours and not metadata.get("deletionTimestamp"):
                names.append(name)
        return names


def _is_of_one_making(found: Object, made: Object) -> bool:
    """Whether a namespace is the one that was to be made, and stays."""
    told = found["metadata"]
    wanted = made["metadata"]
    return (
        (told.get("annotations") or {}).get(MAKING) == wanted["annotations"][MAKING]
        and wanted["labels"].items() <= (told.get("labels") or {}).items()
        and not told.get("deletionTimestamp")
    )


def _cannot(refusal: Refused) -> Unusable:
    """A refusal, in the cluster's words."""
    reason = {403: "REFUSED_BY_CLUSTER", 422: "INVALID", 400: "INVALID"}.get(
        refusal.status, "CLUSTER_FAILED"
    )
    return Unusable(reason, f"the cluster refuses it: {refusal.text}")
