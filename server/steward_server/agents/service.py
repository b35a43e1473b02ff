"""AgentService: translates between protos and the room."""

from __future__ import annotations

from steward.agents.v1 import agents_pb2 as pb
from steward.agents.v1 import agents_pb2_grpc as rpc
from steward_server.agents.agent import DesiredState
from steward_server.agents.room import AgentRoom, Changes, Seen
from steward_server.agents.status import Status
from steward_server.balance import MAX_BUDGET_NANOUSD
from steward_server.budget_status import budget_status
from steward_server.budget_words import period_word
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument, PermissionDenied
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.versions import expected_version

STATUSES = {
    Status.IDLE: pb.AGENT_STATUS_IDLE,
    Status.RUNNING: pb.AGENT_STATUS_RUNNING,
    Status.STOPPING: pb.AGENT_STATUS_STOPPING,
    Status.STOPPED: pb.AGENT_STATUS_STOPPED,
    Status.FAILED: pb.AGENT_STATUS_FAILED,
}
DESIRED_STATES = {
    DesiredState.RUNNING: pb.DESIRED_STATE_RUNNING,
    DesiredState.STOPPED: pb.DESIRED_STATE_STOPPED,
}


class AgentService(rpc.AgentServiceServicer):
    """Serves agents to people."""

    def __init__(self, room: AgentRoom) -> None:
        self._room = room

    async def CreateAgent(
        self, request: pb.CreateAgentRequest, context: Context
    ) -> pb.CreateAgentResponse:
        with Checks() as checks:
            _check_name(checks, request.name)
            checks.given("budget_usd", is_given=request.HasField("budget_nanousd"))
            _check_budget(checks, request.budget_nanousd)
            checks.text("provider", request.provider, 0, 50)
            checks.text("owner_id", request.owner_id, 0, 100)
            checks.text("project_id", request.project_id, 0, 100)
            period = period_word(checks, "budget_period", request.budget_period)
        seen = await self._room.create(
            caller(context),
            name=request.name,
            budget_nanousd=request.budget_nanousd,
            provider=request.provider,
            owner_id=request.owner_id,
            project_id=request.project_id,
            period=period or "none",
        )
        return pb.CreateAgentResponse(agent=_to_proto(seen))

    async def ListAgents(
        self, request: pb.ListAgentsRequest, context: Context
    ) -> pb.ListAgentsResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
            checks.text("owner_id", request.owner_id, 0, 100)
            checks.text("project_id", request.project_id, 0, 100)
        principal = caller(context)
        if request.owner_id not in ("", principal.subject) and not principal.is_admin:
            raise PermissionDenied(
                "only administrators may list the agents of others; leave out `owner_id`",
                reason="ROLE_NOT_ALLOWED",
            )
        seen = await self._room.page(
            principal,
            owner_id=request.owner_id,
            project_id=request.project_id,
            before=before,
            limit=size + 1,
        )
        response = pb.ListAgentsResponse(agents=[_to_proto(each) for each in seen[:size]])
        if len(seen) > size:
            last = seen[size - 1].agent
            response.next_page_token = to_page_token(last.created_at_us, last.agent_id)
        return response

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.GetAgentResponse:
        _check_agent_id(request.agent_id)
        seen = await self._room.get(caller(context), request.agent_id)
        return pb.GetAgentResponse(agent=_to_proto(seen))

    async def UpdateAgent(
        self, request: pb.UpdateAgentRequest, context: Context
    ) -> pb.UpdateAgentResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 1, 100)
            changes = _changes(checks, request)
        if changes == Changes(None, None, None):
            raise InvalidArgument(
                "nothing to change; give `name`, `budget_usd`, `provider`, `project_id` or "
                "`budget_period`",
                reason="NO_FIELDS_PROVIDED",
            )
        seen = await self._room.update(
            caller(context),
            request.agent_id,
            changes,
            expected_version=expected_version(request),
        )
        return pb.UpdateAgentResponse(agent=_to_proto(seen))

    async def DeleteAgent(
        self, request: pb.DeleteAgentRequest, context: Context
    ) -> pb.DeleteAgentResponse:
        _check_agent_id(request.agent_id)
        await self._room.delete(
            caller(context), request.agent_id, expected_version=expected_version(request)
        )
        return pb.DeleteAgentResponse()

    async def GetAgentStatus(
        self, request: pb.GetAgentStatusRequest, context: Context
    ) -> pb.GetAgentStatusResponse:
        _check_agent_id(request.agent_id)
        seen, lsn = await self._room.get_with_commit(caller(context), request.agent_id)
        agent = seen.agent
        return pb.GetAgentStatusResponse(
            agent_id=agent.agent_id,
            name=agent.name,
            status=STATUSES[seen.status],
            desired_state=DESIRED_STATES[agent.desired_state],
            budget=budget_status(seen.balance),
            last_seen_at=timestamp(agent.last_seen_at_us),
            started_at=timestamp(agent.started_at_us),
            stopped_at=timestamp(agent.stopped_at_us),
            exit_code=agent.exit_code,
            open_leases=seen.balance.open_leases,
            commit_number=lsn,
        )

    async def StopAgent(
        self, request: pb.StopAgentRequest, context: Context
    ) -> pb.StopAgentResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 1, 100)
            checks.text("reason", request.reason, 0, 500)
        await self._room.stop(caller(context), request.agent_id, request.reason)
        # What was accepted, whatever runs: how far it has got is told by GetAgentStatus.
        return pb.StopAgentResponse(agent_id=request.agent_id, status=pb.AGENT_STATUS_STOPPING)

    async def StartAgent(
        self, request: pb.StartAgentRequest, context: Context
    ) -> pb.StartAgentResponse:
        _check_agent_id(request.agent_id)
        seen = await self._room.start(caller(context), request.agent_id)
        return pb.StartAgentResponse(agent_id=request.agent_id, status=STATUSES[seen.status])


