"""Settings of the environments room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from steward_server.config import BadSetting, setting, variable_name
from steward_server.environments.quantities import BadQuantity, parse_bytes, parse_cpu
from steward_server.environments.quota import Quota


@dataclass(frozen=True, slots=True)
class EnvironmentsConfig:
    """The machines of agents. Amounts are written as Kubernetes does: `500m`, `64Gi`."""

    driver: str = setting(
        "auto",
        "What makes environments: `sandbox` is the embedded driver, `auto` the same, `container` "
        "an engine on this machine, `kubernetes` a cluster, `off` none.",
        choices=("auto", "sandbox", "container", "kubernetes", "off"),
    )
    max_processes: int = setting(
        256, "Processes and threads of one environment at a time; a cluster has its own.", minimum=8
    )
    log_bytes: int = setting(
        16_777_216,
        "What is kept of the log of one environment that lives, in bytes; the oldest goes first.",
        minimum=65_536,
    )
    container_engine: str | None = setting(
        None,
        "Socket of Docker or Podman, such as `unix:///run/podman/podman.sock`; unset: what "
        "`DOCKER_HOST` names, else the first of their usual ones.",
    )
    kubernetes_config: Path | None = setting(
        None,
        "The kubeconfig of the cluster; unset: the account of the pod that this server runs in, "
        "else what `KUBECONFIG` names, else `~/.kube/config`.",
    )
    kubernetes_context: str | None = setting(
        None, "Which context of the kubeconfig; unset: its current one."
    )
    kubernetes_namespace_prefix: str = setting(
        "agentbox-", "What the name of the namespace of each environment begins with."
    )
    kubernetes_runtime_class: str | None = setting(
        None, "The runtime class of environments that name none; unset: the cluster's default."
    )
    kubernetes_network: str = setting(
        "auto",
        "`enforced` where the cluster enforces network policies by a plugin that is not found by "
        "its name.",
        choices=("auto", "enforced"),
    )
    kubernetes_cluster_ranges: str = setting(
        "",
        "Networks of the cluster (CIDR), separated by commas, that are closed to environments "
        "beside those that it tells of itself: of pods and services, where it does not.",
    )
    kubernetes_max_life_s: int = setting(
        604_800,
        "The longest life of a pod, whatever becomes of this server, in seconds; no environment "
        "lives longer, also if its timeout is changed.",
        minimum=60,
    )
    max_timeout_s: int = setting(
        86_400, "The longest life that may be asked for, in seconds.", minimum=1
    )
    max_cpu: str = setting("10", "The most cores of one environment.")
    max_memory: str = setting("10Gi", "The most memory of one environment.")
    max_storage: str = setting("100Gi", "The most storage of one environment.")
    max_per_user: int = setting(50, "Environments a person may have at a time.", minimum=0)
    cpu_per_user: str | None = setting("64", "Cores of all of a person's together; unset: any.")
    memory_per_user: str | None = setting("128Gi", "The same of memory.")
    storage_per_user: str | None = setting("512Gi", "The same of storage.")
    max_total: int = setting(500, "Environments of everybody at a time.", minimum=0)
    cpu_total: str | None = setting(None, "Cores of everybody's together; unset: any.")
    memory_total: str | None = setting(None, "The same of memory.")
    storage_total: str | None = setting(None, "The same of storage.")
    max_snapshots_per_user: int = setting(20, "Snapshots a person may keep.", minimum=0)
    snapshot_storage_per_user: str | None = setting(
        "64Gi", "What all of a person's snapshots may have together; unset: any."
    )
    max_image_archive: str = setting(
        "20Gi", "The largest archive of an image that administrators may send."
    )
    start_timeout_s: float = setting(
        120.0, "How long it may take to make one before it is given up, in seconds.", minimum=0.1
    )
    starts_at_once: int = setting(8, "How many are made at the same time.", minimum=1)
    spare_machines: int = setting(
        2,
        "Machines that are made ahead, for each of the last four kinds that were asked for; 0: "
        "none.",
        minimum=0,
        maximum=20,
    )
    wheels_dir: Path | None = setting(
        None,
        "A folder of Python packages (wheels) that `pip` finds in environments of the built-in "
        "image, with a network or without; unset: none.",
    )
    runsc: str | None = setting(
        "runsc",
        "gVisor's program for the runtime class `gvisor` of the sandbox: its path, or its name "
        "along the server's `PATH`; empty: no such class.",
    )
    stop_grace_s: float = setting(
        5.0, "How long a main command that is asked to stop may go on, in seconds.", minimum=0
    )
    agent_stop_grace_s: float = setting(
        15.0,
        "How long an agent that is told to stop may go on with the commands and connections that "
        "it has open, in seconds.",
        minimum=0,
    )
    max_exec_timeout_s: int = setting(
        3_600, "The longest timeout of a command, in seconds.", minimum=1, maximum=3_600
    )
    max_output_bytes: int = setting(
        1_048_576,
        "What an answer shows of each of the two outputs of a command at most, in bytes.",
        minimum=1_024,
        maximum=1_048_576,
    )
    max_commands_per_caller: int = setting(
        500,
        "Commands that a person, or an agent, has under way at a time in all environments; each "
        "holds some files of the server open.",
        minimum=1,
    )
    logged_output_bytes: int = setting(
        262_144, "What of a command's output goes into the environment's log, in bytes.", minimum=0
    )
    attach_grace_s: float = setting(
        60.0, "How long a named terminal waits for its user to come back, in seconds.", minimum=0
    )
    max_terminals: int = setting(20, "Terminals of one environment at a time.", minimum=1)
    sweep_interval_s: float = setting(
        1.0, "How often it is looked whose time is over, in seconds.", minimum=0.01
    )
    stats_interval_s: float = setting(
        15.0, "How often it is measured what environments use, in seconds.", minimum=0.1
    )
    kept_s: float = setting(
        604_800.0, "How long those that are over can be looked up, in seconds.", minimum=1
    )

    def cluster_ranges(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """The networks of `kubernetes_cluster_ranges`.

        Raises:
            BadSetting: one of them is none.
        """
        found = (each.strip() for each in self.kubernetes_cluster_ranges.split(","))
        try:
            return tuple(ip_network(each) for each in found if each)
        except ValueError as error:
            name = variable_name("environments", "kubernetes_cluster_ranges")
            raise BadSetting(f"{name}: {error}; write networks such as 10.96.0.0/12") from None

    def of_user(self) -> Quota:
        """The quota of a person.

        Raises:
            BadSetting: an amount cannot be read.
        """
        return Quota(
            self.max_per_user,
            _cpu(self, "cpu_per_user"),
            _bytes(self, "memory_per_user"),
            _bytes(self, "storage_per_user"),
        )

    def of_all(self) -> Quota:
        """The quota of everybody together.

        Raises:
            BadSetting: an amount cannot be read.
        """
        return Quota(
            self.max_total,
            _cpu(self, "cpu_total"),
            _bytes(self, "memory_total"),
            _bytes(self, "storage_total"),
        )

    def snapshot_bytes(self) -> int | None:
        """The most of a person's snapshots together.

        Raises:
            BadSetting: it cannot be read.
        """
        return _bytes(self, "snapshot_storage_per_user")

    def image_archive_bytes(self) -> int:
        """The largest archive that may be sent.

        Raises:
            BadSetting: it cannot be read.
        """
        return _bytes(self, "max_image_archive") or 0

    def of_one(self) -> Quota:
        """The most of one environment.

        Raises:
            BadSetting: an amount cannot be read.
        """
        return Quota(
            None,
            _cpu(self, "max_cpu"),
            _bytes(self, "max_memory"),
            _bytes(self, "max_storage"),
        )


def _cpu(config: EnvironmentsConfig, key: str) -> int | None:
    return _amount(config, key, parse_cpu)


def _bytes(config: EnvironmentsConfig, key: str) -> int | None:
    return _amount(config, key, parse_bytes)


def _amount(config: EnvironmentsConfig, key: str, parse: Callable[[str], int]) -> int | None:
    text = getattr(config, key)
    try:
        return parse(text) if text else None
    except BadQuantity as error:
        raise BadSetting(f"{variable_name('environments', key)} {error}") from None
