"""What the back ends offer, promise, and refuse rather than to leave it out."""

from __future__ import annotations

from collections.abc import Collection

from steward_server.environments.driver import Capabilities, Feature, Hold, Unusable
from steward_server.environments.environment import Spec

NATIVE = "native"
GVISOR = "gvisor"
PROMISE = (
    "Separate processes, files, users, network and limits; one shared host kernel. A kernel bug "
    "that can be reached through the filtered system calls means the host is compromised. Fit for "
    "your own agents' code on a machine you can lose, not for mutually hostile tenants. Host facts "
    "in /proc are visible. Timing and cache side channels are not addressed. Disk bandwidth is not "
    "limited."
)
GVISOR_PROMISE = (
    "With runtime_class gvisor system calls are served by gVisor, a kernel in user space of each "
    "environment; the host's sees what that one needs, and its TCP/IP, in a network namespace of "
    "the environment. That kernel's memory and threads are part of the limits, and where they are "
    "exceeded the whole environment ends. A process that left its parents and took the mark of "
    "another command among its variables lives until that one ends."
)
_FEATURES = frozenset(
    (
        Feature.ATTACH,
        Feature.FILES,
        Feature.INGRESS,
        Feature.PAUSE,
        Feature.SIGNAL,
        Feature.SNAPSHOT,
        Feature.TUNNEL,
    )
)
_ELSEWHERE = {
    GVISOR: ". gvisor is for a server that runs as root on a host with control groups: install "
    "runsc there; or use the driver kubernetes with a RuntimeClass of runsc on its nodes",
    "native": ". native is what a server uses that runs as root on a host with control groups",
    "bubblewrap": ". bubblewrap is what a server uses that does not run as root",
}
"""What is to be done for a class that is not to be had here."""
_LIMITS = ("cpu", "memory", "storage", "inodes", "processes", "network")


def capabilities(*, has_network: bool, has_spares: bool) -> Capabilities:
    """What it can do on a host that can isolate machines."""
    features = set(_FEATURES)
    if has_network:
        features |= {Feature.NETWORK, Feature.NETWORK_CHANGE}
    if has_spares:
        features.add(Feature.WARM_POOL)
    return Capabilities(
        "sandbox",
        NATIVE,
        features=frozenset(features),
        limits=dict.fromkeys(_LIMITS, Hold.ENFORCED),
        runtime_classes=(NATIVE,),
        promise=PROMISE,
    )


def refuse(spec: Spec, backend: str, more_classes: Collection[str] = ()) -> None:
    """Refuse what this driver does not do, rather than to leave it out.

    Raises:
        Unusable: reason PRIVILEGE_ESCALATION, RUNTIME_CLASS or BAD_COMMAND.
    """
    if spec.security.allow_privilege_escalation:
        raise Unusable(
            "PRIVILEGE_ESCALATION",
            "the sandbox never lets a program gain rights; leave allow_privilege_escalation out",
        )
    if spec.runtime_class not in ("", backend, *more_classes):
        raise Unusable(
            "RUNTIME_CLASS",
            f"the sandbox has no runtime class {spec.runtime_class!r} here; leave it out or use "
            f"{' or '.join((backend, *more_classes))}{_ELSEWHERE.get(spec.runtime_class, '')}",
        )
    if spec.command and not spec.command[0]:
        raise Unusable("BAD_COMMAND", "the command of the environment is empty")
