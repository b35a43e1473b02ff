"""Environments as they are asked for, like the nouns of resources.py.

What is open for a while (commands, terminals, logs, files on their way) is in
environments_streams.py, and how each client carries it beside that.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from steward.api_keys.v1 import api_keys_pb2
from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1.environments_pb2_grpc import EnvironmentServiceStub
from steward_client.client.calls import Call, Manner, every, first, nothing, rpc
from steward_client.client.conversation import Conversation, Wait
from steward_client.client.environments_files import Files
from steward_client.client.environments_ports import Ports
from steward_client.client.environments_snapshots import Snapshots
from steward_client.client.environments_streams import (
    RECONNECT_S,
    FollowedLogs,
    RunningCommand,
    Terminal,
    log_line,
)
from steward_client.client.environments_values import (
    Environment,
    EnvironmentDetails,
    EnvironmentStatus,
    ExecResult,
    Isolation,
    LogPage,
    NetworkPolicy,
    Process,
    Share,
    Ticket,
    TicketPurpose,
    Toleration,
    isolation_message,
    network_message,
)
from steward_client.client.holding import Holder, held, no_matter
from steward_client.client.values import PermissionWord, value_of
from steward_client.errors import Conflict, DeadlineExceeded, StewardError

PAGE_SIZE = 500
EXEC_TIMEOUT_S = 30
"""What the server gives a command that is given nothing."""
ROUND_TRIP_S = 30.0
"""What an answer may take beside the command it waits for."""
LONGEST_WAIT_S = 30
"""How long the server holds its answer back for one that is being made."""
FIRST_LOOK_S = 0.03
SLOWEST_LOOK_S = 1.0
"""How long until the next look at one that the server did not wait for."""


class Environments(Ports[Manner]):
    """Isolated machines in which agents run commands."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(holder)
        self.files: Files[Manner] = Files(holder)
        """What is in them."""
        self.snapshots: Snapshots[Manner] = Snapshots(holder)
        """What is kept of them."""

    @rpc
    def create(
        self,
        name: str,
        *,
        image: str,
        cpu: str = "500m",
        memory: str = "512Mi",
        storage: str = "1Gi",
        timeout_s: int | None = None,
        idle_timeout_s: int | None = None,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        isolation: Isolation | None = None,
        node_selector: Mapping[str, str] | None = None,
        tolerations: Sequence[Toleration] = (),
        request_id: str = "",
    ) -> Call[Environment]:
        """Ask for an environment, which is pending until it is made; see `wait_until_running`.

        `timeout_s` is how long it lives at most, None: an hour. `command` is its main command, with
        whose end it ends; none: one that does nothing until it is stopped. `request_id` names the
        creation, so that repeating it gives the same environment; made up if empty.

        Raises:
            InvalidRequest: a value is wrong, or there is no such image.
            Conflict: this server can make none; the message says why and what to do.
            RateLimited: reason QUOTA_EXCEEDED, more than the caller may have at a time.
        """
        return Call(
            EnvironmentServiceStub,
            "CreateEnvironment",
            pb.CreateEnvironmentRequest(
                name=name,
                image=image,
                resources=pb.Resources(cpu=cpu, memory=memory, storage=storage),
                timeout_s=timeout_s,
                idle_timeout_s=idle_timeout_s,
                env=env,
                command=command,
                labels=labels,
                isolation=isolation_message(isolation) if isolation else None,
                node_selector=node_selector,
                tolerations=[
                    pb.Toleration(
                        key=each.key,
                        operator=each.operator,
                        value=each.value,
                        effect=each.effect,
                        toleration_s=each.toleration_s,
                    )
                    for each in tolerations
                ],
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: value_of(Environment, answer.environment)),
            repeatable=True,
        )

    @rpc
    def list(
        self, *, status: EnvironmentStatus | None = None, label: str = ""
    ) -> Call[tuple[Environment, ...]]:
        """The environments the caller may read, newest first.

        `label` selects as Kubernetes does: "project=x,tier!=web".
        """

        def page(offset: int) -> pb.ListEnvironmentsRequest:
            return pb.ListEnvironmentsRequest(
                status=pb.EnvironmentStatus.Value(f"ENVIRONMENT_STATUS_{status.upper()}")
                if status
                else pb.ENVIRONMENT_STATUS_UNSPECIFIED,
                label=label,
                limit=PAGE_SIZE,
                offset=offset,
                view=pb.ENVIRONMENT_VIEW_FULL,
            )

        def next_page(answer: pb.ListEnvironmentsResponse) -> Any:
            read = answer.offset + len(answer.environments)
            return page(read) if answer.environments and read < answer.total else None

        return Call(
            EnvironmentServiceStub,
            "ListEnvironments",
            page(0),
            read=every(
                lambda answer: [value_of(Environment, each) for each in answer.environments]
            ),
            next_page=next_page,
            repeatable=True,
        )

    @rpc
    def get(self, environment_id: str) -> Call[EnvironmentDetails]:
        """One environment, in full."""
        return _looked_at(environment_id)

    @rpc
    def update(
        self,
        environment_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        remove_labels: Sequence[str] = (),
        timeout_s: int | None = None,
        idle_timeout_s: int | None = None,
        network: NetworkPolicy | None = None,
    ) -> Call[EnvironmentDetails]:
        """Change what is given.

        `timeout_s` counts from the creation; an `idle_timeout_s` of 0 is none. `network` takes the
        place of what it may reach, at once.

        Raises:
            Conflict: it has ended; or its network cannot be changed so, or not now.
        """
        request = pb.UpdateEnvironmentRequest(
            environment_id=environment_id,
            labels=labels,
            remove_labels=remove_labels,
            timeout_s=timeout_s,
            idle_timeout_s=idle_timeout_s,
            network=network_message(network) if network else None,
        )
        return _details("UpdateEnvironment", request)

    @held
    def extend(self, environment_id: str, by_s: int) -> Conversation[EnvironmentDetails]:
        """Let it live so much longer than it was to.

        Raises:
            Conflict: it has ended.
            InvalidRequest: it would live longer than the server allows.
        """
        found = yield from self.holder.manners.converse(_looked_at(environment_id))
        request = pb.UpdateEnvironmentRequest(
            environment_id=environment_id, timeout_s=found.timeout_s + by_s
        )
        changed: EnvironmentDetails = yield from self.holder.manners.converse(
            _details("UpdateEnvironment", request)
        )
        return changed

    @held
    def wait_until_running(
        self, environment_id: str, *, timeout_s: float = 150.0
    ) -> Conversation[EnvironmentDetails]:
        """Wait until it is made.

        Raises:
            Conflict: reason ENVIRONMENT_FAILED, or ENVIRONMENT_ENDED; the message says why.
            DeadlineExceeded: it is still being made after `timeout_s`.
        """
        begun_s, delay_s = monotonic(), FIRST_LOOK_S
        while True:
            left_s = timeout_s - (monotonic() - begun_s)
            found: EnvironmentDetails = yield from self.holder.manners.converse(
                _looked_at(environment_id, wait_s=min(int(max(left_s, 0)), LONGEST_WAIT_S))
            )
            if found.status == "running":
                return found
            if found.status != "pending":
                reason = "FAILED" if found.status == "failed" else "ENDED"
                raise Conflict(
                    f"environment {found.name!r} ({environment_id}) is {found.status}: "
                    f"{found.reason or 'it was told to end'}",
                    reason=f"ENVIRONMENT_{reason}",
                )
            if (waited_s := monotonic() - begun_s) >= timeout_s:
                raise DeadlineExceeded(
                    f"environment {found.name!r} ({environment_id}) is still being made after "
                    f"{waited_s:.0f} s"
                )
            yield Wait(delay_s)
            delay_s = min(delay_s * 1.5, SLOWEST_LOOK_S)

    @rpc
    def delete(self, environment_id: str, *, force: bool = False) -> Call[None]:
        """End an environment and remove everything of it; `force` kills at once what runs in it."""
        return Call(
            EnvironmentServiceStub,
            "DeleteEnvironment",
            pb.DeleteEnvironmentRequest(environment_id=environment_id, force=force),
            read=nothing,
            takes_s=ROUND_TRIP_S * 4,
        )

    @rpc
    def exec(
        self,
        environment_id: str,
        command: Sequence[str],
        *,
        timeout_s: int = EXEC_TIMEOUT_S,
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: int | None = None,
        stdin: str = "",
    ) -> Call[ExecResult]:
        """Run a command to its end. How it ended is data, no error; after `timeout_s` it is killed.

        Raises:
            Conflict: nothing can run there now, or the command cannot be started; `reason` says.
        """
        return Call(
            EnvironmentServiceStub,
            "Exec",
            pb.ExecRequest(
                environment_id=environment_id,
                command=command,
                timeout_s=timeout_s,
                env=env,
                working_dir=working_dir,
                user=user,
                stdin=stdin,
            ),
            read=first(lambda answer: value_of(ExecResult, answer)),
            takes_s=timeout_s + ROUND_TRIP_S,
        )

    @rpc
    def logs(
        self, environment_id: str, *, tail: int | None = None, after: int = 0
    ) -> Call[LogPage]:
        """The newest lines of its log: the last `tail`, or as many as go into one answer."""
        return Call(
            EnvironmentServiceStub,
            "GetLogs",
            pb.GetLogsRequest(environment_id=environment_id, tail=tail, after=after),
            read=first(_log_page),
            repeatable=True,
        )

    @held
    def follow_logs(
        self,
        environment_id: str,
        *,
        tail: int | None = None,
        after: int = 0,
        reconnect_s: float = RECONNECT_S,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[FollowedLogs[Manner]]:
        """The lines of its log, then each as it is written, until it ends; to be iterated over.

        Begins with those of the last `tail` lines, or of all, that come after the number `after`. A
        cut stream is opened again where it left off, for up to `reconnect_s`; `on_cut` is told.
        """
        followed: FollowedLogs[Manner] = FollowedLogs(
            self.holder,
            environment_id,
            tail=tail,
            after=after,
            reconnect_s=reconnect_s,
            on_cut=on_cut,
        )
        yield from followed.open()
        return followed

    @held
    def start(
        self,
        environment_id: str,
        command: Sequence[str],
        *,
        timeout_s: int | None = None,
        env: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: int | None = None,
        terminal: tuple[int, int] | None = None,
    ) -> Conversation[RunningCommand[Manner]]:
        """Start a command, and give what it writes as it does; it ends when that is closed.

        `terminal` runs it behind one of so many columns and rows. A refusal is raised when the
        first output is asked for, as `exec` has it.
        """
        begun = pb.ExecStart(
            environment_id=environment_id,
            command=command,
            timeout_s=timeout_s,
            env=env,
            working_dir=working_dir,
            user=user,
            terminal=pb.TerminalSize(columns=terminal[0], rows=terminal[1]) if terminal else None,
        )
        running: RunningCommand[Manner] = RunningCommand(self.holder, begun)
        yield from running.open()
        return running

    @held
    def attach(
        self,
        environment_id: str,
        command: Sequence[str] = (),
        *,
        columns: int = 80,
        rows: int = 24,
        session: str = "",
        working_dir: str = "",
        user: int | None = None,
        tty: bool = True,
        reconnect_s: float = RECONNECT_S,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[Terminal[Manner]]:
        """Open a terminal with a shell, or another command, and give what it shows.

        With a name in `session` a lost connection is made again, for up to `reconnect_s`, and finds
        the same shell, which shows again what it wrote last; `on_cut` is told. Whoever closes it
        can come back under the name within a minute. Without one it ends with the connection.

        Raises:
            Conflict: nothing can run there now, or the command cannot be started; `reason` says.
        """
        opened = pb.AttachOpen(
            environment_id=environment_id,
            command=command,
            columns=columns,
            rows=rows,
            tty=tty,
            session=session,
            working_dir=working_dir,
            user=user,
        )
        terminal: Terminal[Manner] = Terminal(
            self.holder, opened, reconnect_s=reconnect_s, on_cut=on_cut
        )
        yield from terminal.open()
        return terminal

    @rpc
    def pause(self, environment_id: str) -> Call[EnvironmentDetails]:
        """Let every process stand still; memory is kept.

        Raises:
            Conflict: it does not run, or the driver cannot.
        """
        request = pb.PauseEnvironmentRequest(environment_id=environment_id)
        return _details("PauseEnvironment", request)

    @rpc
    def resume(self, environment_id: str) -> Call[EnvironmentDetails]:
        """Let them go on.

        Raises:
            Conflict: as `pause`.
        """
        request = pb.ResumeEnvironmentRequest(environment_id=environment_id)
        return _details("ResumeEnvironment", request)

    @rpc
    def processes(self, environment_id: str) -> Call[tuple[Process, ...]]:
        """What runs in it."""
        return Call(
            EnvironmentServiceStub,
            "ListProcesses",
            pb.ListProcessesRequest(environment_id=environment_id),
            read=every(lambda answer: [value_of(Process, each) for each in answer.processes]),
            repeatable=True,
        )

    @rpc
    def signal(self, environment_id: str, pid: int, signal: str = "TERM") -> Call[None]:
        """Send a signal, by name or number, to a process, by the number it has inside.

        Raises:
            NotFound: there is no such process.
        """
        return Call(
            EnvironmentServiceStub,
            "SignalProcess",
            pb.SignalProcessRequest(environment_id=environment_id, pid=pid, signal=signal),
            read=nothing,
        )

    @rpc
    def share(self, environment_id: str, user: str, permission: PermissionWord) -> Call[Share]:
        """Let somebody else, by id or by name, use it: in place of what they were let before."""
        return Call(
            EnvironmentServiceStub,
            "ShareEnvironment",
            pb.ShareEnvironmentRequest(
                environment_id=environment_id,
                user=user,
                permission=api_keys_pb2.Permission.Value(f"PERMISSION_{permission.upper()}"),
            ),
            read=first(lambda answer: value_of(Share, answer.share)),
            repeatable=True,
        )

    @rpc
    def unshare(self, environment_id: str, user: str) -> Call[None]:
        """Take that away, on open streams too."""
        request = pb.UnshareEnvironmentRequest(environment_id=environment_id, user=user)
        return Call(EnvironmentServiceStub, "UnshareEnvironment", request, read=nothing)

    @rpc
    def shares(self, environment_id: str) -> Call[tuple[Share, ...]]:
        """Who may use it beside its owner, the oldest share first."""
        return Call(
            EnvironmentServiceStub,
            "ListShares",
            pb.ListSharesRequest(environment_id=environment_id),
            read=every(lambda answer: [value_of(Share, each) for each in answer.shares]),
            repeatable=True,
        )

    @rpc
    def ticket(self, environment_id: str, purpose: TicketPurpose = "attach") -> Call[Ticket]:
        """What stands for the caller once, in `?ticket=`, where no header can be sent."""
        return Call(
            EnvironmentServiceStub,
            "CreateTicket",
            pb.CreateTicketRequest(
                environment_id=environment_id,
                purpose=pb.TicketPurpose.Value(f"TICKET_PURPOSE_{purpose.upper()}"),
            ),
            read=first(lambda answer: value_of(Ticket, answer)),
        )


def _details(method: str, request: Any, *, takes_s: float = 0.0) -> Call[EnvironmentDetails]:
    """A call that is answered with the whole environment, and may be repeated."""
    return Call(
        EnvironmentServiceStub,
        method,
        request,
        read=first(lambda answer: value_of(EnvironmentDetails, answer.environment)),
        repeatable=True,
        takes_s=takes_s,
    )


def _looked_at(environment_id: str, *, wait_s: int = 0) -> Call[EnvironmentDetails]:
    request = pb.GetEnvironmentRequest(environment_id=environment_id, wait_s=wait_s)
    return _details("GetEnvironment", request, takes_s=wait_s + ROUND_TRIP_S)


def _log_page(answer: pb.GetLogsResponse) -> LogPage:
    before = answer.last_sequence - len(answer.logs)  # numbers have no holes
    lines = (log_line(each, number) for number, each in enumerate(answer.logs, before + 1))
    return LogPage(tuple(lines), answer.last_sequence, answer.truncated)
