"""Files of environments: over REST as bytes and JSON, over gRPC as streams."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import grpc
import pytest

from steward.environments.v1 import files_pb2 as pb
from steward.environments.v1.environments_pb2 import Eof
from steward_server.environments import file_service
from steward_server.environments.driver import FileFault
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import Site, until
from tests.live import Api


def url(api: Api, environment_id: str, rest: str) -> str:
    return f"{api.base_url}/api/v1/environments/{environment_id}/files{rest}"


async def put(api: Api, environment_id: str, query: str, data: bytes) -> Any:
    path = url(api, environment_id, f"/content?{query}")
    async with api.session.put(path, data=io.BytesIO(data), headers=api.headers) as answer:
        return answer.status, await answer.json()


async def test_a_file_is_written_read_listed_moved_and_removed(site: Site) -> None:
    environment_id = await site.running()
    api, base = site.admin, f"/api/v1/environments/{environment_id}/files"
    made = await api.call("POST", f"{base}/directories", {"path": "/data/deep"})
    assert (made.status, made.body["kind"]) == (201, "directory")
    content = bytes(range(256))
    status, file = await put(api, environment_id, "path=/data/a.bin&mode=0755", content)
    assert status == 200
    assert (file["size_bytes"], file["mode"], file["kind"]) == (256, "0755", "file")

    async with api.session.get(
        url(api, environment_id, "/content?path=/data/a.bin&offset=2"), headers=api.headers
    ) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert await answer.read() == content[2:]
    listed = await api.call("GET", f"{base}?path=/data")
    assert [each["path"] for each in listed.body["files"]] == ["/data/a.bin", "/data/deep"]
    moved = await api.call("POST", f"{base}/move", {"path": "/data/a.bin", "to": "/data/b.bin"})
    assert moved.status == 204
    assert (await api.call("GET", f"{base}/stat?path=/data/a.bin")).status == 404
    assert (await api.call("GET", f"{base}/stat?path=/data/b.bin")).body["size_bytes"] == 256
    kept = await api.call("DELETE", f"{base}?path=/data")
    assert (kept.status, "not empty" in kept.body["message"].lower()) == (409, True)
    assert (await api.call("DELETE", f"{base}?path=/data&recursive=true")).status == 204
    assert (await api.call("GET", base)).body["files"] == []


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("path=relative", 400, "must be absolute"),
        ("", 400, "path: is missing"),
        ("path=/none", 404, "/none"),
        ("path=/", 409, "is a directory, not a file"),
        ("path=/none&offset=-1", 400, "offset"),
    ],
)
async def test_a_wrong_read_is_told(site: Site, query: str, status: int, words: str) -> None:
    environment_id = await site.running()
    path = f"/api/v1/environments/{environment_id}/files/content?{query}"
    answer = await site.admin.call("GET", path)
    assert (answer.status, words in answer.body["message"]) == (status, True), answer


async def test_a_wrong_write_is_told_and_leaves_nothing(site: Site) -> None:
    environment_id = await site.running()
    status, told = await put(site.admin, environment_id, "path=/x&mode=rwx", b"x")
    assert (status, "octal" in told["message"]) == (400, True)
    status, told = await put(site.admin, environment_id, "path=/no/such/x", b"x")
    assert status == 404
    status, told = await put(site.admin, environment_id, "path=/x", b"x" * (4 * 1024**2 + 1))
    assert status == 413


async def test_large_files_travel_in_pieces(site: Site) -> None:
    environment_id = await site.running()
    size = 20 * 1024 * 1024

    async def parts() -> AsyncIterator[pb.WriteFileRequest]:
        start = pb.WriteFileStart(environment_id=environment_id, path="/large")
        yield pb.WriteFileRequest(start=start)
        for _ in range(size // 1_048_576):
            yield pb.WriteFileRequest(data=b"\x07" * 1_048_576)
        yield pb.WriteFileRequest(eof=Eof())

    written = await site.files.WriteFile(parts(), metadata=site.metadata)
    assert written.file.size_bytes == size
    request = pb.ReadFileRequest(environment_id=environment_id, path="/large")
    read = 0
    async for piece in site.files.ReadFile(request, metadata=site.metadata):
        read += len(piece.content.data)
    assert read == size


async def test_more_than_the_limit_is_refused_and_half_of_it_is_never_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_service, "MAX_FILE_BYTES", 1_000)
    environment_id = await site.running()

    async def parts() -> AsyncIterator[pb.WriteFileRequest]:
        start = pb.WriteFileStart(environment_id=environment_id, path="/large")
        yield pb.WriteFileRequest(start=start)
        for _ in range(3):
            yield pb.WriteFileRequest(data=b"x" * 500)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.files.WriteFile(parts(), metadata=site.metadata)
    assert refusal_of(refused.value).reason == "FILE_TOO_LARGE"
    listed = await site.admin.call("GET", f"/api/v1/environments/{environment_id}/files")
    assert listed.body["files"] == []


async def test_a_download_that_breaks_does_not_look_whole(site: Site) -> None:
    environment_id = await site.running()
    await put(site.admin, environment_id, "path=/a", b"a" * 1000)

    async def broken(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        yield b"a" * 500
        raise OSError("the disk is gone")

    site.driver.files.read = broken  # type: ignore[method-assign]
    import aiohttp

    path = url(site.admin, environment_id, "/content?path=/a")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with site.admin.session.get(path, headers=site.admin.headers) as answer:
            await answer.read()


async def test_changes_are_watched(site: Site) -> None:
    environment_id = await site.running()
    path = url(site.admin, environment_id, "/watch?path=/")
    async with site.admin.session.get(path, headers=site.admin.headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        await asyncio.sleep(0.1)
        await put(site.admin, environment_id, "path=/new", b"x")
        line = await asyncio.wait_for(answer.content.readline(), 10)
    assert json.loads(line.removeprefix(b"data: ")) == {"kind": "created", "path": "/new"}


async def test_readers_of_an_environment_do_not_see_its_files(site: Site) -> None:
    friend = await site.person("friend")
    environment_id = await site.running()
    path = f"/api/v1/environments/{environment_id}"
    await site.admin.call("PUT", f"{path}/shares/friend", {"permission": "read"})
    assert (await friend.call("GET", f"{path}/files")).status == 403
    await site.admin.call("PUT", f"{path}/shares/friend", {"permission": "write"})
    assert (await friend.call("GET", f"{path}/files")).status == 200


async def test_a_server_without_a_catalogue_says_so(site: Site) -> None:
    answer = await site.admin.call("GET", "/api/v1/images")
    assert (answer.status, "keeps no images" in answer.body["message"]) == (409, True)


async def test_what_is_too_large_or_has_no_room_is_told_by_its_own_status(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id = await site.running()
    await put(site.admin, environment_id, "path=/large", b"x" * 1_001)
    monkeypatch.setattr(file_service, "MAX_FILE_BYTES", 1_000)
    refused = await site.admin.call(
        "GET", f"/api/v1/environments/{environment_id}/files/content?path=/large"
    )
    assert (refused.status, refused.body["code"]) == (413, 413)

    async def full(*_: Any, **__: Any) -> Any:
        raise FileFault("ENOSPC", "'/new': No space left on device")

    monkeypatch.setattr(site.driver.files, "make_directory", full)
    refused = await site.admin.call(
        "POST", f"/api/v1/environments/{environment_id}/files/directories", {"path": "/new"}
    )
    assert (refused.status, refused.body["code"]) == (507, 507)


@pytest.mark.parametrize("what", ["make_directory", "move", "remove", "write"])
async def test_what_was_done_is_written_down_though_its_caller_has_left(
    site: Site, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    environment_id = await site.running()
    await put(site.admin, environment_id, "path=/old", b"x")
    files, gate, begun = site.driver.files, asyncio.Event(), asyncio.Event()
    done = getattr(files, what)

    async def slow(*given: Any, **named: Any) -> Any:
        found = await done(*given, **named)
        begun.set()
        await gate.wait()
        return found

    monkeypatch.setattr(files, what, slow)
    one = f"/api/v1/environments/{environment_id}/files"
    asked: dict[str, Coroutine[Any, Any, Any]] = {
        "make_directory": site.admin.call("POST", f"{one}/directories", {"path": "/new"}),
        "move": site.admin.call("POST", f"{one}/move", {"path": "/old", "to": "/new"}),
        "remove": site.admin.call("DELETE", f"{one}?path=/old"),
        "write": put(site.admin, environment_id, "path=/new", b"x"),
    }
    asking = asyncio.create_task(asked.pop(what))
    for other in asked.values():
        other.close()
    async with asyncio.timeout(10):
        await begun.wait()
    before = len(site.audit(environment_id))

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.2)
    gate.set()

    await until(lambda: len(site.audit(environment_id)) == before + 1, "it is written down")


async def test_what_is_cut_off_on_its_way_leaves_no_half_of_it(site: Site) -> None:
    environment_id = await site.running()
    for number in range(100):
        start = pb.WriteFileStart(environment_id=environment_id, path=f"/half-{number}")
        stream = site.files.WriteFile(metadata=site.metadata)
        await stream.write(pb.WriteFileRequest(start=start))
        await stream.write(pb.WriteFileRequest(data=b"half"))
        await asyncio.sleep(0.001 * (number % 7))
        stream.cancel()
    await put(site.admin, environment_id, "path=/whole", b"whole")  # by then the others are over
    listed = await site.admin.call("GET", f"/api/v1/environments/{environment_id}/files?path=/")
    assert [each["path"] for each in listed.body["files"]] == ["/whole"]
    written = [each for each in site.audit(environment_id) if "file_written" in each["action"]]
    assert len(written) == 1


async def test_a_file_on_its_way_ends_with_the_right_to_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/friend"
    await owner.call("PUT", share, {"permission": "write"})
    await put(owner, environment_id, "path=/kept", b"before")

    async def slow(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        yield b"before"
        await asyncio.Event().wait()

    monkeypatch.setattr(site.driver.files, "read", slow)
    theirs = tuple(friend.headers.items())
    asked = pb.ReadFileRequest(environment_id=environment_id, path="/kept")
    reading = site.files.ReadFile(asked, metadata=theirs)
    assert (await reading.read()).content.data == b"before"
    writing = site.files.WriteFile(metadata=theirs)
    start = pb.WriteFileStart(environment_id=environment_id, path="/kept")
    await writing.write(pb.WriteFileRequest(start=start))
    await writing.write(pb.WriteFileRequest(data=b"after"))
    draft = site.driver.host.folder / environment_id / ".kept.draft"
    await until(draft.exists, "it is on its way")

    assert (await owner.call("DELETE", share)).status == 204
    with pytest.raises(grpc.aio.AioRpcError) as unread:
        await asyncio.wait_for(reading.read(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as unwritten:
        await asyncio.wait_for(writing, 10)
    for refused in (unread, unwritten):
        assert refusal_of(refused.value).reason == "PERMISSION_CHANGED"
    kept = f"/api/v1/environments/{environment_id}/files/stat?path=/kept"
    assert (await owner.call("GET", kept)).body["size_bytes"] == len("before")


async def test_a_caller_reads_so_many_files_at_a_time(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_service, "MAX_OPEN", 1)
    environment_id = await site.running()
    await put(site.admin, environment_id, "path=/a", b"x")

    async def slow(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    monkeypatch.setattr(site.driver.files, "read", slow)
    asked = pb.ReadFileRequest(environment_id=environment_id, path="/a")
    first = site.files.ReadFile(asked, metadata=site.metadata)
    await asyncio.wait_for(first.read(), 10)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(site.files.ReadFile(asked, metadata=site.metadata).read(), 10)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal_of(refused.value).reason == "TOO_MANY_FILES"
    first.cancel()

    async def is_let_in() -> bool:
        again = site.files.ReadFile(asked, metadata=site.metadata)
        try:
            return bool(await asyncio.wait_for(again.read(), 10))
        except grpc.aio.AioRpcError:
            return False
        finally:
            again.cancel()

    await until(is_let_in, "the place of the first is free")


async def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id = await site.running()
    await put(site.admin, environment_id, "path=/log", b"line")

    async def growing(*_: Any, **__: Any) -> AsyncIterator[bytes]:
        while True:
            yield b"line"

    monkeypatch.setattr(site.driver.files, "read", growing)
    monkeypatch.setattr(file_service, "MAX_FILE_BYTES", 10)
    asked = pb.ReadFileRequest(environment_id=environment_id, path="/log")
    reading = site.files.ReadFile(asked, metadata=site.metadata)
    assert (await reading.read()).content.data == b"line"
    assert (await reading.read()).content.data == b"line"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(reading.read(), 10)
    assert refusal_of(refused.value).reason == "FILE_TOO_LARGE"


async def test_what_ends_without_saying_that_it_was_all_is_refused(site: Site) -> None:
    environment_id = await site.running()

    async def parts() -> AsyncIterator[pb.WriteFileRequest]:
        start = pb.WriteFileStart(environment_id=environment_id, path="/half")
        yield pb.WriteFileRequest(start=start)
        yield pb.WriteFileRequest(data=b"half")

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await site.files.WriteFile(parts(), metadata=site.metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "eof: must be the last message" in str(refused.value.details())
    listed = await site.admin.call("GET", f"/api/v1/environments/{environment_id}/files?path=/")
    assert listed.body["files"] == []
