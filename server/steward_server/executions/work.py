"""The form that the work of all steps has: what a step is given, and what it may do.

The work of a type of step is a coroutine function that takes a `Job` and gives the outputs. It is
cancelled where its step is skipped, its run is stopped or its time is over, and then lets go of all
it holds at once: the run waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message

from steward_server.credential import Credential
from steward_server.executions.run import StepState

T = TypeVar("T")


class StepFailed(Exception):
    """A step came to nothing; the message tells people why, and what to do.

    Attributes:
        context: facts that help to find out why, values of JSON: what a gateway answered, where a
            page was.
    """

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.context = context


class ArtifactKind(StrEnum):
    SCREENSHOT = "screenshot"
    DOWNLOAD = "download"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run has made.

    Attributes:
        name: unique in its run.
    """

    artifact_id: str
    name: str
    kind: ArtifactKind
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step that was begun."""

    step_id: str
    name: str
    type: str
    state: StepState
    started_at_us: int
    ended_at_us: int | None
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


class Steward(Protocol):
    """The server's own methods, called as whoever started the run: they may what that one may."""

    async def call(self, method: str, request: Message) -> Any:
        """Call a method by its name on the wire (`/package.Service/Method`); gives the response.

        Raises:
            StepFailed: it was refused; the message is the refusal's.
        """
        ...


class Session(Protocol):
    """What the steps of one run share."""

    @property
    def execution_id(self) -> str: ...

    @property
    def playbook_name(self) -> str: ...

    @property
    def gateway_url(self) -> str:
        """Of the Ignition gateway that the run is about; empty if none was named."""
        ...

    @property
    def credential(self) -> Credential | None:
        """What the run signs in with where a step names nothing else."""
        ...

    @property
    def steward(self) -> Steward: ...

    @property
    def results(self) -> Sequence[Result]:
        """What became of the steps so far, in the order they were begun in, secrets masked."""
        ...

    async def shared(self, key: str, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What steps share by this key: opened by the first, closed when the run is over.

        What is opened last is closed first.
        """
        ...

    def show(self, png: bytes) -> None:
        """Show whoever watches the run what its browser shows; the newest picture counts."""
        ...

    def mask(self, text: str) -> str:
        """A text without the run's secrets. Outputs and errors are masked by themselves."""
        ...


class Job(Protocol):
    """One attempt at one step.

    Attributes:
        values: the step's parameters, references replaced, defaults added, checked.
        request_id: the same for each attempt at the step in this run, after a crash too: by it
            services know repeats.
    """

    @property
    def session(self) -> Session: ...

    @property
    def step_id(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def values(self) -> Mapping[str, Any]: ...

    @property
    def request_id(self) -> str: ...

    @property
    def variables(self) -> Mapping[str, Any]:
        """Of the run, as they are now."""
        ...

    def set_variable(self, name: str, value: Any) -> None:
        """Set a variable of the run, for the steps after this one if it is completed."""
        ...

    async def log(self, message: str, level: str = "info") -> None:
        """Write a line into the run's events."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. The run may pause meanwhile, and the wait with it."""
        ...

    async def safe_point(self, where: str) -> None:
        """Let the run pause here, if it is to; come back when it goes on."""
        ...

    def file(self, path: str) -> Path:
        """Where a file is that the run may read: an artifact of its own, by name, or another.

        The folders are its playbook's and those that the server's settings name.

        Raises:
            StepFailed: there is none, or the run may not read it.
        """
        ...

    async def keep(
        self, name: str, content: bytes | Path, *, kind: ArtifactKind, content_type: str
    ) -> Artifact:
        """Keep a file as an artifact of the run; a path is of a file that is moved there.

        The name is masked, and made unique.

        Raises:
            StepFailed: it is larger than artifacts may be, or the run has made too many.
        """
        ...


Work: TypeAlias = Callable[[Job], Awaitable[Mapping[str, Any]]]
"""Does what a type of step is for, and gives its outputs: values of JSON."""
