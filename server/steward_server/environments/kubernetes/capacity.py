"""How much room a cluster has, and what its network plugin is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from steward_server.environments.driver import Capacity
from steward_server.environments.kubernetes.objects import amount
from steward_server.environments.kubernetes.policies import Network

Object = Mapping[str, Any]

_ENFORCE = {
    "antrea-agent": "Antrea",
    "calico-node": "Calico",
    "canal": "Canal",
    "cilium": "Cilium",
    "kube-network-policies": "kube-network-policies",
    "kube-router": "kube-router",
    "ovnkube-node": "OVN-Kubernetes",
    "ovs-ovn": "Kube-OVN",
    "romana-agent": "Romana",
    "weave-net": "Weave Net",
}
"""The daemon sets of plugins that are known to enforce network policies."""


def capacity(version: str, nodes: Sequence[Object], pods: Iterable[Object]) -> Capacity:
    """What is left of the nodes that take pods, after what is promised to those there are."""
    ready = {each["metadata"]["name"]: each for each in nodes if _takes_pods(each)}
    all_cores = all_memory = 0.0
    for node in ready.values():
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        all_cores += amount(allocatable.get("cpu", "0"))
        all_memory += amount(allocatable.get("memory", "0"))
    cores, memory = all_cores, all_memory
    for pod in pods:
        spec, phase = pod["spec"], (pod.get("status") or {}).get("phase")
        if spec.get("nodeName") in ready and phase not in ("Succeeded", "Failed"):
            cores -= _requested(spec, "cpu")
            memory -= _requested(spec, "memory")
    return Capacity(
        node_count=len(nodes),
        millicores=int(all_cores * 1_000 + 1e-6),
        memory_bytes=int(all_memory),
        free_millicores=max(0, int(cores * 1_000 + 1e-6)),
        free_memory_bytes=max(0, int(memory)),
        cluster_version=version,
    )


def _takes_pods(node: Object) -> bool:
    if node["spec"].get("unschedulable"):
        return False
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _requested(spec: Object, resource: str) -> float:
    def of(containers: Iterable[Object]) -> list[float]:
        return [
            amount(((each.get("resources") or {}).get("requests") or {}).get(resource, "0"))
            for each in containers
        ]

    together = sum(of(spec.get("containers") or ()))
    before = max(of(spec.get("initContainers") or ()), default=0.0)
    return max(together, before) + amount((spec.get("overhead") or {}).get(resource, "0"))


def plugin(daemon_sets: Iterable[Object]) -> str:
    """The network plugin that enforces policies, as far as one is known; else empty."""
    names = {each["metadata"]["name"] for each in daemon_sets}
    return next((told for name, told in sorted(_ENFORCE.items()) if name in names), "")


def ranges(
    nodes: Iterable[Object], service_ranges: Iterable[Object], endpoints: Iterable[Object]
) -> tuple[Network, ...]:
    """The addresses of a cluster's nodes, pods, services and API, as far as it tells them."""
    found: set[str] = set()
    for node in nodes:
        spec = node["spec"]
        found.update(spec.get("podCIDRs") or filter(None, (spec.get("podCIDR"),)))
        for each in (node.get("status") or {}).get("addresses") or ():
            if each["type"] in ("InternalIP", "ExternalIP"):
                found.add(each["address"])
    for service_range in service_ranges:
        found.update((service_range.get("spec") or {}).get("cidrs") or ())
    for endpoint in endpoints:
        for each in endpoint.get("endpoints") or ():
            found.update(each.get("addresses") or ())
    networks = (ip_network(text, strict=False) for text in found if _is_address(text))
    return tuple(sorted(networks, key=lambda each: (each.version, each)))


def _is_address(text: str) -> bool:
    try:
        ip_address(text.partition("/")[0])
    except ValueError:
        return False
    return True
