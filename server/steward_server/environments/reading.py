"""What callers ask for, read from protos into values that hold; everything wrong told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from steward.environments.v1 import environments_pb2 as pb
from steward_server.checks import CONTROL, Checks
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.creation import Wish
from steward_server.environments.driver import Command
from steward_server.environments.environment import (
    DEFAULT_TIMEOUT_S,
    NetworkPolicy,
    Resources,
    SecurityContext,
    Spec,
    Toleration,
)
from steward_server.environments.quantities import (
    BadQuantity,
    bytes_text,
    cpu_text,
    parse_bytes,
    parse_cpu,
)
from steward_server.environments.quota import Quota
from steward_server.environments.room import MAX_LABELS, Changes
from steward_server.environments.selectors import (
    BadSelector,
    Requirement,
    label_fault,
    parse_selector,
)

MAX_ENV_BYTES = 128 * 1024
"""Linux lets one argument or variable have as much."""
MAX_ENV_COUNT = 500
MAX_ARGUMENTS = 1_000
MAX_COMMAND_BYTES = 128 * 1024
MAX_LISTED = 100
"""Networks, ports, tolerations, entries of a node selector."""
MAX_TERMINAL = 1_000
MAX_UID = 2**31 - 1
DEFAULT_EXEC_TIMEOUT_S = 30
MAX_WAIT_S = 30
"""How long an answer may be held back: well below what the gateway lets a call take."""

LEAST_CPU_MILLICORES = 10
"""The kernel's least quota: 1 ms of 100."""
LEAST_MEMORY_BYTES = 8 * 1024**2
LEAST_STORAGE_BYTES = 1024**2

_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[^\x00-\x1f\x7f=]{1,256}")
_TOLERATION_OPERATORS = ("Equal", "Exists")
_TOLERATION_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")


def read_wish(
    request: pb.CreateEnvironmentRequest, most: Quota, config: EnvironmentsConfig
) -> Wish:
    """What somebody wants of a new environment.

    Raises:
        InvalidArgument: with everything that is wrong.
    """
    timeout_s = request.timeout_s if request.HasField("timeout_s") else DEFAULT_TIMEOUT_S
    idle_s = request.idle_timeout_s if request.HasField("idle_timeout_s") else None
    with Checks() as checks:
        _dns_label(checks, "name", request.name)
        checks.text("image", request.image, 1, 255)
        resources = _resources(checks, request.resources, most)
        checks.between("timeout", timeout_s, 1, config.max_timeout_s)
        if idle_s is not None:
            checks.between("idle_timeout", idle_s, 1, config.max_timeout_s)
        checks.between("wait", request.wait_s, 0, MAX_WAIT_S)
        _env(checks, request.env)
        if request.command:
            _argv(checks, request.command)
        _labels(checks, "labels", request.labels)
        _labels(checks, "node_selector", request.node_selector)
        tolerations = _tolerations(checks, request.tolerations)
        network = _network(checks, request.isolation.network_policy)
        security = _security(checks, request.isolation.security_context)
        runtime_class = request.isolation.runtime_class
        if runtime_class:
            _dns_label(checks, "isolation.runtime_class", runtime_class)
    return Wish(
        request.name,
        Spec(
            image=request.image,
            resources=resources,
            command=tuple(request.command),
            env=dict(request.env),
            runtime_class=runtime_class,
            network=network,
            security=security,
            node_selector=dict(request.node_selector),
            tolerations=tolerations,
        ),
        timeout_s,
        idle_s,
        dict(request.labels),
    )


def read_changes(request: pb.UpdateEnvironmentRequest, config: EnvironmentsConfig) -> Changes:
    """What an update gives.

    Raises:
        InvalidArgument: with everything that is wrong.
    """
    timeout_s = request.timeout_s if request.HasField("timeout_s") else None
    idle_s = request.idle_timeout_s if request.HasField("idle_timeout_s") else None
    with Checks() as checks:
        checks.text("environment_id", request.environment_id, 1, 100)
        _labels(checks, "labels", request.labels)
        if both := sorted(set(request.labels) & set(request.remove_labels)):
            checks.add("remove_labels", f"names {both[0]!r}, which `labels` sets")
        if timeout_s is not None:
            checks.between("timeout", timeout_s, 1, MAX_UID)
        if idle_s is not None:
            checks.between("idle_timeout", idle_s, 0, config.max_timeout_s)
        is_empty = not (request.labels or request.remove_labels or request.HasField("network"))
        if is_empty and timeout_s is idle_s is None:
            checks.add("labels", "is missing, and so is everything else that could be changed")
        network = None
        if request.HasField("network"):
            network = _network(checks, request.network, "network")
    return Changes(dict(request.labels), tuple(request.remove_labels), timeout_s, idle_s, network)


