"""What the container driver offers, promises, and refuses rather than to leave it out."""

from __future__ import annotations

from steward_server.environments.container.engine import Engine
from steward_server.environments.driver import Capabilities, Feature, Hold, Unusable
from steward_server.environments.environment import Spec

DRIVER = "container"
PROMISE = (
    "As strong as the engine's runtime: runc and crun share the host's kernel with all containers. "
    "Whoever reaches the engine's socket is root on this host, and this server does. Every "
    "container has no capabilities, no_new_privs, our own filter of system calls (no AF_VSOCK, no "
    "new namespaces), no network of its own, and limits of memory, processors and processes. User "
    "0 inside is user 0 outside unless the engine runs in a user namespace. Host facts in /proc "
    "and /sys are visible. Timing and cache side channels are not addressed. Disk bandwidth is not "
    "limited."
)
_DISK = (
    " Its disk is not held on this engine's file system: what is written beside /tmp and /dev/shm "
    "is looked at every five seconds, and a container that has too much is ended; put the engine's "
    "folder on XFS with pquota, btrfs or ZFS."
)
_FEATURES = (
    Feature.ATTACH,
    Feature.FILES,
    Feature.INGRESS,
    Feature.NETWORK_CHANGE,
    Feature.PAUSE,
    Feature.SIGNAL,
    Feature.SNAPSHOT,
    Feature.TUNNEL,
)


def capabilities(engine: Engine, *, has_network: bool) -> Capabilities:
    """What can be done with an engine that answers."""
    network = (Feature.NETWORK,) if has_network else ()
    disk = Hold.ENFORCED if engine.holds_disk else Hold.ADVISORY
    return Capabilities(
        DRIVER,
        f"{engine.name} {engine.version}",
        features=frozenset((*_FEATURES, *network)),
        limits={
            "cpu": Hold.ENFORCED,
            "memory": Hold.ENFORCED,
            "processes": Hold.ENFORCED,
            "network": Hold.ENFORCED,
            "storage": disk,
            "inodes": Hold.NONE,
        },
        runtime_classes=engine.runtimes,
        promise=PROMISE if engine.holds_disk else PROMISE + _DISK,
    )


def refuse(engine: Engine, spec: Spec) -> None:
    """Refuse what this driver does not do, rather than to leave it out.

    Raises:
        Unusable: reason PRIVILEGE_ESCALATION, RUNTIME_CLASS or BAD_COMMAND.
    """
    if spec.security.allow_privilege_escalation:
        raise Unusable(
            "PRIVILEGE_ESCALATION",
            "containers never let a program gain rights; leave allow_privilege_escalation out",
        )
    if spec.runtime_class and spec.runtime_class not in engine.runtimes:
        known = ", ".join(engine.runtimes) or "none"
        raise Unusable(
            "RUNTIME_CLASS",
            f"the engine has no runtime {spec.runtime_class!r} that this driver can use; it has "
            f"{known}. Runtimes with a kernel of their own, such as runsc and kata, are not among "
            "them: what commands leave behind in them could not be ended from here",
        )
    if spec.command and not spec.command[0]:
        raise Unusable("BAD_COMMAND", "the command of the environment is empty")
