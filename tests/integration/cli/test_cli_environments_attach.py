"""`steward env attach` at a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from steward_client.cli.environments_exec import NOT_RUN
from tests.integration.cli.conftest import COMMAND, Shell
from tests.integration.environments.conftest import Site, until
from tests.relay import Relay

DETACH = b"\x10\x11"


class Seat:
    """Somebody at a terminal, with a command in its foreground."""

    def __init__(self, ours: int, theirs: int, process: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self._theirs = theirs
        self._process = process
        self._seen = b""

    @property
    def attributes(self) -> list[Any]:
        """How the terminal treats what is typed and shown."""
        return termios.tcgetattr(self._theirs)

    @property
    def is_raw(self) -> bool:
        return not self.attributes[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def shown(self, text: str) -> str:
        """What is shown up to and with a text."""

        def read() -> bool:
            while text.encode() not in self._seen:
                try:
                    self._seen += os.read(self._ours, 65_536)
                except BlockingIOError:
                    return False
            return True

        try:
            await until(read, f"{text!r} is shown")
        except TimeoutError:
            raise AssertionError(f"never shown: {text!r} in {self._seen!r}") from None
        before, _, self._seen = self._seen.partition(text.encode())
        return before.decode() + text

    async def ended(self) -> int:
        return await asyncio.to_thread(self._process.wait, 10)

    async def rest(self) -> str:
        """What was shown to the end."""
        await self.shown_nothing_more()
        seen, self._seen = self._seen, b""
        return seen.decode()

    async def shown_nothing_more(self) -> None:
        while True:
            try:
                self._seen += os.read(self._ours, 65_536)
            except (BlockingIOError, OSError):
                return


@contextmanager
def seated(shell: Shell, *arguments: str, columns: int = 100, rows: int = 30) -> Iterator[Seat]:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", COMMAND, "env", "attach", *arguments],
        env=shell.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        try:
            yield Seat(ours, theirs, process)
        finally:
            process.kill()
            os.close(theirs)
            os.close(ours)


async def test_a_terminal_is_lent_and_given_back(operator: Shell, site: Site) -> None:
    await site.running(name="mine")
    with seated(operator, "mine") as seat:
        before = seat.attributes
        seat.type(b"")
        await until(lambda: seat.is_raw, "it is raw")
        seat.type("stty size; echo 'gr\u00fc\u00df'e\n".encode())
        assert "30 100" in await seat.shown("gr\u00fc\u00dfe\r\n")
        seat.resize(90, 20)
        await asyncio.sleep(0.3)
        seat.type(b"stty size; echo re''sized\n")
        assert "20 90" in await seat.shown("resized\r\n")
        seat.type(b"exit 7\n")
        assert await seat.ended() == 7
        assert seat.attributes == before


async def test_interruptions_go_inside(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    with seated(operator, environment_id, "--", "bash", "--norc", "-i") as seat:
        await until(lambda: seat.is_raw, "it is raw")
        seat.type(b"echo rea''dy; sleep 60\n")
        await seat.shown("ready")
        seat.type(b"\x03")
        seat.type(b"echo co''de $?\n")
        await seat.shown("code 130")
        seat.type(b"cat; echo e''of\n")
        await seat.shown("cat")
        seat.type(b"twice\n")
        await seat.shown("twice\r\ntwice\r\n")
        seat.type(b"\x04")
        await seat.shown("eof")
        seat.type(b"exit\n")
        assert await seat.ended() == 0


async def test_whoever_leaves_can_come_back(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    with seated(operator, environment_id) as seat:
        before = seat.attributes
        await until(lambda: seat.is_raw, "it is raw")
        seat.type(b"X=kept; echo rea''dy\n")
        await seat.shown("ready\r\n")
        seat.type(b"\x10echo one\n")  # the first of the keys alone goes inside
        await seat.shown("one\r\n")
        seat.type(DETACH)
        told = await seat.shown("\n")
        while "come back" not in told:
            told += await seat.shown("\n")
        assert await seat.ended() == 0
        assert seat.attributes == before
    found = re.search(r"--session (\S+) (\S+)", told)
    assert found is not None
    with seated(operator, "--session", found[1], found[2]) as again:
        await again.shown("ready")
        again.type(b"echo still $X\n")
        await again.shown("still kept")
        again.type(b"exit\n")
        assert await again.ended() == 0


async def test_other_keys_may_be_chosen_to_leave(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    with seated(operator, "--detach-keys", "ctrl-],q", environment_id) as seat:
        await until(lambda: seat.is_raw, "it is raw")
        seat.type(b"\x1dq")
        assert await seat.ended() == 0
    wrong = await operator("env", "attach", "--detach-keys", "ctrl-ä", environment_id)
    assert wrong.code == 2
    assert "ctrl-p,ctrl-q" in wrong.err


async def test_a_lost_connection_is_made_again_with_the_same_shell(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    async with Relay(site.live.running.grpc_address) as relay:
        shell = await replace(operator, server=relay.address).sign_in()
        with seated(shell, environment_id) as seat:
            await until(lambda: seat.is_raw, "it is raw")
            seat.type(b"X=kept; echo rea''dy\n")
            await seat.shown("ready\r\n")
            relay.cut()
            await seat.shown("the connection was lost; trying again")
            assert "\x1b[2J" in await seat.shown("ready\r\n")
            seat.type(b"echo still $X\n")
            await seat.shown("still kept")
            seat.type(b"exit 3\n")
            assert await seat.ended() == 3


async def test_whoever_waits_for_a_connection_can_leave(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    async with Relay(site.live.running.grpc_address) as relay:
        shell = await replace(operator, server=relay.address).sign_in()
        with seated(shell, environment_id) as seat:
            before = seat.attributes
            await until(lambda: seat.is_raw, "it is raw")
            await relay.__aexit__()
            await seat.shown("trying again")
            await asyncio.sleep(0.5)
            seat.type(DETACH)
            assert await seat.ended() == 0
            assert seat.attributes == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_terminal_is_given_back_when_the_command_is_told_to_end(
    operator: Shell, site: Site, number: int
) -> None:
    environment_id = await site.running()
    with seated(operator, environment_id) as seat:
        before = seat.attributes
        await until(lambda: seat.is_raw, "it is raw")
        seat.type(b"printf '\\033[?1049h\\033[?25l'; echo rea''dy\n")
        await seat.shown("ready\r\n")
        seat.signal(number)
        undone = await seat.shown("\x1b[?25h")
        await seat.ended()
        assert "\x1b[?1049l" in undone
        assert seat.attributes == before


async def test_the_terminal_is_given_back_when_the_environment_goes(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    with seated(operator, environment_id) as seat:
        before = seat.attributes
        await until(lambda: seat.is_raw, "it is raw")
        await operator("env", "rm", "--force", environment_id)
        code = await seat.ended()
        assert code in (NOT_RUN, 137, 129)
        assert seat.attributes == before


async def test_what_cannot_be_attached_to_leaves_the_terminal_as_it_is(
    operator: Shell, site: Site
) -> None:
    await site.running(name="mine")
    piped = await operator("env", "attach", "mine")
    as_json = await operator("env", "attach", "--json", "mine")
    with seated(operator, "nobody") as seat:
        before = seat.attributes
        await seat.shown("no environment is named 'nobody'")
        assert await seat.ended() == NOT_RUN
        assert seat.attributes == before

    assert (piped.code, as_json.code) == (2, 2)
    assert "steward env exec" in piped.err