def read_selector(checks: Checks, text: str) -> tuple[Requirement, ...]:
    """A selector of labels; what is wrong with it is noted."""
    if len(text) > 4_096:
        checks.add("label", f"has {len(text)} characters; at most 4096 are allowed")
        return ()
    try:
        return parse_selector(text)
    except BadSelector as error:
        checks.add("label", str(error))
        return ()


def read_exec(
    checks: Checks, request: pb.ExecRequest | pb.ExecStart, config: EnvironmentsConfig
) -> tuple[Command, int | None]:
    """A command, and its timeout in seconds if it has one; what is wrong is noted."""
    checks.text("environment_id", request.environment_id, 1, 100)
    _argv(checks, request.command)
    _env(checks, request.env)
    timeout_s = request.timeout_s if request.HasField("timeout_s") else None
    if timeout_s is not None:
        checks.between("timeout", timeout_s, 1, config.max_exec_timeout_s)
    return (
        Command(
            tuple(request.command),
            dict(request.env),
            _working_dir(checks, request.working_dir),
            _user(checks, request.user) if request.HasField("user") else None,
        ),
        timeout_s,
    )


def read_attach(checks: Checks, opened: pb.AttachOpen, shell: Sequence[str]) -> Command:
    """The command of a terminal; what is wrong is noted."""
    checks.text("environment_id", opened.environment_id, 1, 100)
    if opened.command:
        _argv(checks, opened.command)
    checks.text("session", opened.session, 0, 64)
    size = read_size(checks, opened.columns or 80, opened.rows or 24, "cols")
    has_terminal = opened.tty or not opened.HasField("tty")
    return Command(
        tuple(opened.command) or tuple(shell),
        {"TERM": "xterm-256color"} if has_terminal else {},
        _working_dir(checks, opened.working_dir),
        _user(checks, opened.user) if opened.HasField("user") else None,
        size if has_terminal else None,
    )


def read_name(checks: Checks, field: str, text: str) -> None:
    """A name as environments have it; what is wrong with it is noted."""
    _dns_label(checks, field, text)


def read_size(checks: Checks, columns: int, rows: int, name: str = "columns") -> tuple[int, int]:
    """The size of a terminal; what is wrong is noted."""
    checks.between(name, columns, 1, MAX_TERMINAL)
    checks.between("rows", rows, 1, MAX_TERMINAL)
    return columns, rows


def _dns_label(checks: Checks, field: str, text: str) -> None:
    checks.text(field, text, 1, 63)
    if _DNS_LABEL.fullmatch(text) is None:
        checks.add(
            field,
            f"is {text!r}; it must be lower-case letters, digits and '-', with a letter or digit "
            "at both ends",
        )


def _resources(checks: Checks, given: pb.Resources, most: Quota) -> Resources:
    def amount(name: str, text: str, least: int, limit: int | None) -> int:
        field = f"resources.{name}"
        is_cpu = name == "cpu"
        shown = cpu_text if is_cpu else bytes_text
        if not text:
            checks.add(field, f"is missing, such as {'500m' if is_cpu else '512Mi'!r}")
            return 0
        try:
            value = parse_cpu(text) if is_cpu else parse_bytes(text)
        except BadQuantity as error:
            checks.add(field, str(error))
            return 0
        if value < least:
            checks.add(field, f"is {text!r}; it must be at least {shown(least)}")
        elif limit is not None and value > limit:
            checks.add(field, f"is {text!r}; at most {shown(limit)} are allowed")
        return value

    return Resources(
        amount("cpu", given.cpu, LEAST_CPU_MILLICORES, most.cpu_millicores),
        amount("memory", given.memory, LEAST_MEMORY_BYTES, most.memory_bytes),
        amount("storage", given.storage, LEAST_STORAGE_BYTES, most.storage_bytes),
    )


def _env(checks: Checks, env: Mapping[str, str]) -> None:
    if len(env) > MAX_ENV_COUNT:
        checks.add("env", f"has {len(env)} variables; at most {MAX_ENV_COUNT} are allowed")
    if sum(len(name.encode()) + len(value.encode()) for name, value in env.items()) > MAX_ENV_BYTES:
        checks.add("env", f"has more than {MAX_ENV_BYTES} bytes together")
    for name, value in env.items():
        if _VARIABLE.fullmatch(name) is None:
            checks.add(
                "env", f"has the name {name[:100]!r}; one has 1 to 256 characters and no '='"
            )
        elif "\0" in value:  # the value itself is nobody's business
            checks.add("env", f"has a NUL in the value of {name!r}")


