"""What the driver offers on a cluster, and refuses rather than to leave it out. Pure."""

from __future__ import annotations

from collections.abc import Collection

from steward_server.environments.driver import Capabilities, Feature, Hold, Unusable
from steward_server.environments.environment import Spec
from steward_server.environments.images.image import canonical
from steward_server.environments.sandbox.limits import limits

DRIVER = "kubernetes"
_FEATURES = frozenset(
    (
        Feature.ATTACH,
        Feature.FILES,
        Feature.INGRESS,
        Feature.SIGNAL,
        Feature.PRIVILEGE_ESCALATION,
    )
)
_PROMISE = (
    "Each environment is a pod in a namespace of its own, as strong as its runtime class: by the "
    "cluster's default, containers on a kernel that the node's other pods share. Reserved: what is "
    "requested is the limit. Storage is held by eviction, some seconds late; how many processes "
    "there may be is the nodes' setting. The main command's two outputs are logged as one. A "
    "command that hides its mark outlives its timeout until the environment ends. Whoever may read "
    "pods of the cluster reads the environments' variables, and whoever holds this server's "
    "account may run commands in them."
)
_ENFORCED = "Network policies are enforced by {plugin}."
_TRUSTED = "Network policies are enforced, as this server's settings say."
_NOT_ENFORCED = (
    "No network plugin that enforces network policies was found in this cluster: every environment "
    "may reach every address that its node may, and be reached. Install one, such as Cilium or "
    "Calico, or set kubernetes_network to enforced if the one there is does it."
)


def capabilities(
    *, version: str, plugin: str, is_trusted: bool, runtime_classes: Collection[str]
) -> Capabilities:
    """What can be done on a cluster of this version."""
    holds = bool(plugin) or is_trusted
    if plugin:
        network = _ENFORCED.format(plugin=plugin)
    else:
        network = _TRUSTED if is_trusted else _NOT_ENFORCED
    return Capabilities(
        DRIVER,
        f"kubernetes {version}".strip(),
        features=_FEATURES | ({Feature.NETWORK} if holds else frozenset()),
        limits={
            "cpu": Hold.ENFORCED,
            "memory": Hold.ENFORCED,
            "storage": Hold.ADVISORY,
            "inodes": Hold.NONE,
            "processes": Hold.NONE,
            "network": Hold.ENFORCED if holds else Hold.NONE,
        },
        runtime_classes=tuple(sorted(runtime_classes)),
        promise=f"{_PROMISE} {network}",
    )


def refuse(spec: Spec, runtime_classes: Collection[str]) -> None:
    """Refuse what cannot be made.

    Raises:
        Unusable: reason RUNTIME_CLASS, BAD_COMMAND, LIMIT_TOO_SMALL or BAD_IMAGE_NAME.
    """
    if spec.runtime_class and spec.runtime_class not in runtime_classes:
        known = ", ".join(sorted(runtime_classes)) or "none"
        raise Unusable(
            "RUNTIME_CLASS",
            f"this cluster has no runtime class {spec.runtime_class!r}; it has {known}",
        )
    if spec.command and not spec.command[0]:
        raise Unusable("BAD_COMMAND", "the command of the environment is empty")
    limits(spec.resources, process_count=0)  # what is too little for a sandbox is for a pod
    canonical(spec.image)


def unsupported(what: str) -> Unusable:
    """That a cluster cannot do something."""
    return Unusable("NOT_SUPPORTED", f"the driver {DRIVER!r} cannot {what} an environment")