def _check_agent_id(agent_id: str) -> None:
    with Checks() as checks:
        checks.text("agent_id", agent_id, 1, 100)


def _changes(checks: Checks, request: pb.UpdateAgentRequest) -> Changes:
    changes = Changes(
        name=request.name if request.HasField("name") else None,
        budget_nanousd=request.budget_nanousd if request.HasField("budget_nanousd") else None,
        provider=request.provider if request.HasField("provider") else None,
        project_id=request.project_id if request.HasField("project_id") else None,
        period=period_word(checks, "budget_period", request.budget_period),
        budget_reason=request.budget_reason,
    )
    if changes.name is not None:
        _check_name(checks, changes.name)
    if changes.budget_nanousd is not None:
        _check_budget(checks, changes.budget_nanousd)
    checks.text("provider", changes.provider or "", 0, 50)
    checks.text("project_id", changes.project_id or "", 0, 100)
    checks.text("budget_reason", changes.budget_reason, 0, 500)
    if changes.budget_reason and changes.budget_nanousd is None:
        checks.add("budget_reason", "is given without a budget; give `budget_usd` too")
    return changes


def _check_name(checks: Checks, name: str) -> None:
    checks.text("name", name, 1, 100)
    if name and not name.strip():
        checks.add("name", "is blank")


def _check_budget(checks: Checks, budget_nanousd: int) -> None:
    if not 0 < budget_nanousd <= MAX_BUDGET_NANOUSD:
        checks.add(
            "budget_usd", f"is {budget_nanousd} nano-dollars; it must be above $0, up to $1,000,000"
        )


def _to_proto(seen: Seen) -> pb.Agent:
    agent = seen.agent
    return pb.Agent(
        id=agent.agent_id,
        name=agent.name,
        owner_id=agent.owner_id,
        project_id=agent.project_id,
        provider=agent.provider,
        status=STATUSES[seen.status],
        desired_state=DESIRED_STATES[agent.desired_state],
        budget=budget_status(seen.balance),
        created_at=timestamp(agent.created_at_us),
        updated_at=timestamp(agent.updated_at_us),
        last_seen_at=timestamp(agent.last_seen_at_us),
        version=agent.version,
    )