def _argv(checks: Checks, command: Sequence[str]) -> None:
    if not command or not command[0]:
        checks.add("command", "is missing: the program, then its arguments")
    elif len(command) > MAX_ARGUMENTS:
        checks.add("command", f"has {len(command)} parts; at most {MAX_ARGUMENTS} are allowed")
    elif sum(len(part.encode()) for part in command) > MAX_COMMAND_BYTES:
        checks.add("command", f"has more than {MAX_COMMAND_BYTES} bytes together")
    elif any("\0" in part for part in command):
        checks.add("command", "has a NUL in it")


def _labels(checks: Checks, field: str, labels: Mapping[str, str]) -> None:
    if len(labels) > MAX_LABELS:
        checks.add(field, f"has {len(labels)} entries; at most {MAX_LABELS} are allowed")
    for key, value in labels.items():
        if fault := label_fault(key, value):
            checks.add(field, fault)


def _tolerations(checks: Checks, given: Sequence[pb.Toleration]) -> tuple[Toleration, ...]:
    _few(checks, "tolerations", given)
    read = []
    for index, each in enumerate(given):
        name = f"tolerations[{index}]"
        operator = each.operator or "Equal"
        checks.one_of(f"{name}.operator", operator, _TOLERATION_OPERATORS)
        if each.effect not in _TOLERATION_EFFECTS:
            checks.one_of(f"{name}.effect", each.effect, _TOLERATION_EFFECTS[1:])
        checks.text(f"{name}.key", each.key, 0 if operator == "Exists" else 1, 253)
        if operator == "Exists" and each.value:
            checks.add(f"{name}.value", "must be empty where the operator is Exists")
        seconds = each.toleration_s if each.HasField("toleration_s") else None
        if seconds is not None and each.effect != "NoExecute":
            checks.add(f"{name}.tolerationSeconds", "is for the effect NoExecute only")
        read.append(Toleration(each.key, operator, each.value, each.effect, seconds))
    return tuple(read)


def _network(
    checks: Checks, given: pb.NetworkPolicy, field: str = "isolation.network_policy"
) -> NetworkPolicy:
    _few(checks, f"{field}.allowed_egress_cidrs", given.allowed_egress_cidrs)
    _few(checks, f"{field}.allowed_ingress_ports", given.allowed_ingress_ports)
    networks: list[IPv4Network | IPv6Network] = []
    for index, text in enumerate(given.allowed_egress_cidrs):
        try:
            networks.append(ip_network(text))
        except ValueError as error:
            checks.add(f"{field}.allowed_egress_cidrs[{index}]", f"is no network: {error}")
    for index, port in enumerate(given.allowed_ingress_ports):
        checks.between(f"{field}.allowed_ingress_ports[{index}]", port, 1, 65_535)
    return NetworkPolicy(
        given.allow_internet,
        tuple(dict.fromkeys(networks)),
        tuple(dict.fromkeys(given.allowed_ingress_ports)),
        given.allow_cluster_internal,
    )


def _security(checks: Checks, given: pb.SecurityContext) -> SecurityContext:
    field = "isolation.security_context"
    for name in ("run_as_user", "run_as_group"):
        checks.between(f"{field}.{name}", getattr(given, name), 0, MAX_UID)
    read = SecurityContext(
        **{
            name: getattr(given, name) if given.HasField(name) else None
            for name in (
                "run_as_user",
                "run_as_group",
                "run_as_non_root",
                "read_only_root_filesystem",
                "allow_privilege_escalation",
            )
        }
    )
    if read.run_as_non_root and read.run_as_user == 0:
        checks.add(f"{field}.run_as_user", "is 0, and `run_as_non_root` is true")
    return read


def _few(checks: Checks, field: str, given: Sequence[object]) -> None:
    if len(given) > MAX_LISTED:
        checks.add(field, f"has {len(given)} items; at most {MAX_LISTED} are allowed")


def _working_dir(checks: Checks, path: str) -> str:
    if path:
        read_path(checks, "working_dir", path)
    return path


def _user(checks: Checks, user: int) -> int:
    checks.between("user", user, 0, MAX_UID)
    return user


def read_path(checks: Checks, field: str, path: str) -> str:
    """An absolute path; what is wrong with it is noted."""
    if not path:
        checks.add(field, "is missing, such as '/workspace/notes.txt'")
    elif not path.startswith("/"):
        checks.add(field, f"is {path[:100]!r}; it must be absolute, such as '/workspace/notes.txt'")
    elif len(path.encode()) > 4_095:
        checks.add(field, "has more than 4095 bytes")
    elif found := CONTROL.search(path):
        checks.add(field, f"holds the control character U+{ord(found[0]):04X}")
    return path
