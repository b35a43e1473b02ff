"""Steps done by themselves, without a run around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from steward_server.credential import Credential
from steward_server.executions.work import Artifact, ArtifactKind, Result, StepFailed, Work
from steward_server.masking import Taint
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import bound
from steward_server.playbooks.references import Scope

T = TypeVar("T")


class NoSteward:
    """Refuses every call."""

    async def call(self, method: str, request: Message) -> Any:
        raise StepFailed(f"{method} is not served here")


@dataclass
class TestSession:
    """A run of which only one step at a time is done. Close it with `aclose`."""

    __test__ = False

    folder: Path
    gateway_url: str = ""
    credential: Credential | None = None
    steward: Any = field(default_factory=NoSteward)
    execution_id: str = "run-1"
    playbook_name: str = "Test"
    results: list[Result] = field(default_factory=list)
    taint: Taint = field(default_factory=Taint)
    frames: list[bytes] = field(default_factory=list)
    artifacts: list[tuple[Artifact, bytes]] = field(default_factory=list)
    logged: list[tuple[str, str]] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    opened: dict[str, Any] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def shared(self, key: str, opened: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if key not in self.opened:
            self.opened[key] = await self.stack.enter_async_context(opened())
        found: T = self.opened[key]
        return found

    def show(self, png: bytes) -> None:
        self.frames.append(png)

    def mask(self, text: str) -> str:
        return self.taint.mask(text)

    async def aclose(self) -> None:
        await self.stack.aclose()

    async def do(self, work: Mapping[str, Work], step_type: str, **parameters: Any) -> Any:
        """Do a step with the work that is registered for it; gives its outputs."""
        values = bound(CATALOGUE[step_type], parameters, Scope())
        return await work[step_type](TestJob(self, step_type, values))


@dataclass
class TestJob:
    __test__ = False

    session: TestSession
    type: str
    values: Mapping[str, Any]
    step_id: str = "step"
    request_id: str = "run-1/step"

    @property
    def variables(self) -> Mapping[str, Any]:
        return self.session.variables

    def set_variable(self, name: str, value: Any) -> None:
        self.session.variables[name] = value

    async def log(self, message: str, level: str = "info") -> None:
        self.session.logged.append((level, message))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def safe_point(self, where: str) -> None:
        """Nobody pauses."""

    def file(self, path: str) -> Path:
        found = self.session.folder / path
        if not found.is_file():
            raise StepFailed(f"there is no file {path!r}")
        return found

    async def keep(
        self, name: str, content: bytes | Path, *, kind: ArtifactKind, content_type: str
    ) -> Artifact:
        data = content.read_bytes() if isinstance(content, Path) else content
        number = len(self.session.artifacts)
        artifact = Artifact(f"art-{number}", name, kind, content_type, len(data))
        self.session.artifacts.append((artifact, data))
        (self.session.folder / name).write_bytes(data)  # steps may read it by its name
        return artifact
