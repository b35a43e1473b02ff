"""The objects an environment is made of on a cluster, as the API takes them. Pure.

Namespace, ResourceQuota and pod stand here, the network policies in policies.py. They are made in
that order, the pod last, so that nothing runs before its limits and its walls stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import KEEP_ALIVE, SecurityContext, Spec, Toleration
from steward_server.environments.kubernetes.marks import CONTAINER, MAKING, POD
from steward_server.environments.kubernetes.policies import has_way_out
from steward_server.environments.quantities import cpu_text

Object = dict[str, Any]

DEFAULT_ID = 1000
"""As whom commands run where nobody says: images often say root, and mean nothing by it."""
MAX_ID = 2**31 - 1
WORKSPACE = "/workspace"
_SCRATCH = {"tmp": "/tmp", "workspace": WORKSPACE, "home": "/home/agent"}  # noqa: S108
"""What can be written to also where the image belongs to root or is read-only."""


@dataclass(frozen=True, slots=True)
class RuntimeClass:
    """A way to run pods that the cluster offers."""

    name: str
    overhead: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What a pod of it takes beyond its containers, which quotas count too."""


def namespace(
    name: str, labels: Mapping[str, str], security: SecurityContext, *, making: str
) -> Object:
    """Where an environment lives alone; the cluster itself refuses weaker pods in it."""
    level = "restricted" if is_restricted(security) else "baseline"
    modes = ("enforce", "audit", "warn")
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "labels": {**labels, **{f"pod-security.kubernetes.io/{mode}": level for mode in modes}},
            "annotations": {MAKING: making},
        },
    }


def is_restricted(security: SecurityContext) -> bool:
    """Whether it is within the strictest pod security standard: no root, no way to become it."""
    return security.run_as_user != 0 and not security.allow_privilege_escalation


def quota(labels: Mapping[str, str], spec: Spec, runtime: RuntimeClass | None) -> Object:
    """One pod of this size, and nothing that costs or opens anything else."""
    amounts = _amounts(spec)
    hard: dict[str, str] = {"pods": "1"}
    for side in ("requests", "limits"):
        for resource, amount in amounts.items():
            hard[f"{side}.{resource}"] = amount
    for resource, more in (runtime.overhead if runtime else {}).items():
        for side in ("requests", "limits"):
            if f"{side}.{resource}" in hard:
                hard[f"{side}.{resource}"] = _sum(resource, amounts[resource], more)
    none = ("persistentvolumeclaims", "services", "services.loadbalancers", "services.nodeports")
    hard.update(dict.fromkeys(none, "0"))
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "environment", "labels": dict(labels)},
        "spec": {"hard": hard},
    }


def pod(
    environment_id: str,
    labels: Mapping[str, str],
    spec: Spec,
    *,
    runtime_class: str,
    most_life_s: int | None,
) -> Object:
    """The pod of an environment. `most_life_s` is the net under the server's own timer."""
    resources = _amounts(spec)
    user, group = who(spec.security)
    told: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        "hostPID": False,
        "hostIPC": False,
        # Else the main command would be pid 1: deaf to signals, with every orphan left to it.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": 5,
        "hostname": environment_id[:63].rstrip("-"),
        "securityContext": {
            "runAsUser": user,
            "runAsGroup": group,
            "runAsNonRoot": user != 0,
            "fsGroup": group,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": spec.image,
                "command": [_literal(each) for each in spec.command or KEEP_ALIVE],
                "env": [
                    {"name": key, "value": _literal(value)} for key, value in _env(spec).items()
                ],
                "resources": {"requests": dict(resources), "limits": dict(resources)},
                "securityContext": {
                    "allowPrivilegeEscalation": bool(spec.security.allow_privilege_escalation),
                    "privileged": False,
                    "readOnlyRootFilesystem": bool(spec.security.read_only_root_filesystem),
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": name, "mountPath": path} for name, path in _SCRATCH.items()
                ],
            }
        ],
        "volumes": [
            {"name": name, "emptyDir": {"sizeLimit": resources["ephemeral-storage"]}}
            for name in _SCRATCH
        ],
    }
    if spec.network.allowed_ingress_ports:
        told["containers"][0]["ports"] = [
            {"containerPort": port, "protocol": "TCP"}
            for port in spec.network.allowed_ingress_ports
        ]
    if not has_way_out(spec.network):
        told["dnsPolicy"] = "None"
        # A resolver there must be; nothing answers at this address, and no policy lets it be asked.
        told["dnsConfig"] = {"nameservers": ["127.0.0.1"]}
    if most_life_s is not None:
        told["activeDeadlineSeconds"] = most_life_s
    if runtime_class:
        told["runtimeClassName"] = runtime_class
    if spec.node_selector:
        told["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        told["tolerations"] = [_toleration(each) for each in spec.tolerations]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": POD,
            "labels": dict(labels),
            "annotations": {
                # An autoscaler that moves a pod ends what runs in it.
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
                "kubectl.kubernetes.io/default-container": CONTAINER,
            },
        },
        "spec": told,
    }


def who(security: SecurityContext) -> tuple[int, int]:
    """The user and group that commands run as.

    Raises:
        Unusable: reason BAD_USER or RUN_AS_NON_ROOT.
    """
    user = DEFAULT_ID if security.run_as_user is None else security.run_as_user
    group = user if security.run_as_group is None else security.run_as_group
    for name, value in (("run_as_user", user), ("run_as_group", group)):
        if not 0 <= value <= MAX_ID:
            raise Unusable("BAD_USER", f"{name} is {value}; a pod has the ids 0 to {MAX_ID}")
    if security.run_as_non_root and user == 0:
        raise Unusable(
            "RUN_AS_NON_ROOT",
            "run_as_non_root is set and the command would run as user 0; set run_as_user to "
            f"another, such as {DEFAULT_ID}",
        )
    return user, group


def _env(spec: Spec) -> dict[str, str]:
    return {"HOME": _SCRATCH["home"], **spec.env}


def _literal(value: str) -> str:
    """A text as it stands: a cluster would put variables in for $(NAME), and $ for $$."""
    return value.replace("$", "$$")


def _amounts(spec: Spec) -> dict[str, str]:
    resources = spec.resources
    return {
        "cpu": cpu_text(resources.cpu_millicores),
        "memory": str(resources.memory_bytes),
        "ephemeral-storage": str(resources.storage_bytes),
    }


def _toleration(each: Toleration) -> Object:
    told: Object = {"operator": each.operator}
    told.update(
        {name: value for name in ("key", "value", "effect") if (value := getattr(each, name))}
    )
    if each.toleration_s is not None:
        told["tolerationSeconds"] = each.toleration_s
    return told


_UNITS = {
    **{f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: 10 ** (3 * power) for power, letter in enumerate("kMGTPE", 1)},
    "": 1,
    "m": 1e-3,
    "u": 1e-6,
    "n": 1e-9,
}


def amount(text: str) -> float:
    """A quantity as a cluster writes it, in cores or bytes: also "12345678n" and "1e3".

    Raises:
        ValueError: it is none.
    """
    number = text.rstrip("KMGTPEkmuni")
    unit: float = _UNITS[text[len(number) :]]
    return float(number) * unit


def _sum(resource: str, one: str, other: str) -> str:
    total = amount(one) + amount(other)
    return cpu_text(math.ceil(total * 1_000)) if resource == "cpu" else str(math.ceil(total))
