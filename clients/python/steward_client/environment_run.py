"""A script that runs in an environment, which reaches the runtime's proxy and nothing else.

The environment's machine has no way out of its own: the runtime listens on a port inside, and what
connects there is passed on to its proxy. It ends with the runtime, however that dies: the server
ends the script, and what was made for the run goes for want of use.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import BinaryIO, Self

from steward_client.channels import Address
from steward_client.child import agent_environment
from steward_client.client.awaiting import AsyncClient
from steward_client.client.calls import Awaiting
from steward_client.client.environments_streams import PIECE_BYTES, RunningCommand
from steward_client.client.environments_values import ENVIRONMENT_ID, Isolation
from steward_client.client.tunnels import AsyncTunnel
from steward_client.errors import Conflict, InvalidRequest, NotFound, StewardError, Unavailable
from steward_client.luggage import PACKAGES, UNPACK, must_fit, pack

PYTHON = "python3"
IDLE_TIMEOUT_S = 60
"""After how long what was made for a run goes, if its runtime cannot remove it."""
REMOVAL_S, REMOVAL_PAUSE_S = 5.0, 0.5
MOST_TOLD_BYTES = 65_536
"""Of what unpacking says; an image may have any program for its Python."""
LAST_WORD_S = 1.0
"""How long after its way out a script may take to end by itself, as with its environment."""
KILLED = -9


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment that is made for one run, and removed at its end."""

    image: str
    """It has a `python3`."""
    cpu: str = "1"
    memory: str = "1Gi"
    storage: str = "1Gi"
    timeout_s: int | None = None
    """How long it lives at most, and the run in it; None: an hour."""
    isolation: Isolation = Isolation()
    """By itself it reaches nothing but the provider, through the runtime."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Program:
    """What is to run."""

    script: Path
    args: Sequence[str]
    env: Mapping[str, str]
    files: Sequence[Path]
    packages: Sequence[str]


class EnvironmentRun:
    """A script under way; `exit_code` once it has ended: negative is the signal that ended it."""

    def __init__(self, environment_id: str, command: RunningCommand[Awaiting]) -> None:
        self.environment_id = environment_id
        self.exit_code: int | None = None
        self.fault: StewardError | None = None
        """Why it is not known how it ended."""
        self.ended = asyncio.Event()
        self._command = command
        self._reading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        program: Program,
        environment: str | EnvironmentSpec,
        *,
        server: Address,
        ic_token: str,
        run_token: str,
        proxy_port: int,
        on_end: Callable[[int | None], None],
        say: Callable[[str], None],
        quiet: bool,
    ) -> EnvironmentRun:
        """Run a script with the Python of an environment; returns once it has been started.

        Its output goes where this process's goes, or nowhere if `quiet`.

        Raises:
            StewardError: there is no such environment, or it cannot be made or used.
            FileNotFoundError: there is no such script, or file.
            ValueError: there is no such package, or none for the Python inside.
        """
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(AsyncClient(server, token=ic_token))
            place = await stack.enter_async_context(_place(client, environment, say))
            tunnel = await stack.enter_async_context(
                await client.environments.expose(
                    place, proxy_port, on_error=lambda error: say(f"the way out: {error.message}")
                )
            )
            folder, python = await _unpack(client, place, program)
            if isinstance(environment, str):
                stack.push_async_callback(_tidy, client, place, folder)
            must_fit(python, program.packages)
            env = agent_environment(
                program.env, token=run_token, port=tunnel.port, secrets=(ic_token,)
            )
            if program.packages:
                paths = [env.get("PYTHONPATH", ""), f"{folder}/{PACKAGES}"]
                env["PYTHONPATH"] = ":".join(filter(None, paths))
            command = await client.environments.start(
                place,
                [PYTHON, f"{folder}/{program.script.name}", *program.args],
                env=env,
                working_dir=folder,
            )
            stack.callback(command.close)
            await command.end_input()
            run = cls(place, command)
            kept = stack.pop_all()
        run._reading = asyncio.create_task(run._read(quiet=quiet))
        run._watching = asyncio.create_task(run._watch(run._reading, kept, tunnel, on_end))
        return run

    @property
    def where(self) -> str:
        return f"environment {self.environment_id}"

    async def stop(self, *, grace_s: float) -> None:
        """Ask it to end, and after the grace see to it; returns when nothing of it is left."""
        if self.ended.is_set():
            return
        try:
            async with asyncio.timeout(grace_s):
                with suppress(StewardError):
                    await self._command.signal("TERM")
                await self.ended.wait()
        except TimeoutError:
            self._end()
            await self.ended.wait()

    def _end(self) -> None:
        """Have the server end it, with all it has started; nobody need read what it wrote."""
        self._command.close()
        if self._reading is not None:
            self._reading.cancel()

    async def _watch(
        self,
        reading: asyncio.Task[None],
        kept: AsyncExitStack,
        tunnel: AsyncTunnel,
        on_end: Callable[[int | None], None],
    ) -> None:
        way_out = asyncio.create_task(tunnel.wait())
        try:
            async with kept:
                await asyncio.wait({reading, way_out}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():  # without a way out it is to end, if it does not anyway
                    await asyncio.wait({reading}, timeout=LAST_WORD_S)
                    self._end()
                results = await asyncio.gather(reading, return_exceptions=True)
                self._note(results[0], way_out)
        finally:
            way_out.cancel()
            await asyncio.gather(way_out, return_exceptions=True)
            self.ended.set()
            on_end(self.exit_code)

    async def _read(self, *, quiet: bool) -> None:
        with _Printer() as printer:
            async for output in self._command:
                if not quiet:
                    await printer.print(1 if output.stream == "stdout" else 2, output.data)

    def _note(self, read: object, way_out: asyncio.Task[None]) -> None:
        """Keep how it ended, or why that is not known."""
        ended = self._command.exit
        if ended is not None:
            # Of a signal the code is 128 and its number; a script may end with such a code itself.
            self.exit_code = 128 - ended.exit_code if ended.signal else ended.exit_code
        elif way_out.done() and (error := way_out.exception()) is not None:
            self.fault = _lost(error)
        elif isinstance(read, InvalidRequest):
            self.fault = read  # it was never started
        elif isinstance(read, Exception):
            self.fault = _lost(read)
        else:
            self.exit_code = KILLED  # its end was seen to


def _lost(why: BaseException) -> StewardError:
    return Unavailable(
        f"the run was lost with the connection to its environment, and was ended there: {why}",
        reason="RUN_LOST",
    )


@asynccontextmanager
async def _place(
    client: AsyncClient, environment: str | EnvironmentSpec, say: Callable[[str], None]
) -> AsyncIterator[str]:
    """The id of an environment that runs, for the block; one that is made for it goes with it."""
    if isinstance(environment, str):
        yield await environment_id(client, environment)
        return
    environments = client.environments
    made = await environments.create(
        f"run-{secrets.token_hex(4)}",
        image=environment.image,
        cpu=environment.cpu,
        memory=environment.memory,
        storage=environment.storage,
        timeout_s=environment.timeout_s,
        idle_timeout_s=IDLE_TIMEOUT_S,
        labels=environment.labels,
        isolation=environment.isolation,
    )
    try:
        await environments.wait_until_running(made.id)
        yield made.id
    finally:
        await asyncio.shield(_remove(client, made.id, say))


async def environment_id(client: AsyncClient, environment: str) -> str:
    """The id of one of the agent's own that runs, from its id or its name.

    Raises:
        NotFound: there is none, or there are several of that name.
    """
    if ENVIRONMENT_ID.fullmatch(environment):
        return environment
    listed = await client.environments.list(status="running")
    found = [each.id for each in listed if each.name == environment]
    if not found:
        raise NotFound(f"no environment of this agent's that runs is named {environment!r}")
    if len(found) > 1:
        raise NotFound(
            f"{len(found)} environments are named {environment!r}; use the id: {', '.join(found)}"
        )
    return found[0]


async def _tidy(client: AsyncClient, place: str, folder: str) -> None:
    """Leave nothing of a run in an environment that stays, if that can be."""
    with suppress(StewardError, TimeoutError):
        async with asyncio.timeout(REMOVAL_S):
            await client.environments.files.remove(place, folder, recursive=True)


async def _remove(client: AsyncClient, place: str, say: Callable[[str], None]) -> None:
    """Remove what was made for a run; if that cannot be done now, it goes for want of use."""
    try:
        async with asyncio.timeout(REMOVAL_S):
            while not await _is_removed(client, place):  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(REMOVAL_PAUSE_S)
    except (StewardError, TimeoutError) as error:
        why = error.message if isinstance(error, StewardError) else "the server does not answer"
        say(f"environment {place} could not be removed and goes by itself: {why}")


async def _is_removed(client: AsyncClient, place: str) -> bool:
    try:
        await client.environments.delete(place, force=True)
    except NotFound:
        return True
    except Unavailable:
        return False
    return True


async def _unpack(client: AsyncClient, place: str, program: Program) -> tuple[str, list[int]]:
    """Put a program into an environment; the folder it is in there, and the Python's version."""
    archive = await asyncio.to_thread(pack, program.script, program.files, program.packages)
    with archive:
        command = await client.environments.start(place, [PYTHON, "-c", UNPACK])
        async with command:
            sending = asyncio.create_task(_send(archive, command))
            try:
                told = {"stdout": b"", "stderr": b""}
                async for output in command:
                    told[output.stream] = (told[output.stream] + output.data)[-MOST_TOLD_BYTES:]
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    try:
        answer = json.loads(told["stdout"])
        folder, python = str(answer["folder"]), list(map(int, answer["python"]))
    except (ValueError, KeyError, TypeError):
        code = f" with code {command.exit.exit_code}" if command.exit else ""
        why = told["stderr"].decode(errors="replace").strip().rpartition("\n")[2]
        raise Conflict(
            f"{program.script.name} could not be put into environment {place}: "
            f"{PYTHON} ended{code} ({why or 'it said nothing'})",
            reason="NOT_UNPACKED",
        ) from None
    return folder, python


async def _send(archive: BinaryIO, command: RunningCommand[Awaiting]) -> None:
    with suppress(StewardError):  # whoever reads what it says is told why
        while data := await asyncio.to_thread(archive.read, PIECE_BYTES):
            await command.write(data)
        await command.end_input()


class _Printer:
    """Writes to this process's outputs on a thread that no end waits for: nobody may read them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: SimpleQueue[tuple[int, bytes, asyncio.Future[None]] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        threading.Thread(target=self._run, name="output", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pieces.put(None)

    async def print(self, target: int, data: bytes) -> None:
        """Write a piece; returns once it is written."""
        written = self._loop.create_future()
        self._pieces.put((target, data, written))
        await written

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            target, data, written = piece
            _write(target, data)
            with suppress(RuntimeError):  # the loop is over, and nobody waits
                self._loop.call_soon_threadsafe(_settle, written)


def _settle(written: asyncio.Future[None]) -> None:
    if not written.done():
        written.set_result(None)


def _write(target: int, data: bytes) -> None:
    left = memoryview(data)
    with suppress(OSError):  # nobody reads it any more
        while left:
            left = left[os.write(target, left) :]
