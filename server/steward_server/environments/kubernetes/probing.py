"""Finds out what a cluster is and has, and what this server's account may do there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steward_server.environments.driver import Capacity
from steward_server.environments.kubernetes import capacity as room
from steward_server.environments.kubernetes.cluster import Cluster, Object, Refused
from steward_server.environments.kubernetes.objects import RuntimeClass
from steward_server.environments.kubernetes.policies import Surroundings

NEEDED = (
    ("create", "", "namespaces", ""),
    ("delete", "", "namespaces", ""),
    ("get", "", "namespaces", ""),
    ("list", "", "namespaces", ""),
    ("create", "", "resourcequotas", ""),
    ("create", "networking.k8s.io", "networkpolicies", ""),
    ("create", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("get", "", "pods", ""),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("get", "", "pods", "log"),
    ("create", "", "pods", "exec"),
    ("get", "", "pods", "exec"),  # what clusters before 1.35 ask for a WebSocket
)
"""Without these no environment can be made or kept: verb, group, resource, subresource."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a cluster is and has."""

    version: str = ""
    plugin: str = ""
    """The network plugin that enforces policies, as far as one is known."""
    has_metrics: bool = False
    runtime_classes: Mapping[str, RuntimeClass] = field(default_factory=dict)
    lacks: Sequence[str] = ()
    """What this server's account may not do and must."""


async def probe(cluster: Cluster) -> Found:
    """Find it out.

    Raises:
        Refused, Unavailable: it does not even say its version.
    """
    version = await cluster.get("/version")
    sets, classes, metrics, lacks = await asyncio.gather(
        _all(cluster, "/apis/apps/v1/daemonsets"),
        _all(cluster, "/apis/node.k8s.io/v1/runtimeclasses"),
        _has(cluster, "/apis/metrics.k8s.io/v1beta1"),
        _lacks(cluster),
    )
    return Found(
        version=str(version.get("gitVersion", "")),
        plugin=room.plugin(sets),
        has_metrics=metrics,
        runtime_classes={
            name: RuntimeClass(name, (each.get("overhead") or {}).get("podFixed") or {})
            for each in classes
            for name in (each["metadata"]["name"],)
        },
        lacks=lacks,
    )


async def surroundings(cluster: Cluster) -> Surroundings:
    """What stands around environments now; what may not be looked at is left out."""
    nodes, services, endpoints = await asyncio.gather(
        _all(cluster, "/api/v1/nodes"),
        _all(cluster, "/apis/networking.k8s.io/v1/servicecidrs"),
        _all(
            cluster,
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            {"labelSelector": "kubernetes.io/service-name=kubernetes"},
        ),
    )
    return Surroundings(room.ranges(nodes, services, endpoints), cluster.own_namespace())


async def capacity(cluster: Cluster) -> Capacity:
    """The room there is now.

    Raises:
        Refused, Unavailable: the cluster does not say.
    """
    version, (nodes, _), (pods, _) = await asyncio.gather(
        cluster.get("/version"),
        cluster.all_of("/api/v1/nodes"),
        cluster.all_of(
            "/api/v1/pods", {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
        ),
    )
    return room.capacity(str(version.get("gitVersion", "")), nodes, pods)


async def _all(
    cluster: Cluster, path: str, query: Mapping[str, str] | None = None
) -> Sequence[Object]:
    """A collection; nothing if the cluster has none such, or does not show it."""
    try:
        items, _ = await cluster.all_of(path, query)
    except Refused:
        return ()
    return items


async def _has(cluster: Cluster, path: str) -> bool:
    try:
        await cluster.get(path)
    except Refused:
        return False
    return True


async def _lacks(cluster: Cluster) -> Sequence[str]:
    answers = await asyncio.gather(*(_may(cluster, *each) for each in NEEDED))
    return [
        f"{verb} {resource}{'/' + sub if sub else ''}"
        for (verb, _, resource, sub), may in zip(NEEDED, answers, strict=True)
        if not may
    ]


async def _may(cluster: Cluster, verb: str, group: str, resource: str, sub: str) -> bool:
    """Whether the account may; a cluster that does not say is taken to let it."""
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": sub}
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    try:
        told = await cluster.create(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
        )
    except Refused:
        return True
    return bool(told.get("status", {}).get("allowed", True))
