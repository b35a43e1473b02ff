"""Files that runs make: in a folder for each run, beside rows that say what they are."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from steward_server.db import Database, Transaction
from steward_server.executions import store
from steward_server.executions.config import ExecutionsConfig
from steward_server.executions.store import Kept
from steward_server.executions.whole import to_end
from steward_server.executions.work import Artifact, ArtifactKind, StepFailed
from steward_server.ids import new_id

_ODD = re.compile(r"[^A-Za-z0-9 ._*-]+")
MAX_NAME = 150


class Artifacts:
    """All files of all runs."""

    def __init__(
        self, database: Database, folder: Path, config: ExecutionsConfig, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._folder = folder
        self._config = config
        self._clock = clock

    def path(self, execution_id: str, artifact_id: str) -> Path:
        """Where an artifact is."""
        return self._folder / execution_id / artifact_id

    async def keep(
        self,
        execution_id: str,
        step_id: str,
        name: str,
        content: bytes | Path,
        *,
        kind: ArtifactKind,
        content_type: str,
    ) -> Artifact:
        """Keep a file; a path is of one that is moved here.

        Raises:
            StepFailed: it is too large, or the run has made too many.
        """
        size = await asyncio.to_thread(_size, content)
        artifact_id = new_id("art")
        path = self.path(execution_id, artifact_id)

        async def work(transaction: Transaction) -> Artifact:
            had = await store.artifacts_of(transaction, execution_id)
            self._check(name, size, had)
            free = free_name(name, {each.artifact.name for each in had})
            artifact = Artifact(artifact_id, free, kind, content_type, size)
            await store.keep(transaction, execution_id, Kept(artifact, step_id, self._clock()))
            return artifact

        async def put() -> Artifact:
            try:
                await asyncio.to_thread(_put, content, path)
                return await self._database.run(work)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

        self._check(name, size, ())
        return await to_end(put())

    def _check(self, name: str, size: int, had: Collection[Kept]) -> None:
        config = self._config
        if size > config.max_artifact_bytes:
            raise StepFailed(
                f"{name!r} has {size} bytes; a file of a run has at most"
                f" {config.max_artifact_bytes} (STEWARD_EXECUTIONS_MAX_ARTIFACT_BYTES)"
            )
        if len(had) >= config.max_artifacts:
            raise StepFailed(
                f"the run has made {len(had)} files; at most {config.max_artifacts} are kept"
                " (STEWARD_EXECUTIONS_MAX_ARTIFACTS)"
            )
        total = size + sum(each.artifact.size_bytes for each in had)
        if total > config.max_artifacts_bytes:
            raise StepFailed(
                f"with {name!r} the run's files would have {total} bytes; at most"
                f" {config.max_artifacts_bytes} (STEWARD_EXECUTIONS_MAX_ARTIFACTS_BYTES)"
            )

    async def delete(self, execution_id: str) -> None:
        """Delete all files of a run."""
        await asyncio.to_thread(shutil.rmtree, self._folder / execution_id, ignore_errors=True)

    async def clear(self) -> None:
        """Delete the files that no row knows: those that a crash left."""
        known = await store.artifact_ids(self._database)
        await asyncio.to_thread(_clear, self._folder, known)


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that is safe in a folder and a header, told apart from those that are taken."""
    safe = _ODD.sub("_", name).strip(". ") or "file"
    stem, dot, suffix = safe.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, suffix = safe, ""
    ending = f".{suffix}" if suffix else ""
    stem = stem[: MAX_NAME - len(ending)]
    free, number = stem + ending, 2
    while free in taken:
        free, number = f"{stem}-{number}{ending}", number + 1
    return free


def _clear(folder: Path, known: Mapping[str, Collection[str]]) -> None:
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        if each.name not in known:
            shutil.rmtree(each, ignore_errors=True)
            continue
        for file in each.iterdir():
            if file.name not in known[each.name]:
                file.unlink()


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _put(content: bytes | Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.move(content, path)
    else:
        path.write_bytes(content)
    path.chmod(0o600)
