"""What an environment was asked for, as JSON and back: how rows and the audit log hold it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_network
from typing import Any

import orjson

from steward_server.environments.environment import (
    NetworkPolicy,
    Resources,
    SecurityContext,
    Spec,
    Toleration,
)


def spec_text(spec: Spec) -> str:
    """All but the image, the resources and the variables, which have columns of their own."""
    network, security = spec.network, spec.security
    told: dict[str, Any] = {
        "command": spec.command,
        "runtime_class": spec.runtime_class,
        "network": {
            "allow_internet": network.allow_internet,
            "allowed_egress": [str(each) for each in network.allowed_egress],
            "allowed_ingress_ports": network.allowed_ingress_ports,
            "allow_cluster_internal": network.allow_cluster_internal,
        },
        "security": {
            "run_as_user": security.run_as_user,
            "run_as_group": security.run_as_group,
            "run_as_non_root": security.run_as_non_root,
            "read_only_root_filesystem": security.read_only_root_filesystem,
            "allow_privilege_escalation": security.allow_privilege_escalation,
        },
        "node_selector": dict(spec.node_selector),
        "tolerations": [
            {
                "key": each.key,
                "operator": each.operator,
                "value": each.value,
                "effect": each.effect,
                "toleration_s": each.toleration_s,
            }
            for each in spec.tolerations
        ],
    }
    return orjson.dumps(told).decode()


def spec_of(text: str, image: str, resources: Resources, env: Mapping[str, str]) -> Spec:
    """The other way round."""
    spec = _without_env(text, image, resources)
    return replace(spec, env=env) if env else spec


@lru_cache(maxsize=1024)
def _without_env(text: str, image: str, resources: Resources) -> Spec:
    told: dict[str, Any] = orjson.loads(text)
    network = told["network"]
    return Spec(
        image=image,
        resources=resources,
        command=tuple(told["command"]),
        runtime_class=told["runtime_class"],
        network=NetworkPolicy(
            network["allow_internet"],
            tuple(ip_network(each) for each in network["allowed_egress"]),
            tuple(network["allowed_ingress_ports"]),
            network["allow_cluster_internal"],
        ),
        security=SecurityContext(**told["security"]),
        node_selector=told["node_selector"],
        tolerations=tuple(Toleration(**each) for each in told["tolerations"]),
    )
