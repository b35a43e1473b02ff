from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.driver import FileFault
from steward_server.environments.kubernetes import files as kubernetes_files
from tests.integration.environments.kubernetes.machines import Machines, until

pytestmark = pytest.mark.usefixtures("speaking")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "of the machine"
    made.mkdir()
    return made


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_file_is_written_and_read_back_bit_for_bit(
    machines: Machines, folder: Path
) -> None:
    name = await machines.make()
    content = os.urandom(700_000)
    path = str(folder / "a 'file'\nof two lines")
    told = await machines.driver.files.write(
        name, path, pieces(content[:100], b"", content[100:]), mode=0o750
    )
    assert (told.path, told.size_bytes, told.mode, told.kind) == (path, 700_000, 0o750, "file")
    read = b"".join([data async for data in machines.driver.files.read(name, path)])
    assert read == content
    rest = b"".join([data async for data in machines.driver.files.read(name, path, offset=699_990)])
    assert rest == content[-10:]
    assert [each.name for each in folder.iterdir()] == ["a 'file'\nof two lines"]


async def test_half_a_file_is_never_seen(machines: Machines, folder: Path) -> None:
    name = await machines.make()
    path = folder / "whole"
    path.write_text("before")

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.sleep(0.1)
        assert path.read_text() == "before"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await machines.driver.files.write(name, str(path), broken())
    assert path.read_text() == "before"
    await until(lambda: [each.name for each in folder.iterdir()] == ["whole"])


async def test_an_empty_file_is_one_too(machines: Machines, folder: Path) -> None:
    name = await machines.make()
    told = await machines.driver.files.write(name, str(folder / "empty"), pieces())
    assert told.size_bytes == 0
    assert [data async for data in machines.driver.files.read(name, str(folder / "empty"))] == []


async def test_of_a_huge_folder_one_more_is_listed_than_is_shown(
    machines: Machines, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes_files, "MOST_LISTED", 3)
    for number in range(10):
        (folder / f"file{number}").touch()
    name = await machines.make()
    found = await machines.driver.files.list(name, str(folder))
    assert [each.path for each in found] == [f"{folder}/file{number}" for number in range(4)]


async def test_a_folder_is_listed_with_whatever_names_there_are(
    machines: Machines, folder: Path
) -> None:
    name = await machines.make()
    (folder / ".hidden").write_text("x")
    (folder / "-rf").mkdir(mode=0o700)
    (folder / "two\nlines").write_text("xyz")
    (folder / "link").symlink_to("/nowhere/at all")
    (folder / "*").write_text("")
    found = await machines.driver.files.list(name, str(folder))
    assert [(each.path.removeprefix(f"{folder}/"), each.kind, each.target) for each in found] == [
        ("*", "file", ""),
        ("-rf", "directory", ""),
        (".hidden", "file", ""),
        ("link", "link", "/nowhere/at all"),
        ("two\nlines", "file", ""),
    ]
    assert await machines.driver.files.list(name, f"{folder}/-rf") == []
    root = await machines.driver.files.list(name, "/")
    assert "/etc" in [each.path for each in root]


async def test_folders_are_made_and_things_moved_and_removed(
    machines: Machines, folder: Path
) -> None:
    name, files = await machines.make(), machines.driver.files
    told = await files.make_directory(name, f"{folder}/a/b/c")
    assert (told.kind, told.path) == ("directory", f"{folder}/a/b/c")
    await files.make_directory(name, f"{folder}/a/b/c")
    await files.write(name, f"{folder}/a/file", pieces(b"x"))
    await files.move(name, f"{folder}/a/file", f"{folder}/a/b/moved")
    assert (await files.stat(name, f"{folder}/a/b/moved")).size_bytes == 1
    with pytest.raises(FileFault) as fault:
        await files.remove(name, f"{folder}/a", recursive=False)
    assert fault.value.kind == "ENOTEMPTY"
    await files.remove(name, f"{folder}/a", recursive=True)
    assert list(folder.iterdir()) == []


async def test_a_link_is_removed_and_not_what_it_leads_to(machines: Machines, folder: Path) -> None:
    name, files = await machines.make(), machines.driver.files
    (folder / "kept").mkdir()
    (folder / "kept/file").write_text("x")
    (folder / "link").symlink_to("kept")
    await files.remove(name, f"{folder}/link", recursive=True)
    assert (folder / "kept/file").exists()
    assert not (folder / "link").is_symlink()


async def test_what_cannot_be_done_with_a_file_is_named(machines: Machines, folder: Path) -> None:
    name, files, at = await machines.make(), machines.driver.files, folder
    (folder / "file").write_text("x")
    (folder / "dir").mkdir()
    for number, (work, kind) in enumerate(
        (
            (files.stat(name, f"{at}/none"), "ENOENT"),
            (files.stat(name, f"{at}/file/below"), "ENOTDIR"),
            (files.stat(name, "relative"), "EINVAL"),
            (files.list(name, f"{at}/file"), "ENOTDIR"),
            (files.list(name, f"{at}/none"), "ENOENT"),
            (_drained(files.read(name, f"{at}/none")), "ENOENT"),
            (_drained(files.read(name, f"{at}/dir")), "EISDIR"),
            (_drained(files.read(name, "/dev/null")), "EINVAL"),
            (files.write(name, f"{at}/dir", pieces(b"x")), "EISDIR"),
            (files.write(name, f"{at}/none/x", pieces(b"x")), "ENOENT"),
            (files.make_directory(name, f"{at}/file"), "EEXIST"),
            (files.make_directory(name, f"{at}/file/x"), "ENOTDIR"),
            (files.remove(name, f"{at}/none", recursive=False), "ENOENT"),
            (files.move(name, f"{at}/none", f"{at}/x"), "ENOENT"),
            (files.move(name, f"{at}/file", f"{at}/dir"), "EISDIR"),
            (files.move(name, f"{at}/dir", f"{at}/dir/x"), "EINVAL"),
        )
    ):
        with pytest.raises(FileFault) as fault:
            await work
        assert (number, fault.value.kind) == (number, kind)


async def test_what_happens_below_a_folder_is_told(
    machines: Machines, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.environments.kubernetes.files.WATCH_INTERVAL_S", 0.1)
    name = await machines.make()
    (folder / "old").write_text("x")
    events = machines.driver.files.watch(name, str(folder))
    seen: set[tuple[str, str]] = set()

    async def follow() -> None:
        async for event in events:
            seen.add(event)

    following = asyncio.create_task(follow())
    early = folder / "early"
    while not seen:  # what is made before it is looked first is nothing new
        with early.open("a") as file:
            file.write("x")
        await asyncio.sleep(0.1)
    (folder / "in").mkdir()
    (folder / "in/new").write_text("x")
    (folder / "old").write_text("longer")
    await until(lambda: ("changed", f"{folder}/old") in seen)
    await until(lambda: ("created", f"{folder}/in/new") in seen)
    (folder / "old").unlink()
    await until(lambda: ("removed", f"{folder}/old") in seen)
    following.cancel()
    await asyncio.wait([following])
    await events.aclose()  # type: ignore[attr-defined]
    assert {each for each in seen if each[1] != str(early)} == {
        ("created", f"{folder}/in"),
        ("created", f"{folder}/in/new"),
        ("changed", f"{folder}/old"),
        ("removed", f"{folder}/old"),
    }


async def _drained(content: AsyncIterator[bytes]) -> None:
    async for _ in content:
        pass
