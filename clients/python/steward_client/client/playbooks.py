"""The library of playbooks, like the nouns of resources.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from steward.playbooks.v1 import playbooks_pb2 as pb
from steward.playbooks.v1.playbooks_pb2_grpc import PlaybookServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.values import value_of
from steward_client.errors import TextError

Origin = Literal["unspecified", "built_in", "user"]
Will = Literal["unspecified", "run", "skip", "depend"]

CHECK_S = 60.0
"""What a server may take to check a text when others wait for theirs too."""


@dataclass(frozen=True, slots=True)
class PlaybookSummary:
    """A playbook in the list."""

    name: str
    path: str
    domain: str
    description: str
    version: str
    group: str
    origin: Origin
    verified: bool
    """Whether its author says so."""
    parameter_count: int
    step_count: int
    error_count: int
    """With any it cannot be used."""
    error: str
    """The first of them, with line and column; empty if there is none."""
    pending: bool
    """Whether the server had no time to read it yet."""
    last_modified: datetime | None


@dataclass(frozen=True, slots=True)
class PlaybookParameter:
    """What a playbook is given when it starts."""

    name: str
    type: str
    required: bool
    description: str
    default: Any | None


@dataclass(frozen=True, slots=True)
class PlaybookStep:
    """One thing that a playbook does."""

    id: str
    name: str
    type: str
    timeout_s: float | None
    """Of one attempt; None: as long as its type needs."""
    attempts: int
    on_failure: str
    when: str
    """The condition without which it is skipped; empty: none."""
    needs: tuple[str, ...]
    is_read_only: bool
    """Whether it changes nothing outside of the run."""
    line: int
    undo: tuple[PlaybookStep, ...]


@dataclass(frozen=True, slots=True)
class Playbook:
    """A procedure that can be run."""

    name: str
    version: str
    description: str
    parameters: tuple[PlaybookParameter, ...]
    steps: tuple[PlaybookStep, ...]
    finally_steps: tuple[PlaybookStep, ...]
    """What is run at the end, however that comes."""
    path: str
    domain: str
    group: str
    origin: Origin
    verified: bool
    timeout_s: float
    needs: tuple[str, ...]
    """What it and those that it runs use: a gateway, a browser, a person …"""
    metadata: dict[str, Any]
    digest: str
    """Of its text; tells whether it was changed."""
    last_modified: datetime | None


@dataclass(frozen=True, slots=True)
class PlaybookSource:
    """The text of a playbook."""

    path: str
    text: str
    digest: str
    origin: Origin
    last_modified: datetime | None


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step as it would be run."""

    id: str
    name: str
    type: str
    will: Will
    parameters: dict[str, Any]
    """With references replaced as far as is known; secrets are masked."""
    unknown: tuple[str, ...]
    """The references that are left."""
    is_read_only: bool
    is_repeatable: bool
    needs: tuple[str, ...]
    timeout_s: float
    attempts: int
    on_failure: str
    when: str
    undo: tuple[PlannedStep, ...]
    child: Plan | None
    """Of the playbook that it runs."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a playbook would do."""

    name: str
    version: str
    parameters: dict[str, Any]
    steps: tuple[PlannedStep, ...]
    finally_steps: tuple[PlannedStep, ...]


class Playbooks(Resource[Manner]):
    """The library: one for all people of the server, over what comes with it."""

    @rpc
    def list(self, *, domain: str = "") -> Call[tuple[PlaybookSummary, ...]]:
        """All playbooks by path, or those of a domain; those that cannot be used among them."""
        return Call(
            PlaybookServiceStub,
            "ListPlaybooks",
            pb.ListPlaybooksRequest(domain=domain),
            read=every(lambda answer: [value_of(PlaybookSummary, it) for it in answer.playbooks]),
            repeatable=True,
        )

    @rpc
    def get(self, path: str) -> Call[Playbook]:
        """One playbook, checked.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be used, and `errors` says why; or the path can be no
                playbook's.
        """
        return Call(
            PlaybookServiceStub,
            "GetPlaybook",
            pb.GetPlaybookRequest(path=path),
            read=first(lambda answer: value_of(Playbook, answer)),
            repeatable=True,
        )

    @rpc
    def source(self, path: str) -> Call[PlaybookSource]:
        """The text of a playbook, which may have faults; not for viewers.

        Raises:
            NotFound: there is none.
        """
        return Call(
            PlaybookServiceStub,
            "GetPlaybookSource",
            pb.GetPlaybookSourceRequest(path=path),
            read=first(lambda answer: value_of(PlaybookSource, answer)),
            repeatable=True,
        )

    @rpc
    def save(self, path: str, text: str, *, expected_digest: str | None = None) -> Call[str]:
        """Write a playbook, in place of what is there; its digest is returned.

        With `expected_digest` only that is replaced; empty: only where nothing is.

        Raises:
            InvalidRequest: it cannot be used, and `errors` says why.
            Conflict: reason VERSION_PASSED, something else is there than was expected.
        """
        return Call(
            PlaybookServiceStub,
            "SavePlaybook",
            pb.SavePlaybookRequest(path=path, text=text, expected_digest=expected_digest),
            read=first(lambda answer: str(answer.digest)),
            takes_s=CHECK_S,
        )

    @rpc
    def delete(self, path: str, *, expected_digest: str | None = None) -> Call[None]:
        """Delete a playbook that people made.

        Raises:
            NotFound: there is none.
            Conflict: it comes with the server, or is not what was expected.
        """
        return Call(
            PlaybookServiceStub,
            "DeletePlaybook",
            pb.DeletePlaybookRequest(path=path, expected_digest=expected_digest),
            read=nothing,
        )

    @rpc
    def duplicate(self, path: str, new_name: str) -> Call[str]:
        """Write a copy of this name beside a playbook; its path is returned.

        Raises:
            NotFound: there is none.
            InvalidRequest: it cannot be used, or there can be no copy of this name.
        """
        return Call(
            PlaybookServiceStub,
            "DuplicatePlaybook",
            pb.DuplicatePlaybookRequest(source_path=path, new_name=new_name),
            read=first(lambda answer: str(answer.new_path)),
        )

    @rpc
    def check(self, path: str = "", *, text: str | None = None) -> Call[tuple[TextError, ...]]:
        """Everything that is wrong with a text, or without one with what is at a path.

        Raises:
            NotFound: there is nothing.
        """
        return Call(
            PlaybookServiceStub,
            "CheckPlaybook",
            pb.CheckPlaybookRequest(path=path, text=text),
            read=every(lambda answer: [value_of(TextError, each) for each in answer.errors]),
            repeatable=True,
            takes_s=CHECK_S,
        )

    @rpc
    def plan(
        self,
        path: str = "",
        *,
        text: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        gateway_url: str = "",
        credential_name: str = "",
    ) -> Call[Plan]:
        """What a text, or without one what is at a path, would do; nothing of it is done.

        Raises:
            NotFound: there is nothing.
            InvalidRequest: it cannot be used, or not with these parameters: see `errors`, `fields`.
        """
        return Call(
            PlaybookServiceStub,
            "PlanPlaybook",
            pb.PlanPlaybookRequest(
                path=path,
                text=text,
                parameters=ParseDict(dict(parameters or {}), Struct()),
                gateway_url=gateway_url,
                credential_name=credential_name,
            ),
            read=first(lambda answer: value_of(Plan, answer.plan)),
            repeatable=True,
            takes_s=CHECK_S,
        )
