"""Environments through both clients: what is asked once, and what stays open."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from steward_client import AsyncClient, Client
from steward_client.client.environments_values import (
    Environment,
    EnvironmentDetails,
    Isolation,
    LogLine,
    NetworkPolicy,
    Output,
    SecurityContext,
    Toleration,
)
from steward_client.errors import (
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    NotFound,
    RateLimited,
    StewardError,
    Unavailable,
)
from tests.environment_site import environment_site
from tests.integration.environments.conftest import Site, until
from tests.integration.sdk.conftest import Call
from tests.live import ADMIN_PASSWORD, Live
from tests.relay import Relay

EVERYTHING = bytes(range(256)) * 3


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with environment_site(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def live(site: Site) -> Live:
    return site.live


async def items(stream: Any, count: int | None = None) -> list[Any]:
    """The next items of a stream of either client, or all."""
    found: list[Any] = []
    async with asyncio.timeout(10):
        while count is None or len(found) < count:
            if hasattr(stream.holder, "__aenter__"):
                item = await anext(stream, None)
            else:
                item = await asyncio.to_thread(next, stream, None)
            if item is None:
                return found
            found.append(item)
    return found


async def on(stream: Any, name: str, *args: Any) -> Any:
    """Call a method of a stream of either client."""
    answer = await asyncio.to_thread(getattr(stream, name), *args)
    return await answer if asyncio.iscoroutine(answer) else answer


async def running(call: Call, name: str = "mine", **wanted: Any) -> str:
    made = await call("environments.create", name, image="python:3.11", **wanted)
    return str((await call("environments.wait_until_running", made.id)).id)


async def test_an_environment_is_created_looked_at_changed_and_deleted(call: Call) -> None:
    isolation = Isolation(
        network_policy=NetworkPolicy(
            allowed_egress_cidrs=("10.1.0.0/16",), allowed_ingress_ports=(8080,)
        ),
        security_context=SecurityContext(run_as_user=1000),
    )
    toleration = Toleration("gpu", "Exists", effect="NoExecute", toleration_s=5)
    made: Environment = await call(
        "environments.create",
        "mine",
        image="python:3.11",
        cpu="1",
        timeout_s=600,
        idle_timeout_s=60,
        env={"WHO": "me"},
        labels={"project": "x"},
        isolation=isolation,
        node_selector={"disk": "ssd"},
        tolerations=[toleration],
    )
    once = {"image": "python:3.11", "request_id": "twice"}
    first = await call("environments.create", "other", **once)
    again = await call("environments.create", "other", **once)
    ready: EnvironmentDetails = await call("environments.wait_until_running", made.id)
    longer = await call("environments.extend", made.id, 300)
    changed = await call(
        "environments.update", made.id, labels={"tier": "a"}, remove_labels=["project"]
    )
    listed = await call("environments.list", status="running", label="tier=a")

    assert again.id == first.id
    assert (made.status, made.resources.cpu, made.resources.memory) == ("pending", "1", "512Mi")
    assert made.started_at is None
    assert (ready.status, ready.env, ready.labels) == ("running", {"WHO": "me"}, {"project": "x"})
    assert (ready.timeout_s, ready.idle_timeout_s, ready.exit_code) == (600, 60, None)
    assert ready.isolation.network_policy == isolation.network_policy
    assert ready.isolation.security_context == isolation.security_context
    assert (ready.node_selector, ready.tolerations) == ({"disk": "ssd"}, (toleration,))
    assert ready.permission == "admin"
    assert longer.timeout_s == 900
    assert longer.expires_at is not None
    assert changed.labels == {"tier": "a"}
    assert [(each.id, each.labels) for each in listed] == [(made.id, changed.labels)]
    assert "WHO" not in repr(ready)
    await call("environments.delete", made.id)
    with pytest.raises(NotFound):
        await call("environments.get", made.id)


async def test_every_environment_is_listed_however_many_there_are(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_client.client.environments.PAGE_SIZE", 2)
    made = [
        (await call("environments.create", f"n{number}", image="python:3.11")).id
        for number in range(5)
    ]

    assert sorted(each.id for each in await call("environments.list")) == sorted(made)
    assert await call("environments.list", label="no=such") == ()


async def test_one_that_cannot_be_made_is_not_waited_for(call: Call, site: Site) -> None:
    site.driver.faults["create"].append(RuntimeError("the disk is gone"))
    made = await call("environments.create", "mine", image="python:3.11")
    with pytest.raises(Conflict) as failed:
        await call("environments.wait_until_running", made.id)
    site.driver.gates["create"] = asyncio.Event()
    slow = await call("environments.create", "slow", image="python:3.11")
    with pytest.raises(DeadlineExceeded, match="still being made"):
        await call("environments.wait_until_running", slow.id, timeout_s=0.1)
    with pytest.raises(InvalidRequest, match="nothing"):
        await call("environments.create", "mine", image="nothing")

    assert failed.value.reason == "ENVIRONMENT_FAILED"
    assert made.id in failed.value.message


async def test_a_command_is_run_to_its_end(call: Call) -> None:
    environment_id = await running(call, env={"WHO": "me"})
    script = 'read line; echo "$line $WHO $X"; echo no >&2; exit 7'
    ended = await call(
        "environments.exec", environment_id, ["sh", "-c", script], env={"X": "y"}, stdin="hello\n"
    )
    killed = await call("environments.exec", environment_id, ["sleep", "60"], timeout_s=1)
    with pytest.raises(Conflict) as none:
        await call("environments.exec", environment_id, ["no-such-program"])

    assert (ended.stdout, ended.stderr, ended.exit_code) == ("hello me y\n", "no\n", 7)
    assert (killed.timed_out, killed.exit_code) == (True, 137)
    assert none.value.reason == "NOT_EXECUTABLE"


async def test_bytes_go_through_a_command_as_they_are(call: Call) -> None:
    environment_id = await running(call)
    command = await call("environments.start", environment_id, ["cat"])
    await on(command, "write", EVERYTHING)
    first = await items(command, 1)
    await on(command, "end_input")
    rest = await items(command)

    assert b"".join(each.data for each in first + rest) == EVERYTHING
    assert (command.exit.exit_code, command.exit.timed_out) == (0, False)
    with pytest.raises(Unavailable):
        await on(command, "write", b"late")


async def test_a_command_may_be_signalled_have_a_terminal_and_be_left(
    call: Call, site: Site
) -> None:
    environment_id = await running(call)
    trap = "trap 'echo caught; exit 3' INT; stty size; while :; do sleep 0.05; done"
    command = await call(
        "environments.start", environment_id, ["bash", "-c", trap], terminal=(100, 30)
    )
    seen = await items(command, 1)
    await on(command, "resize", 90, 20)
    await on(command, "signal", "INT")
    seen += await items(command)
    assert seen[0] == Output("stdout", b"30 100\r\n")
    assert b"caught" in b"".join(each.data for each in seen)
    assert command.exit.exit_code == 3

    left = await call("environments.start", environment_id, ["sleep", "60"])
    await until(lambda: processes(call, environment_id), "it runs")
    left.close()
    assert await items(left) == []
    await until(lambda: none_left(call, environment_id), "it was ended")


async def processes(call: Call, environment_id: str) -> Any:
    return await call("environments.processes", environment_id)


async def none_left(call: Call, environment_id: str) -> bool:
    return not await processes(call, environment_id)


async def test_what_cannot_be_started_is_told_when_it_is_read(call: Call) -> None:
    environment_id = await running(call)
    command = await call("environments.start", environment_id, ["no-such-program"])
    with pytest.raises(Conflict) as none:
        await items(command)
    timed = await call("environments.start", environment_id, ["sleep", "60"], timeout_s=1)
    assert await items(timed) == []

    assert none.value.reason == "NOT_EXECUTABLE"
    assert timed.exit.timed_out


async def test_a_log_is_read_and_followed_to_its_end(call: Call, site: Site) -> None:
    environment_id = await running(call)
    for number in range(3):
        await call("environments.exec", environment_id, ["echo", f"line {number}"])
    page = await call("environments.logs", environment_id, tail=2)
    followed = await call("environments.follow_logs", environment_id, tail=1)
    seen = await items(followed, 1)
    await call("environments.exec", environment_id, ["sh", "-c", "echo bad >&2"])
    seen += await items(followed, 1)
    await call("environments.delete", environment_id)
    assert await items(followed) == []

    assert [(each.message, each.sequence) for each in page.logs] == [("line 1", 2), ("line 2", 3)]
    assert not page.truncated
    assert [(each.stream, each.message, each.sequence) for each in seen] == [
        ("stdout", "line 2", 3),
        ("stderr", "bad", 4),
    ]
    assert isinstance(seen[0], LogLine)
    assert seen[0].timestamp is not None
    assert followed.end.status in ("terminated", "unspecified")


async def test_a_terminal_is_typed_in_and_ends_with_its_shell(call: Call) -> None:
    environment_id = await running(call)
    terminal = await call("environments.attach", environment_id, columns=100, rows=30)
    await on(terminal, "write", "stty size; echo do''ne\n")
    seen = await shown(terminal, "done\r\n")
    await on(terminal, "resize", 90, 20)
    await on(terminal, "write", "stty size; echo re''sized\n")
    resized = await shown(terminal, "resized\r\n")
    await on(terminal, "signal", "NONSENSE")
    with pytest.raises(InvalidRequest):
        await items(terminal)
    heard = terminal.heard_count
    await on(terminal, "ping")
    await on(terminal, "write", "exit 5\n")
    await items(terminal)

    assert "30 100" in seen
    assert "20 90" in resized
    assert terminal.exit.exit_code == 5
    assert terminal.heard_count > heard


async def shown(terminal: Any, text: str) -> str:
    seen = ""
    while text not in seen:
        piece = await items(terminal, 1)
        assert piece, f"never seen: {text!r} in {seen!r}"
        seen += piece[0].text
    return seen


async def test_a_terminal_that_nobody_can_have_is_refused_at_once(call: Call) -> None:
    environment_id = await running(call)
    with pytest.raises(Conflict) as none:
        await call("environments.attach", environment_id, ["no-such-program"], tty=False)
    with pytest.raises(NotFound):
        await call("environments.attach", "env-none")

    assert none.value.reason == "NOT_EXECUTABLE"


async def test_files_are_written_read_listed_moved_and_removed(call: Call) -> None:
    environment_id = await running(call)
    large = EVERYTHING * 2_000
    await call("environments.files.make_directory", environment_id, "/a/b")
    made = await call("environments.files.write", environment_id, "/a/b/large", large, mode="0750")
    await call("environments.files.write", environment_id, "/a/small", io.BytesIO(b"small"))
    empty = await call("environments.files.write", environment_id, "/a/empty", b"")
    listed = await call("environments.files.list", environment_id, "/a")
    content = await call("environments.files.open", environment_id, "/a/b/large")
    pieces = await items(content)
    rest = await call("environments.files.read", environment_id, "/a/small", offset=2)
    nothing = await call("environments.files.read", environment_id, "/a/empty")
    await call("environments.files.move", environment_id, "/a/small", "/a/tiny")
    found = await call("environments.files.stat", environment_id, "/a/tiny")
    with pytest.raises(StewardError):
        await call("environments.files.remove", environment_id, "/a")
    await call("environments.files.remove", environment_id, "/a", recursive=True)
    with pytest.raises(NotFound) as gone:
        await call("environments.files.read", environment_id, "/a/tiny")

    assert (made.kind, made.size_bytes, made.mode) == ("file", len(large), "0750")
    assert empty.size_bytes == 0
    assert [each.path for each in listed.files] == ["/a/b", "/a/empty", "/a/small"]
    assert len(pieces) > 1
    assert b"".join(pieces) == large
    assert (rest, nothing) == (b"all", b"")
    assert found.size_bytes == 5
    assert gone.value.reason == "FILE_NOT_FOUND"


async def test_changes_of_files_are_told_until_one_stops_to_watch(call: Call) -> None:
    environment_id = await running(call)
    changes = await call("environments.files.watch", environment_id)
    reading = asyncio.create_task(items(changes, 1))
    while not reading.done():
        await call("environments.files.write", environment_id, "/new", b"x")
        await call("environments.files.remove", environment_id, "/new")
        await asyncio.sleep(0.01)
    changes.close()

    assert (await reading)[0].path in ("/new", "/.new.draft")
    with suppress(StewardError):
        await items(changes)


async def test_an_environment_is_paused_shared_and_given_a_ticket_for(
    call: Call, site: Site
) -> None:
    environment_id = await running(call)
    await site.person("ann")
    paused = await call("environments.pause", environment_id)
    with pytest.raises(Conflict) as stands:
        await call("environments.exec", environment_id, ["true"])
    resumed = await call("environments.resume", environment_id)
    share = await call("environments.share", environment_id, "ann", "write")
    shares = await call("environments.shares", environment_id)
    ticket = await call("environments.ticket", environment_id, "logs")
    async with AsyncClient(site.live.running.grpc_address) as ann:
        await ann.login("ann", ADMIN_PASSWORD)
        seen = await ann.environments.get(environment_id)
        with pytest.raises(Forbidden):
            await ann.environments.delete(environment_id)
        await call("environments.unshare", environment_id, "ann")
        with pytest.raises(NotFound):
            await ann.environments.get(environment_id)

    assert (paused.paused, resumed.paused) == (True, False)
    assert stands.value.reason == "ENVIRONMENT_PAUSED"
    assert (share.username, share.permission, shares) == ("ann", "write", (share,))
    assert seen.permission == "write"
    assert len(ticket.ticket) > 20
    assert ticket.ticket not in repr(ticket)


async def test_processes_are_listed_and_signalled(call: Call) -> None:
    environment_id = await running(call)
    command = await call("environments.start", environment_id, ["sleep", "60"])
    (process,) = await until(lambda: processes(call, environment_id), "it runs")
    await call("environments.signal", environment_id, process.pid, "TERM")
    assert await items(command) == []
    with pytest.raises(NotFound) as gone:
        await call("environments.signal", environment_id, 999_999)

    assert (command.exit.exit_code, command.exit.signal) == (143, "SIGTERM")
    assert gone.value.reason == "PROCESS_NOT_FOUND"


async def test_images_are_listed_looked_at_and_removed(call: Call) -> None:
    (listed,) = await call("images.list")
    found = await call("images.get", "python:3.11")
    await call("images.remove", "python:3.11")
    with pytest.raises(NotFound) as none:
        await call("images.get", "nothing")

    assert found == listed
    assert none.value.reason == "IMAGE_NOT_FOUND"


async def test_a_command_is_started_with_a_sign_in_that_lasts(site: Site) -> None:
    now_s = time.time()
    async with AsyncClient(site.live.running.grpc_address, clock=lambda: now_s) as client:
        await client.login("admin", ADMIN_PASSWORD)
        environment_id = await site.running()
        shown = client._credentials.shown
        (await client.environments.start(environment_id, ["true"])).close()
        assert client._credentials.shown == shown
        now_s += 1_200
        short = await client.environments.start(environment_id, ["true"], timeout_s=60)
        short.close()
        assert client._credentials.shown == shown
        command = await client.environments.start(environment_id, ["true"])
        assert [each async for each in command] == []
        assert client._credentials.shown != shown


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
async def test_logs_and_named_terminals_outlive_a_lost_connection(site: Site, kind: str) -> None:
    cuts: list[StewardError] = []
    async with Relay(site.live.running.grpc_address) as relay:
        if kind == "awaited":
            client: Any = AsyncClient(relay.address)
            await client.login("admin", ADMIN_PASSWORD)
        else:
            client = Client(relay.address)
            await asyncio.to_thread(client.login, "admin", ADMIN_PASSWORD)
        environment_id = await site.running()
        logs = await on(client.environments, "follow_logs", environment_id)
        logs._on_cut = cuts.append
        await site.run(environment_id, "echo", "before")
        seen = await items(logs, 1)
        terminal = await attach_named(client, environment_id, cuts)
        await on(terminal, "write", "X=kept; echo rea''dy\n")
        await shown(terminal, "ready\r\n")

        relay.cut()
        await site.run(environment_id, "echo", "after")
        seen += await items(logs, 1)
        again = await shown(terminal, "ready\r\n")
        await on(terminal, "write", "echo still $X\n")
        still = await shown(terminal, "still kept\r\n")
        logs.close()
        terminal.close()
        closing = client.close()
        if closing is not None:
            await closing

    assert [each.message for each in seen] == ["before", "after"]
    assert len(cuts) >= 2
    assert "ready" in again
    assert terminal.is_new_connection
    assert "still kept" in still


async def test_a_terminal_that_is_no_more_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[StewardError] = []
    async with (
        environment_site(tmp_path, monkeypatch, attach_grace_s=0) as site,
        Relay(site.live.running.grpc_address) as relay,
        AsyncClient(relay.address) as client,
    ):
        environment_id = await site.running()
        await client.login("admin", ADMIN_PASSWORD)
        terminal = await attach_named(client, environment_id, cuts)
        await terminal.write("echo rea''dy\n")
        await shown(terminal, "ready\r\n")

        relay.cut()
        with pytest.raises(NotFound) as told:
            await shown(terminal, "ready\r\n")

    assert told.value.reason == "TERMINAL_GONE"


async def test_a_quota_is_told_at_once_and_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        environment_site(tmp_path, monkeypatch, max_per_user=1) as site,
        AsyncClient(site.live.running.grpc_address, patience_s=30) as client,
    ):
        await client.login("admin", ADMIN_PASSWORD)
        await client.environments.create("first", image="python:3.11")
        async with asyncio.timeout(30):
            with pytest.raises(RateLimited) as told:
                await client.environments.create("second", image="python:3.11")

    assert told.value.reason == "QUOTA_EXCEEDED"


async def attach_named(client: Any, environment_id: str, cuts: list[StewardError]) -> Any:
    def attach() -> Any:
        return client.environments.attach(environment_id, session="mine", on_cut=cuts.append)

    terminal = await asyncio.to_thread(attach)
    return await terminal if asyncio.iscoroutine(terminal) else terminal
