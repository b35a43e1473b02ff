"""Runs of playbooks, like the nouns of resources.py, and what happens to them as it happens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from steward.executions.v1 import executions_pb2 as pb
from steward.executions.v1.executions_pb2_grpc import ExecutionServiceStub
from steward_client.client.calls import Call, Manner, every, first, nothing, rpc
from steward_client.client.conversation import Conversation
from steward_client.client.environments_files import FileContent
from steward_client.client.executions_values import Artifact, Execution, ExecutionStatus
from steward_client.client.executions_watching import Watched, WatchedAll, status_number
from steward_client.client.holding import Holding, held, no_matter
from steward_client.client.values import value_of
from steward_client.errors import StewardError

RECONNECT_S = 60.0
CHECK_S = 60.0
"""What a server may take to check a playbook when others wait for theirs too."""


class Executions(Holding[Manner]):
    """Runs of playbooks: the caller's, or for administrators all.

    What is done to one run raises NotFound where the caller may see none of this id, and Conflict,
    reason WRONG_STATE, where it is not in a state for that.
    """

    @rpc
    def start(
        self,
        playbook_path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        gateway_url: str = "",
        credential_name: str = "",
        debug_mode: bool = False,
        request_id: str = "",
    ) -> Call[str]:
        """Start a playbook, or put it in the queue; the id of its run is returned.

        What it needs of the gateway and the credential is filled in. In debug mode it pauses where
        a step fails. `request_id` names the start, so that repeating it gives the same run; made up
        if empty.

        Raises:
            InvalidRequest: the playbook cannot be used, or not with these parameters; see `errors`,
                `fields`.
            NotFound: there is no such playbook, or no such credential.
            RateLimited: reason QUEUE_FULL, too many runs wait already.
        """
        return Call(
            ExecutionServiceStub,
            "StartExecution",
            pb.StartExecutionRequest(
                playbook_path=playbook_path,
                parameters=ParseDict(dict(parameters or {}), Struct()),
                gateway_url=gateway_url,
                credential_name=credential_name,
                debug_mode=debug_mode,
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: str(answer.execution_id)),
            repeatable=True,
            takes_s=CHECK_S,
        )

    @rpc
    def list(
        self,
        *,
        limit: int = 50,
        status: ExecutionStatus | None = None,
        before_execution_id: str = "",
        playbook_path: str = "",
        parent_execution_id: str = "",
    ) -> Call[tuple[Execution, ...]]:
        """Up to `limit` runs, 1,000 at most, newest first, without their steps.

        Those that were started by somebody; with `parent_execution_id` those that this run started.
        """
        return Call(
            ExecutionServiceStub,
            "ListExecutions",
            pb.ListExecutionsRequest(
                limit=limit,
                status=status_number(status),
                before_execution_id=before_execution_id,
                playbook_path=playbook_path,
                parent_execution_id=parent_execution_id,
            ),
            read=every(lambda answer: [value_of(Execution, each) for each in answer.executions]),
            repeatable=True,
        )

    @rpc
    def get(self, execution_id: str) -> Call[Execution]:
        """One run, with what became of its steps."""
        return Call(
            ExecutionServiceStub,
            "GetExecution",
            pb.GetExecutionRequest(execution_id=execution_id),
            read=first(lambda answer: value_of(Execution, answer.execution)),
            repeatable=True,
        )

    @rpc
    def pause(self, execution_id: str) -> Call[None]:
        """Let it make no further step; it pauses at the next safe point."""
        return _done("PauseExecution", pb.PauseExecutionRequest(execution_id=execution_id))

    @rpc
    def resume(self, execution_id: str) -> Call[None]:
        """Let it go on; in debug mode the step that failed is tried again."""
        return _done("ResumeExecution", pb.ResumeExecutionRequest(execution_id=execution_id))

    @rpc
    def skip(self, execution_id: str) -> Call[None]:
        """End the step in hand, or the one that failed in debug mode, and go on with the next."""
        return _done("SkipExecution", pb.SkipExecutionRequest(execution_id=execution_id))

    @rpc
    def cancel(self, execution_id: str, *, reason: str = "") -> Call[None]:
        """End it, after the steps of `finally`; asked once more, without those."""
        request = pb.CancelExecutionRequest(execution_id=execution_id, reason=reason)
        return _done("CancelExecution", request)

    @rpc
    def rerun(
        self, execution_id: str, *, from_start: bool = False, request_id: str = ""
    ) -> Call[str]:
        """Start one that is over once more; the id of the new run is returned.

        It begins with the first step that was not completed, or makes all again. `request_id` is as
        that of `start`.
        """
        return Call(
            ExecutionServiceStub,
            "RerunExecution",
            pb.RerunExecutionRequest(
                execution_id=execution_id,
                from_start=from_start,
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: str(answer.execution_id)),
            repeatable=True,
        )

    @rpc
    def approve(self, execution_id: str, *, step_id: str = "", comment: str = "") -> Call[None]:
        """Approve what a step asks for; without `step_id` whichever does.

        Raises:
            Forbidden: reason OWN_RUN, somebody else than who started the run must.
        """
        request = pb.ApproveExecutionRequest(
            execution_id=execution_id, step_id=step_id, comment=comment
        )
        return _done("ApproveExecution", request)

    @rpc
    def reject(self, execution_id: str, *, step_id: str = "", comment: str = "") -> Call[None]:
        """Reject it: the step fails."""
        request = pb.RejectExecutionRequest(
            execution_id=execution_id, step_id=step_id, comment=comment
        )
        return _done("RejectExecution", request)

    @rpc
    def delete(self, execution_id: str) -> Call[None]:
        """Delete a run that is over, and all files it made."""
        return _done("DeleteExecution", pb.DeleteExecutionRequest(execution_id=execution_id))

    @rpc
    def artifacts(self, execution_id: str) -> Call[tuple[Artifact, ...]]:
        """The files that a run has made, oldest first."""
        return Call(
            ExecutionServiceStub,
            "ListArtifacts",
            pb.ListArtifactsRequest(execution_id=execution_id),
            read=every(lambda answer: [value_of(Artifact, each) for each in answer.artifacts]),
            repeatable=True,
        )

    @held
    def open_artifact(
        self, execution_id: str, artifact_id: str
    ) -> Conversation[FileContent[Manner]]:
        """The bytes of such a file, piece by piece.

        Raises:
            NotFound: reason ARTIFACT_NOT_FOUND, here or by the first piece asked for.
        """
        content: FileContent[Manner] = FileContent(self.holder)
        yield from content.begin(_artifact_read(execution_id, artifact_id))
        return content

    @held
    def read_artifact(self, execution_id: str, artifact_id: str) -> Conversation[bytes]:
        """The bytes of such a file.

        Raises:
            NotFound: reason ARTIFACT_NOT_FOUND.
        """
        content: FileContent[Manner] = FileContent(self.holder)
        yield from content.begin(_artifact_read(execution_id, artifact_id))
        return (yield from content.whole())

    @held
    def watch(
        self,
        execution_id: str,
        *,
        since: int = 0,
        frames: bool = False,
        reconnect_s: float = RECONNECT_S,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[Watched[Manner]]:
        """What happens to one run, from its beginning or after a sequence; ends with the run.

        With `frames`, what its browser shows too. A cut stream is opened again where it left off,
        for up to `reconnect_s`; `on_cut` is told.
        """
        request = pb.WatchRequest(execution_id=execution_id, since=since, frames=frames)
        watched: Watched[Manner] = Watched(
            self.holder, request, reconnect_s=reconnect_s, on_cut=on_cut
        )
        yield from watched.open()
        return watched

    @held
    def subscribe(
        self,
        *execution_ids: str,
        since: int | None = None,
        frames: bool = False,
        logs: bool = True,
        statuses: Sequence[ExecutionStatus] = (),
        reconnect_s: float = RECONNECT_S,
        on_cut: Callable[[StewardError], None] = no_matter,
    ) -> Conversation[WatchedAll[Manner]]:
        """What happens to these runs, or to all the caller may see, until it is closed.

        From now on; or after the sequence `since` first. `statuses` are those the runs are in. A
        cut stream is opened again as that of `watch`; one that was cut before anything happened,
        and has no `since`, goes on from when it stands again.

        Raises:
            StewardError: it is refused, here or by the first item asked for.
        """
        request = pb.SubscribeRequest(
            execution_id=execution_ids,
            since=since,
            frames=frames,
            logs=logs,
            status=map(status_number, statuses),
        )
        watched: WatchedAll[Manner] = WatchedAll(
            self.holder, request, reconnect_s=reconnect_s, on_cut=on_cut
        )
        yield from watched.open()
        return watched


def _done(method: str, request: Any) -> Call[None]:
    return Call(ExecutionServiceStub, method, request, read=nothing)


def _artifact_read(execution_id: str, artifact_id: str) -> Call[Any]:
    return Call(
        ExecutionServiceStub,
        "ReadArtifact",
        pb.ReadArtifactRequest(execution_id=execution_id, artifact_id=artifact_id),
        read=nothing,
        repeatable=True,
        streams=True,
    )
