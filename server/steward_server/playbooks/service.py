"""PlaybookService: translates between protos and the library."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from steward.playbooks.v1 import playbooks_pb2 as pb
from steward.playbooks.v1 import playbooks_pb2_grpc as rpc
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.forms import Field, Kind, StepType
from steward_server.playbooks.library import Library, text_error
from steward_server.playbooks.paths import MAX_CHARACTERS, unescaped
from steward_server.playbooks.planning import Plan, PlannedStep
from steward_server.playbooks.playbook import MAX_NAME_CHARACTERS, Parameter, Playbook, Step
from steward_server.playbooks.shelves import Origin, Summary, domain_of
from steward_server.structs import message_of, struct_of, values_of

MAX_ERRORS = 1_000
_MAX_DIGEST = 64
_ORIGINS = {Origin.USER: pb.ORIGIN_USER, Origin.BUILT_IN: pb.ORIGIN_BUILT_IN}


class PlaybookService(rpc.PlaybookServiceServicer):
    """Serves people the library of playbooks."""

    def __init__(self, library: Library) -> None:
        self._library = library

    async def ListPlaybooks(
        self, request: pb.ListPlaybooksRequest, _context: Context
    ) -> pb.ListPlaybooksResponse:
        with Checks() as checks:
            checks.text("domain", request.domain, 0, MAX_NAME_CHARACTERS)
        listing = await self._library.listing()
        return pb.ListPlaybooksResponse(
            playbooks=[
                _summary(each) for each in listing.summaries if request.domain in ("", each.domain)
            ],
            truncated=listing.is_truncated,
        )

    async def GetPlaybook(
        self, request: pb.GetPlaybookRequest, _context: Context
    ) -> pb.GetPlaybookResponse:
        path = unescaped(request.path)
        shown = await self._library.shown(path)
        playbook = shown.playbook
        return pb.GetPlaybookResponse(
            name=playbook.name,
            version=playbook.version,
            description=playbook.description,
            parameters=[_parameter(each) for each in playbook.parameters],
            steps=[_step(playbook, each) for each in playbook.steps],
            finally_steps=[_step(playbook, each) for each in playbook.finally_],
            path=path,
            domain=domain_of(playbook, path),
            group=playbook.group,
            origin=_ORIGINS[shown.text.origin],
            verified=playbook.verified,
            timeout_s=playbook.timeout_s,
            needs=sorted(shown.needs),
            metadata=struct_of(playbook.metadata),
            digest=shown.text.digest,
            last_modified=timestamp(shown.text.modified_at_us),
        )

    async def GetPlaybookSource(
        self, request: pb.GetPlaybookSourceRequest, _context: Context
    ) -> pb.GetPlaybookSourceResponse:
        path = unescaped(request.path)
        found, text = await self._library.source(path)
        return pb.GetPlaybookSourceResponse(
            path=path,
            text=text,
            digest=found.digest,
            origin=_ORIGINS[found.origin],
            last_modified=timestamp(found.modified_at_us),
        )

    async def SavePlaybook(
        self, request: pb.SavePlaybookRequest, context: Context
    ) -> pb.SavePlaybookResponse:
        path = unescaped(request.path)
        with Checks() as checks:
            checks.given("text", is_given=bool(request.text))
            checks.text("expected_digest", request.expected_digest, 0, _MAX_DIGEST)
        saved = await self._library.save(
            caller(context), path, request.text, expected_digest=_expected(request)
        )
        return pb.SavePlaybookResponse(
            message="Playbook saved successfully",
            path=path,
            digest=saved.digest,
            created=saved.is_new,
        )

    async def DeletePlaybook(
        self, request: pb.DeletePlaybookRequest, context: Context
    ) -> pb.DeletePlaybookResponse:
        with Checks() as checks:
            checks.text("expected_digest", request.expected_digest, 0, _MAX_DIGEST)
        await self._library.delete(
            caller(context), unescaped(request.path), expected_digest=_expected(request)
        )
        return pb.DeletePlaybookResponse(message="Playbook deleted successfully")

    async def DuplicatePlaybook(
        self, request: pb.DuplicatePlaybookRequest, context: Context
    ) -> pb.DuplicatePlaybookResponse:
        with Checks() as checks:
            name = request.new_name.strip()
            checks.given("source_path", is_given=bool(request.source_path))
            checks.text("new_name", name, 1, MAX_NAME_CHARACTERS)
            if "/" in name or "\\" in name:
                checks.add(
                    "new_name", "holds a separator of paths; the copy lies beside its source"
                )
        new_path = await self._library.duplicate(
            caller(context), unescaped(request.source_path), name
        )
        return pb.DuplicatePlaybookResponse(
            message="Playbook duplicated successfully", new_path=new_path
        )

    async def CheckPlaybook(
        self, request: pb.CheckPlaybookRequest, _context: Context
    ) -> pb.CheckPlaybookResponse:
        _check_subject(request)
        path = unescaped(request.path)
        faults = await self._library.check(path, _text(request))
        return pb.CheckPlaybookResponse(
            valid=not faults,
            errors=[text_error(each, path) for each in faults[:MAX_ERRORS]],
        )

    async def PlanPlaybook(
        self, request: pb.PlanPlaybookRequest, _context: Context
    ) -> pb.PlanPlaybookResponse:
        _check_subject(request)
        with Checks() as checks:
            checks.text("credential_name", request.credential_name, 0, 100)
        made, needs = await self._library.plan(
            unescaped(request.path),
            _text(request),
            values_of(request.parameters),
            gateway_url=request.gateway_url,
            credential=request.credential_name,
        )
        return pb.PlanPlaybookResponse(plan=_plan(made), needs=sorted(needs))

    async def ListStepTypes(
        self, _request: pb.ListStepTypesRequest, _context: Context
    ) -> pb.ListStepTypesResponse:
        return _step_types()


def _expected(request: pb.SavePlaybookRequest | pb.DeletePlaybookRequest) -> str | None:
    return request.expected_digest if request.HasField("expected_digest") else None


def _check_subject(request: pb.CheckPlaybookRequest | pb.PlanPlaybookRequest) -> None:
    """A text, or the path of one in the library."""
    with Checks() as checks:
        if not request.HasField("text"):
            checks.given("path", is_given=bool(request.path))
        checks.text("path", request.path, 0, MAX_CHARACTERS)


def _text(request: pb.CheckPlaybookRequest | pb.PlanPlaybookRequest) -> str | None:
    return request.text if request.HasField("text") else None


def _summary(summary: Summary) -> pb.PlaybookSummary:
    return pb.PlaybookSummary(
        name=summary.name,
        path=summary.path,
        domain=summary.domain,
        description=summary.description,
        version=summary.version,
        group=summary.group,
        origin=_ORIGINS[summary.origin],
        verified=summary.verified,
        parameter_count=summary.parameter_count,
        step_count=summary.step_count,
        error_count=summary.error_count,
        error=summary.error,
        pending=summary.pending,
        last_modified=timestamp(summary.modified_at_us),
    )


def _parameter(parameter: Parameter) -> pb.Parameter:
    return pb.Parameter(
        name=parameter.name,
        type=parameter.type,
        required=parameter.required,
        description=parameter.description,
        default=None if parameter.default is None else message_of(parameter.default),
    )


def _step(playbook: Playbook, step: Step) -> pb.Step:
    step_type = CATALOGUE[step.type]
    return pb.Step(
        id=step.id,
        name=step.name,
        type=step.type,
        timeout_s=step.timeout_s,
        attempts=step.retry.attempts,
        on_failure=step.on_failure,
        when=step.when.text if step.when else "",
        needs=sorted(step_type.needs),
        is_read_only=step_type.is_read_only,
        line=playbook.line(step),
        undo=[_step(playbook, each) for each in step.undo],
    )


def _plan(made: Plan) -> pb.Plan:
    return pb.Plan(
        name=made.name,
        version=made.version,
        parameters=struct_of(made.parameters),
        steps=_planned(made.steps),
        finally_steps=_planned(made.finally_),
    )


def _planned(steps: Iterable[PlannedStep]) -> list[pb.PlannedStep]:
    return [
        pb.PlannedStep(
            id=step.id,
            name=step.name,
            type=step.type,
            will=pb.Will.Value(f"WILL_{step.will.name}"),
            parameters=struct_of(step.parameters),
            unknown=step.unknown,
            is_read_only=step.is_read_only,
            is_repeatable=step.is_repeatable,
            needs=step.needs,
            timeout_s=step.timeout_s,
            attempts=step.attempts,
            on_failure=step.on_failure,
            when=step.when,
            undo=_planned(step.undo),
            child=_plan(step.child) if step.child is not None else None,
        )
        for step in steps
    ]


@cache
def _step_types() -> pb.ListStepTypesResponse:
    return pb.ListStepTypesResponse(step_types=[_step_type(each) for each in CATALOGUE.values()])


def _step_type(step_type: StepType) -> pb.StepType:
    return pb.StepType(
        name=step_type.name,
        description=step_type.doc,
        parameters=[_field(each) for each in step_type.parameters],
        outputs=[_field(each) for each in step_type.outputs],
        alternatives=[pb.ParameterGroup(names=each) for each in step_type.alternatives],
        must_choose=step_type.must_choose,
        takes_more=step_type.takes_more,
        is_read_only=step_type.is_read_only,
        is_repeatable=step_type.is_repeatable,
        needs=sorted(step_type.needs),
    )


def _field(declared: Field) -> pb.StepField:
    return pb.StepField(
        name=declared.name,
        type=Kind.ANY if declared.kind is Kind.GIVEN else declared.kind,
        description=declared.doc,
        required=declared.required,
        default=None if declared.default is None else message_of(declared.default),
        unit=declared.unit,
        least=declared.least,
        most=declared.most,
        choices=declared.choices,
        pattern=declared.shape.pattern if declared.shape else "",
        pattern_words=declared.shape.words if declared.shape else "",
        item=_field(declared.item) if declared.item is not None else None,
        fields=[_field(each) for each in declared.fields],
        nullable=declared.nullable,
        literal=declared.literal,
        secret=declared.secret,
    )
