"""Environments over the whole way: client, gateway or gRPC, room, driver, machine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1 import files_pb2 as files
from steward.environments.v1.environments_pb2_grpc import EnvironmentServiceStub
from tests.benchmarks.environments_site import (
    ENVIRONMENTS,
    Memory,
    Site,
    available_bytes,
    bare_bwrap_ms,
    bare_crun_ms,
    beside,
    site,
    timed_ms,
)
from tests.benchmarks.harness import Figure, median_of, processor_s, quantile, resident_bytes

CREATIONS, CALLS, ROUNDS = 15, 60, 3
REFILL_S = 0.6
"""Until spare machines are there again."""
MANY, AT_ONCE = 200, 8
ADOPTED = 100
OUTPUT_BYTES = 256_000_000
FILE_BYTES, REST_FILE_BYTES = 64_000_000, 4_000_000
LINES, READERS = 20_000, 10


async def measure() -> list[Figure]:
    """Every figure, with bare spawns of the same minute beside those of a single command."""
    figures = []
    async with site(STEWARD_ENVIRONMENTS_SPARE_MACHINES="0") as cold:
        figures += [await _first_output(cold, "cold", 60, 30)]
    async with site() as here:
        figures += [await _first_output(here, "from the warm pool", 15, 6, pause_s=REFILL_S)]
        environment_id = await here.create(
            resources={"cpu": "2", "memory": "512Mi", "storage": "256Mi"}
        )
        figures += await _commands(here, environment_id)
        figures += [await _output(here, environment_id)]
        figures += await _lives(here, environment_id)
        figures += await _files(here, environment_id)
        figures += [await _keys(here, environment_id)]
        figures += await _logs(here)
    figures += await _many()
    figures += [await _adoption()]
    return figures


def _slow(
    name: str, times_ms: list[float], must: float | None, aim: float | None, note: str
) -> Figure:
    spread = f"{min(times_ms):.3g} to {max(times_ms):.3g} of {len(times_ms)}"
    return Figure(
        name,
        quantile(times_ms, 0.5),
        "ms",
        must,
        aim,
        lower_is_better=True,
        note=f"{note}; {spread}" if note else spread,
    )


async def _bares() -> dict[str, float | None]:
    return {
        "bwrap": await asyncio.to_thread(bare_bwrap_ms),
        "crun": await asyncio.to_thread(bare_crun_ms),
    }


async def _first_output(
    here: Site, name: str, must: float, aim: float, *, pause_s: float = 0
) -> Figure:
    """Two calls over REST: create, answered when it runs, and `echo`."""
    times_ms: list[float] = []
    await here.do("DELETE", await here.create(), "?force=true", 204)
    for _ in range(CREATIONS):
        await asyncio.sleep(pause_s)
        made: list[str] = []

        async def create_and_echo(made: list[str] = made) -> None:
            made.append(await here.create())
            await here.echo(made[0])

        times_ms.append(await timed_ms(create_and_echo))
        await here.do("DELETE", made[0], "?force=true", 204)
    note = beside(quantile(times_ms, 0.5), await _bares())
    return _slow(f"create to first output, {name}, REST", times_ms, must, aim, note)


async def _commands(here: Site, environment_id: str) -> list[Figure]:
    request = pb.ExecRequest(environment_id=environment_id, command=["echo", "hi"])

    async def over_grpc() -> None:
        answer = await here.stub.Exec(request, metadata=here.metadata)
        assert answer.stdout == "hi\n"

    found = []
    for door, call, must, aim in (
        ("gRPC", over_grpc, 12, 6),
        ("REST", lambda: here.echo(environment_id), 16, 9),
    ):
        await call()
        used_s = processor_s(here.server.pid)
        times_ms = [await timed_ms(call) for _ in range(CALLS)]
        used_ms = (processor_s(here.server.pid) - used_s) / CALLS * 1e3
        bare = beside(quantile(times_ms, 0.5), await _bares())
        note = f"{bare}; server {used_ms:.2g} ms of processor"
        found.append(_slow(f"exec of echo, {door}", times_ms, must, aim, note))
    return found


async def _output(here: Site, environment_id: str) -> Figure:
    """The standard output of one command, as it reaches a gRPC client."""
    command = ["head", "-c", str(OUTPUT_BYTES), "/dev/zero"]
    start = pb.ExecStart(environment_id=environment_id, command=command)

    async def requests() -> AsyncIterator[pb.ExecStreamRequest]:
        yield pb.ExecStreamRequest(start=start)
        yield pb.ExecStreamRequest(eof=pb.Eof())

    rounds = []
    for _ in range(ROUNDS):
        size, begun_s, used_s = 0, time.perf_counter(), processor_s(here.server.pid)
        async for frame in here.stub.ExecStream(requests(), metadata=here.metadata):
            size += len(frame.stdout)
        wall_s = time.perf_counter() - begun_s
        used_s = processor_s(here.server.pid) - used_s
        assert size == OUTPUT_BYTES
        note = f"{size / used_s / 1e6:,.0f} MB per second of the server's processor"
        rounds.append(
            Figure("stdout to a gRPC client", size / wall_s / 1e6, "MB/s", 150, 400, note=note)
        )
    return median_of(rounds)


async def _lives(here: Site, environment_id: str) -> list[Figure]:
    times_ms: dict[str, list[float]] = {"pause": [], "resume": [], "delete": []}
    for _ in range(CREATIONS):
        for what in ("pause", "resume"):
            times_ms[what].append(
                await timed_ms(partial(here.do, "POST", environment_id, f"/{what}"))
            )
    for _ in range(CREATIONS):
        other = await here.create()
        times_ms["delete"].append(
            await timed_ms(partial(here.do, "DELETE", other, "?force=true", 204))
        )
    return [
        _slow("pause, REST", times_ms["pause"], 5, 1, ""),
        _slow("resume, REST", times_ms["resume"], 5, 1, ""),
        _slow("delete, REST", times_ms["delete"], 30, 5, ""),
    ]


async def _files(here: Site, environment_id: str) -> list[Figure]:
    """A large file in and out over gRPC, and one as large as REST takes."""
    data, path = bytes(FILE_BYTES), "/tmp/large"
    start = files.WriteFileStart(environment_id=environment_id, path=path)

    async def pieces() -> AsyncIterator[files.WriteFileRequest]:
        yield files.WriteFileRequest(start=start)
        for at in range(0, len(data), 1_000_000):
            yield files.WriteFileRequest(data=data[at : at + 1_000_000])
        yield files.WriteFileRequest(eof=pb.Eof())

    async def upload() -> int:
        await here.files.WriteFile(pieces(), metadata=here.metadata)
        return FILE_BYTES

    async def download() -> int:
        request = files.ReadFileRequest(environment_id=environment_id, path=path)
        size = 0
        async for piece in here.files.ReadFile(request, metadata=here.metadata):
            size += len(piece.content.data)
        return size

    url = f"{here.admin.base_url}{ENVIRONMENTS}/{environment_id}/files/content?path="
    headers = here.admin.headers | {"content-type": "application/octet-stream"}

    async def upload_rest() -> int:
        body = data[:REST_FILE_BYTES]
        async with here.admin.session.put(url + "/tmp/small", data=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
        return REST_FILE_BYTES

    async def download_rest() -> int:
        async with here.admin.session.get(url + path, headers=here.admin.headers) as answer:
            assert answer.status == 200, await answer.text()
            return len(await answer.read())

    return [
        await _rate(name, work)
        for name, work in (
            ("upload of 64 MB, gRPC", upload),
            ("download of 64 MB, gRPC", download),
            ("upload of 4 MB, REST", upload_rest),
            ("download of 64 MB, REST", download_rest),
        )
    ]


async def _rate(name: str, work: Callable[[], Awaitable[int]]) -> Figure:
    rounds = []
    for _ in range(ROUNDS):
        begun_s = time.perf_counter()
        size = await work()
        rounds.append(Figure(name, size / (time.perf_counter() - begun_s) / 1e6, "MB/s"))
    return median_of(rounds)


async def _keys(here: Site, environment_id: str) -> Figure:
    """From a key that is typed to what the terminal shows of it."""
    url = f"{here.admin.base_url}{ENVIRONMENTS}/{environment_id}/attach?command=cat"
    times_ms = []
    async with here.admin.session.ws_connect(url, headers=here.admin.headers) as socket:
        for _ in range(CALLS):

            async def press() -> None:
                await socket.send_json({"type": "stdin", "data": "k"})
                while "k" not in (await socket.receive_json())["data"]:
                    pass

            times_ms.append(await timed_ms(press))
    return _slow("a key to its echo, attach", times_ms[1:], None, None, "")


async def _logs(here: Site) -> list[Figure]:
    """Ten readers of one environment, which writes as fast as it is read."""
    return [
        await _followed(here, "SSE", _read_events),
        await _followed(here, "gRPC, together", _read_together),
        await _followed(here, "gRPC, one by one", _read_one_by_one),
    ]


async def _followed(
    here: Site, door: str, read: Callable[[Site, str], Coroutine[Any, Any, int]]
) -> Figure:
    rounds = []
    for _ in range(ROUNDS):
        script = f"sleep 1; seq -f 'a line of a log, number %g' {LINES}; exec sleep 600"
        environment_id = await here.create(command=["sh", "-c", script])
        used_s = processor_s(here.server.pid)
        readers = [asyncio.create_task(read(here, environment_id)) for _ in range(READERS)]
        await asyncio.sleep(0.9)
        begun_s = time.perf_counter()
        counts = await asyncio.gather(*readers)
        wall_s = time.perf_counter() - begun_s
        used_us = (processor_s(here.server.pid) - used_s) / LINES / READERS * 1e6
        assert counts == [LINES] * READERS, counts
        note = f"{LINES / wall_s:,.0f}/s to each; server {used_us:.3g} µs of processor a line"
        rounds.append(
            Figure(
                f"log lines to 10 readers, {door}",
                LINES * READERS / wall_s,
                "/s",
                20_000,
                50_000,
                note=note,
            )
        )
        await here.do("DELETE", environment_id, "?force=true", 204)
    return median_of(rounds)


async def _read_events(here: Site, environment_id: str) -> int:
    url = f"{here.admin.base_url}{ENVIRONMENTS}/{environment_id}/logs?follow=true"
    count, rest = 0, b""
    async with here.admin.session.get(url, headers=here.admin.headers) as answer:
        async for piece in answer.content.iter_any():
            *whole, rest = (rest + piece).split(b"\n\n")
            count += sum(each.startswith(b"id: ") for each in whole)
            if count >= LINES:
                last = json.loads(whole[-1].partition(b"data: ")[2])
                assert last["message"] == f"a line of a log, number {LINES}"
                break
    return count


async def _read_together(here: Site, environment_id: str) -> int:
    request = pb.FollowLogLinesRequest(environment_id=environment_id)
    count = 0
    async with here.own_channel() as channel:
        follow = EnvironmentServiceStub(channel).FollowLogLines(request, metadata=here.metadata)
        async for answer in follow:
            count += len(answer.lines)
            if answer.lines[-1].sequence == LINES:
                break
        follow.cancel()
    return count


async def _read_one_by_one(here: Site, environment_id: str) -> int:
    request = pb.FollowLogsRequest(environment_id=environment_id, follow=True)
    count = 0
    async with here.own_channel() as channel:
        follow = EnvironmentServiceStub(channel).FollowLogs(request, metadata=here.metadata)
        async for answer in follow:
            count += 1
            if answer.sequence == LINES:
                break
        follow.cancel()
    return count


async def _create_many(here: Site, count: int) -> tuple[list[str], float]:
    some = asyncio.Semaphore(AT_ONCE)

    async def create(number: int) -> str:
        async with some:
            return await here.create(
                name=f"bench-{number}",
                resources={"cpu": "100m", "memory": "64Mi", "storage": "16Mi"},
            )

    begun_s = time.perf_counter()
    made = await asyncio.gather(*(create(number) for number in range(count)))
    return list(made), time.perf_counter() - begun_s


async def _many() -> list[Figure]:
    async with site(STEWARD_ENVIRONMENTS_SPARE_MACHINES="0") as here:
        await here.do("DELETE", await here.create(), "?force=true", 204)
        pid = here.server.pid
        before, server_bytes, left_bytes = Memory.below(pid), resident_bytes(pid), available_bytes()
        made, wall_s = await _create_many(here, MANY)
        await asyncio.sleep(1)
        after = Memory.below(pid)
        each_mb = (after.pss_bytes - before.pss_bytes) / MANY / 1e6
        tables_mb = (after.page_table_bytes - before.page_table_bytes) / MANY / 1e6
        host_mb = (left_bytes - available_bytes()) / MANY / 1e6
        server_mb = resident_bytes(pid) / 1e6
        grown_kb = (resident_bytes(pid) - server_bytes) / MANY / 1e3
        used_s = processor_s(pid)
        await asyncio.sleep(5)
        idle = (processor_s(pid) - used_s) / 5 * 100
        listing_ms = [
            await timed_ms(lambda: here.admin.call("GET", f"{ENVIRONMENTS}?limit=1000"))
            for _ in range(ROUNDS)
        ]
        await asyncio.gather(*(here.echo(each) for each in made[:: MANY // 20]))
    return [
        Figure("200 environments, all made", wall_s, "s", 15, 7, lower_is_better=True),
        Figure(
            "memory of each of 200",
            each_mb + tables_mb,
            "MB",
            5,
            3,
            lower_is_better=True,
            note=f"PSS {each_mb:.2f}, page tables {tables_mb:.2f}; the host has {host_mb:.2f} less",
        ),
        Figure(
            "memory of the server with 200",
            server_mb,
            "MB",
            note=f"{grown_kb:.0f} kB for each; idle {idle:.1f} % of a core",
        ),
        Figure("a list of 200, REST", quantile(listing_ms, 0.5), "ms", lower_is_better=True),
    ]


async def _adoption() -> Figure:
    """From the start of a server whose forerunner was killed until it runs commands in each."""
    async with site() as here:
        made, _ = await _create_many(here, ADOPTED)
        here.server.kill()
        begun_s = time.perf_counter()
        await here.server.start()
        ready_s = time.perf_counter() - begun_s
        page = await here.admin.call("GET", f"{ENVIRONMENTS}?status=running&limit=1000")
        wall_s = time.perf_counter() - begun_s
        assert page.body["total"] == ADOPTED, page
        for each in made[:: ADOPTED // 10]:
            await here.echo(each)
        return Figure(
            "100 environments adopted after kill -9",
            wall_s,
            "s",
            2,
            1,
            lower_is_better=True,
            note=f"with the start of the server, ready after {ready_s:.2f} s",
        )
