"""Environments as protos show them."""

from __future__ import annotations

from steward.api_keys.v1 import api_keys_pb2 as keys
from steward.environments.v1 import environments_pb2 as pb
from steward_server.clock import timestamp
from steward_server.environments.driver import LogRecord, Process, Stats
from steward_server.environments.environment import Environment, Resources, Spec, State
from steward_server.environments.logbook import End
from steward_server.environments.quantities import bytes_text, cpu_text, measured_text
from steward_server.environments.room import Seen
from steward_server.environments.sharing import NamedShare
from steward_server.permissions import Permission

STATES = {
    State.PENDING: pb.ENVIRONMENT_STATUS_PENDING,
    State.RUNNING: pb.ENVIRONMENT_STATUS_RUNNING,
    State.TERMINATING: pb.ENVIRONMENT_STATUS_TERMINATING,
    State.TERMINATED: pb.ENVIRONMENT_STATUS_TERMINATED,
    State.FAILED: pb.ENVIRONMENT_STATUS_FAILED,
}
FROM_STATE = {number: state for state, number in STATES.items()}
PERMISSIONS = {
    Permission.READ: keys.PERMISSION_READ,
    Permission.WRITE: keys.PERMISSION_WRITE,
    Permission.ADMIN: keys.PERMISSION_ADMIN,
}


def endpoint(environment_id: str) -> str:
    """The name a cluster's network would know it by."""
    return f"{environment_id}.agentbox.svc.cluster.local"


def namespace(environment_id: str) -> str:
    """The namespace a cluster would keep it in."""
    return f"agentbox-{environment_id}"


def listed(environment: Environment) -> pb.Environment:
    """As a list shows it in full."""
    shown = summary(environment)
    shown.labels.update(environment.labels)
    return shown


def summary(environment: Environment) -> pb.Environment:
    """As a creation is answered, and a list shows it."""
    return pb.Environment(
        id=environment.environment_id,
        name=environment.name,
        status=STATES[environment.state],
        image=environment.spec.image,
        created_at=timestamp(environment.created_at_us),
        started_at=timestamp(environment.started_at_us),
        resources=_resources(environment.spec.resources),
        endpoint=endpoint(environment.environment_id),
        namespace=namespace(environment.environment_id),
        paused=environment.paused,
        reason=environment.reason,
    )


def details(seen: Seen) -> pb.EnvironmentDetails:
    """In full."""
    environment = seen.environment
    lifetime_us = (environment.expires_at_us or 0) - environment.created_at_us
    return pb.EnvironmentDetails(
        id=environment.environment_id,
        name=environment.name,
        status=STATES[environment.state],
        image=environment.spec.image,
        created_at=timestamp(environment.created_at_us),
        started_at=timestamp(environment.started_at_us),
        resources=_resources(environment.spec.resources),
        metrics=_metrics(seen.stats) if seen.stats else None,
        endpoint=endpoint(environment.environment_id),
        namespace=namespace(environment.environment_id),
        env=seen.env,
        labels=environment.labels,
        paused=environment.paused,
        reason=environment.reason,
        timeout_s=max(0, lifetime_us // 1_000_000),
        expires_at=timestamp(environment.expires_at_us),
        idle_timeout_s=environment.idle_timeout_s,
        ended_at=timestamp(environment.ended_at_us),
        exit_code=environment.exit_code,
        command=environment.spec.command,
        owner_id=environment.owner_id,
        agent_id=environment.agent_id,
        permission=PERMISSIONS[seen.level],
        isolation=_isolation(environment.spec),
        node_selector=environment.spec.node_selector,
        tolerations=[
            pb.Toleration(
                key=each.key,
                operator=each.operator,
                value=each.value,
                effect=each.effect,
                toleration_s=each.toleration_s,
            )
            for each in environment.spec.tolerations
        ],
    )


def log_entry(record: LogRecord, *, timed: bool) -> pb.LogEntry:
    """One line of a log."""
    return pb.LogEntry(
        timestamp=timestamp(record.at_us) if timed else None,
        stream=record.stream,
        message=record.message,
    )


def logs_end(end: End) -> pb.LogsEnd:
    """Why a log has no more lines."""
    told = pb.LogsEnd(reason=end.reason)
    if end.state is not None:
        told.status = STATES[end.state]
    return told


def process(found: Process) -> pb.Process:
    """One process."""
    return pb.Process(
        pid=found.pid,
        parent_pid=found.parent_pid,
        user=found.user,
        command=found.command,
        started_at=timestamp(found.started_at_us),
        memory_bytes=found.memory_bytes,
    )


def share(named: NamedShare) -> pb.Share:
    """What somebody may do."""
    return pb.Share(
        user_id=named.share.user_id,
        username=named.username,
        permission=PERMISSIONS[named.share.permission],
        created_at=timestamp(named.share.created_at_us),
    )


def _resources(resources: Resources) -> pb.Resources:
    return pb.Resources(
        cpu=cpu_text(resources.cpu_millicores),
        memory=bytes_text(resources.memory_bytes),
        storage=bytes_text(resources.storage_bytes),
    )


def _metrics(stats: Stats) -> pb.EnvironmentMetrics:
    return pb.EnvironmentMetrics(
        cpu_usage=f"{stats.cpu_millicores}m",
        memory_usage=measured_text(stats.memory_bytes),
        storage_usage="" if stats.storage_bytes is None else measured_text(stats.storage_bytes),
        process_count=stats.process_count,
    )


def _isolation(spec: Spec) -> pb.Isolation:
    network, security = spec.network, spec.security
    return pb.Isolation(
        runtime_class=spec.runtime_class,
        network_policy=pb.NetworkPolicy(
            allow_internet=network.allow_internet,
            allowed_egress_cidrs=[str(each) for each in network.allowed_egress],
            allowed_ingress_ports=network.allowed_ingress_ports,
            allow_cluster_internal=network.allow_cluster_internal,
        ),
        security_context=pb.SecurityContext(
            run_as_user=security.run_as_user,
            run_as_group=security.run_as_group,
            run_as_non_root=security.run_as_non_root,
            read_only_root_filesystem=security.read_only_root_filesystem,
            allow_privilege_escalation=security.allow_privilege_escalation,
        ),
    )
