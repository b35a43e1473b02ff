"""The catalogue: names, replacing, removing, restarts, and images made from machines."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import stat
import threading
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.images import room
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.images.image import Image
from steward_server.environments.images.snapshot import Merger
from steward_server.environments.removal import remove_tree
from tests.integration.environments.images.archives import entry, folder, layer, save

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mark what an overlay hides")


@pytest.fixture
def users() -> dict[Path, list[str]]:
    return {}


@pytest.fixture
def catalogue(tmp_path: Path, users: dict[Path, list[str]]) -> Catalogue:
    return Catalogue(tmp_path / "images", in_use=lambda root: users.get(root, ()))


async def add(catalogue: Catalogue, tmp_path: Path, *files: str, name: str = "thing:1") -> Image:
    entries = [entry(each, each.encode()) for each in files or ("a",)]
    return await catalogue.import_archive(save(tmp_path / "a.tar", [layer(*entries)]), name=name)


async def refusal(catalogue: Catalogue, name: str) -> Unusable:
    with pytest.raises(Unusable) as told:
        await catalogue.remove(name)
    return told.value


async def test_another_catalogue_of_the_folder_sees_what_was_imported(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    await Catalogue(tmp_path / "images").list()
    image = await add(catalogue, tmp_path)
    assert await Catalogue(tmp_path / "images").find("thing:1") == image


async def test_an_imported_image_comes_before_the_built_in_one(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    await add(catalogue, tmp_path, name="python:3.11-slim")
    assert not (await catalogue.find("docker.io/library/python:3.11-slim")).is_host
    assert (await catalogue.find("python:3.11")).is_host
    await catalogue.remove("python:3.11-slim")
    assert (await catalogue.find("python:3.11-slim")).is_host


async def test_an_image_is_found_by_its_digest(catalogue: Catalogue, tmp_path: Path) -> None:
    image = await add(catalogue, tmp_path)
    assert await catalogue.find(f"thing:1@{image.digest}") == image
    with pytest.raises(Unusable):
        await catalogue.find(f"thing:1@sha256:{'0' * 64}")


async def test_a_removed_image_is_gone_with_its_files(catalogue: Catalogue, tmp_path: Path) -> None:
    image = await add(catalogue, tmp_path)
    await catalogue.remove("thing:1")
    assert not image.root.exists()
    assert (await refusal(catalogue, "thing:1")).reason == "UNKNOWN_IMAGE"


async def test_an_image_in_use_is_not_removed(
    catalogue: Catalogue, tmp_path: Path, users: dict[Path, list[str]]
) -> None:
    image = await add(catalogue, tmp_path)
    users[image.root] = ["env-2", "env-1"]
    told = await refusal(catalogue, "thing:1")
    assert told.reason == "IMAGE_IN_USE"
    assert "in use by env-1, env-2; delete these 2 first" in str(told)
    assert image.root.exists()


async def test_a_built_in_image_is_not_removed(catalogue: Catalogue) -> None:
    assert (await refusal(catalogue, "host")).reason == "BUILT_IN_IMAGE"


async def test_a_replaced_image_stays_for_the_machines_that_stand_on_it(
    catalogue: Catalogue, tmp_path: Path, users: dict[Path, list[str]]
) -> None:
    old = await add(catalogue, tmp_path, "old")
    users[old.root] = ["env-1"]
    new = await add(catalogue, tmp_path, "new")
    assert (old.root / "old").exists()
    assert (await catalogue.find("thing:1")).root == new.root
    users.clear()
    await catalogue.clear()
    assert not old.root.exists()
    assert new.root.exists()


async def test_whoever_does_not_know_the_machines_removes_no_files(tmp_path: Path) -> None:
    """A command beside the running server does not know them."""
    blind = Catalogue(tmp_path / "images")
    image = await add(blind, tmp_path)
    await blind.remove("thing:1")
    assert image.root.exists()
    with pytest.raises(Unusable):
        await blind.find("thing:1")
    await Catalogue(tmp_path / "images", in_use=lambda _root: ()).clear()
    assert not image.root.exists()


async def test_what_a_killed_import_left_is_cleared_and_what_runs_is_not(tmp_path: Path) -> None:
    incoming = tmp_path / "images/incoming"
    for name in ("dead", "alive"):
        (incoming / name / "rootfs").mkdir(parents=True)
        (incoming / name / "lock").touch()
    with (incoming / "alive/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await Catalogue(tmp_path / "images").list()
        assert [each.name for each in incoming.iterdir()] == ["alive"]


async def test_only_the_server_may_enter_the_folder(catalogue: Catalogue, tmp_path: Path) -> None:
    await catalogue.list()
    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o700


async def test_a_snapshot_lays_what_a_machine_wrote_over_its_image(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path, "kept", "changed", "d/kept", "f-to-d")
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "f-to-d").mkdir()
    (upper / "f-to-d/x").write_text("new")
    (upper / "d/new").write_text("new")
    (upper / "changed").write_text("new")
    (upper / "changed").chmod(0o4755)
    (upper / "link").symlink_to("/etc/passwd")
    os.link(upper / "changed", upper / "d/same")

    image = await catalogue.add_snapshot("mine", base, upper)

    assert image == await catalogue.find("mine")
    root = image.root
    found = {str(each.relative_to(root)) for each in root.rglob("*") if not each.is_dir()}
    assert found == {"kept", "changed", "d/kept", "d/new", "d/same", "f-to-d/x", "link"}
    assert (root / "changed").read_text() == "new"
    assert stat.S_IMODE((root / "changed").stat().st_mode) == 0o755
    assert (root / "d/same").stat().st_ino == (root / "changed").stat().st_ino
    assert (root / "link").is_symlink()
    assert (root / "kept").stat().st_ino == (base.root / "kept").stat().st_ino
    assert (base.root / "changed").read_text() == "changed"

    await catalogue.remove("thing:1")
    assert (root / "kept").read_text() == "kept"


@as_root
async def test_a_snapshot_leaves_out_what_the_machine_removed(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path, "gone", "opaque/gone", "tree/gone/x", "tree/kept")
    upper = tmp_path / "upper"
    for name in ("opaque", "tree"):
        (upper / name).mkdir(parents=True)
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    (upper / "opaque/new").touch()
    for name in ("gone", "tree/gone"):
        os.mknod(upper / name, stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(upper / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    image = await catalogue.add_snapshot("mine", base, upper)
    found = {str(e.relative_to(image.root)) for e in image.root.rglob("*") if not e.is_dir()}
    assert found == {"opaque/new", "tree/kept"}


@as_root
async def test_a_snapshot_has_its_owners_as_they_were_inside(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    upper = tmp_path / "upper"
    upper.mkdir()
    for name, owner in (("root", 100_000), ("agent", 101_000), ("stranger", 5)):
        (upper / name).touch()
        os.chown(upper / name, owner, owner)
    os.chown(upper, 100_000, 100_000)
    image = await catalogue.add_snapshot("mine", base, upper, first_id=100_000)
    owners = {each.name: each.stat().st_uid for each in image.root.iterdir()}
    assert owners == {
        "a": base.root.joinpath("a").stat().st_uid,
        "root": 0,
        "agent": 1000,
        "stranger": 65534,
    }
    assert image.root.stat().st_uid == 0


@as_root
async def test_a_snapshot_of_another_kind_of_overlay_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path, "d/x")
    upper = tmp_path / "upper"
    (upper / "moved").mkdir(parents=True)
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/d")
    with pytest.raises(Unusable) as told:
        await catalogue.add_snapshot("mine", base, upper)
    assert told.value.reason == "BAD_IMAGE"
    with pytest.raises(Unusable):
        await catalogue.find("mine")


async def test_a_snapshot_takes_no_room_for_holes(catalogue: Catalogue, tmp_path: Path) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    with (tmp_path / "upper/vast").open("wb") as vast:
        vast.truncate(64 << 20)
        vast.seek(32 << 20)
        vast.write(b"in the middle")

    kept = await catalogue.add_snapshot("mine", base, tmp_path / "upper")

    copy = kept.root / "vast"
    assert copy.read_bytes() == (tmp_path / "upper/vast").read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 20


async def test_a_snapshot_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "images", most_bytes=100)
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/big").write_bytes(bytes(200))
    with pytest.raises(Unusable, match="larger than 100 bytes"):
        await catalogue.add_snapshot("mine", base, tmp_path / "upper")


async def test_a_snapshot_given_up_is_over_before_its_machine_goes_on(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    for number in range(20_000):
        (tmp_path / f"upper/{number}").touch()
    keeping = asyncio.create_task(catalogue.add_snapshot("mine", base, tmp_path / "upper"))
    while not list((tmp_path / "images").glob("incoming/*/rootfs/*")):
        await asyncio.sleep(0.001)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
    assert not list((tmp_path / "images/incoming").iterdir())


@pytest.mark.parametrize("last", [10, 70])
def test_a_snapshot_given_up_takes_no_file_more(tmp_path: Path, last: int) -> None:
    for name in ("lower", "upper", "root"):
        (tmp_path / name).mkdir()
    for number in range(50):
        (tmp_path / f"lower/l{number}").touch()
        (tmp_path / f"upper/u{number}").touch()
    asked = itertools.count()
    most = room.Room(1 << 20, 1000, tmp_path)
    merger = Merger(most, first_id=0, halted=lambda: next(asked) == last)

    with pytest.raises(InterruptedError):
        merger.merge(tmp_path / "lower", tmp_path / "upper", tmp_path / "root")

    assert len(list((tmp_path / "root").iterdir())) == last


async def test_a_file_of_a_snapshot_that_is_a_named_pipe_by_now_holds_nothing_up(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where machines are stopped by signals, one may have been missed."""
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/file").write_bytes(b"1")
    copy = Merger._copy
    patience = threading.Timer(2, lambda: os.close(os.open(tmp_path / "upper/file", os.O_RDWR)))

    def too_late(self: Merger, upper: int, into: int, name: str) -> None:
        (tmp_path / "upper/file").unlink()
        os.mkfifo(tmp_path / "upper/file")
        patience.start()
        copy(self, upper, into, name)

    monkeypatch.setattr(Merger, "_copy", too_late)
    kept = await catalogue.add_snapshot("mine", base, tmp_path / "upper")

    assert patience.is_alive()
    patience.cancel()
    assert (kept.root / "file").read_bytes() == b""


async def test_a_snapshot_of_the_built_in_image_keeps_what_it_binds(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await catalogue.find("python")
    (tmp_path / "upper/workspace").mkdir(parents=True)
    (tmp_path / "upper/workspace/result").write_text("42")
    image = await catalogue.add_snapshot("team/mine:v2", base, tmp_path / "upper")
    assert image.binds == base.binds
    assert not image.is_host
    assert (image.root / "workspace/result").read_text() == "42"
    assert (image.root / "etc/passwd").read_text() == (base.root / "etc/passwd").read_text()


async def test_a_snapshot_replaces_nothing_that_others_know_by_its_name(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    for name in ("thing:1", "docker.io/library/python:3.11-slim", "host"):
        with pytest.raises(Unusable) as told:
            await catalogue.add_snapshot(name, base, tmp_path / "upper")
        assert told.value.reason == "IMAGE_EXISTS"
    assert await catalogue.find("thing:1") == base
    assert (await catalogue.find("python:3.11-slim")).is_host


async def test_two_snapshots_of_one_name_at_once_make_one_image(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    made = await asyncio.gather(
        *(catalogue.add_snapshot("mine", base, tmp_path / "upper") for _ in range(4)),
        return_exceptions=True,
    )
    assert [each for each in made if isinstance(each, Image)] == [await catalogue.find("mine")]
    assert {each.reason for each in made if isinstance(each, Unusable)} <= {"IMAGE_EXISTS"}
    assert len(list((tmp_path / "images/roots").iterdir())) == 2


async def test_the_built_in_image_keeps_its_name(catalogue: Catalogue, tmp_path: Path) -> None:
    with pytest.raises(Unusable) as told:
        await add(catalogue, tmp_path, name="host:latest")
    assert told.value.reason == "BUILT_IN_IMAGE"


async def test_a_long_name_is_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    name = "/".join(["registry.example:5000", *("folder" for _ in range(40)), "x:tag"])
    image = await add(catalogue, tmp_path, name=name)
    assert await catalogue.find(name) == image


async def test_a_folder_of_an_archive_stays_what_it_is(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    one = layer(folder("d", 0o750), entry("d/x"), folder("d", 0o700))
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [one]))
    assert stat.S_IMODE((image.root / "d").stat().st_mode) == 0o700
    assert (image.root / "d/x").exists()


def nested(top: Path, count: int) -> None:
    """Folders in each other, deeper than a path can tell."""
    top.mkdir(parents=True)
    here = os.open(top, os.O_RDONLY)
    for _ in range(count):
        os.mkdir("folder", dir_fd=here)
        inner = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


async def test_a_snapshot_of_folders_nested_too_deep_is_refused_by_their_path(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    nested(tmp_path / "upper/deep", 1500)
    try:
        with pytest.raises(Unusable, match=r"deep/folder/folder.*more than 128 levels") as told:
            await catalogue.add_snapshot("mine", base, tmp_path / "upper")
    finally:
        remove_tree(tmp_path / "upper")
    assert told.value.reason == "BAD_IMAGE"
    assert not list((tmp_path / "images/incoming").iterdir())
    assert len(list((tmp_path / "images/roots").iterdir())) == 1


async def test_a_snapshot_may_be_nested_deep_and_be_made_anew_of_itself(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    base = await add(catalogue, tmp_path)
    nested(tmp_path / "upper/deep", 100)
    once = await catalogue.add_snapshot("once", base, tmp_path / "upper")
    (tmp_path / "empty").mkdir()
    twice = await catalogue.add_snapshot("twice", once, tmp_path / "empty")
    assert (twice.root / "deep" / "/".join(["folder"] * 100) / "file").exists()


async def test_what_was_left_half_made_is_cleared_however_deep_it_is(tmp_path: Path) -> None:
    left = tmp_path / "images/incoming/dead"
    nested(left / "rootfs", 3000)
    (left / "lock").touch()
    await Catalogue(tmp_path / "images").list()
    assert not left.exists()


async def test_a_snapshot_leaves_room_on_the_disk_and_nothing_half_made(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/big").write_bytes(os.urandom(48 << 20))
    for left in (free_bytes(tmp_path) + (1 << 40), free_bytes(tmp_path) - (24 << 20)):
        monkeypatch.setattr(room, "LEFT_FREE_BYTES", left)
        with pytest.raises(Unusable) as told:
            await catalogue.add_snapshot("mine", base, tmp_path / "upper")
        assert told.value.reason == "DISK_FULL"
        assert not list((tmp_path / "images/incoming").iterdir())
        assert [each.name for each in (tmp_path / "images/roots").iterdir()] == [
            base.root.parent.name
        ]


async def test_a_snapshot_stops_where_the_disk_fills_meanwhile(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = await add(catalogue, tmp_path)
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/big").write_bytes(bytes(64 << 20))
    real, asked = os.statvfs, 0

    def filling(place: Path | int) -> os.statvfs_result:
        nonlocal asked
        asked += 1
        told = list(real(place))
        if asked > 5:
            told[4] = 0  # f_bavail: another has taken the rest
        return os.statvfs_result(told)

    monkeypatch.setattr(os, "statvfs", filling)
    with pytest.raises(Unusable) as told:
        await catalogue.add_snapshot("mine", base, tmp_path / "upper")
    assert told.value.reason == "DISK_FULL"
    assert not list((tmp_path / "images/incoming").iterdir())


async def test_an_import_leaves_room_on_the_disk(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEFT_FREE_BYTES", 1 << 60)
    with pytest.raises(Unusable) as told:
        await add(catalogue, tmp_path)
    assert told.value.reason == "DISK_FULL"
    assert not list((tmp_path / "images/incoming").iterdir())


async def test_an_image_is_not_removed_under_a_machine_that_is_being_made(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    await add(catalogue, tmp_path, "old")
    async with catalogue.held("thing:1", by="env-1") as image:
        told = await refusal(catalogue, "thing:1")
        await add(catalogue, tmp_path, "new")
        assert (image.root / "old").exists()
    assert told.reason == "IMAGE_IN_USE"
    assert "in use by env-1" in str(told)
    await catalogue.remove("thing:1")
    assert not image.root.exists()


async def test_a_making_that_is_given_up_holds_no_image(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    await add(catalogue, tmp_path)

    async def hold() -> None:
        async with catalogue.held("thing:1", by="env-1"):
            await asyncio.sleep(60)

    for wait_s in (0, 0.01):
        making = asyncio.create_task(hold())
        await asyncio.sleep(wait_s)
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
    await catalogue.find("thing:1")
    await catalogue.remove("thing:1")


async def test_a_removal_that_is_cut_short_is_finished_by_the_next_server(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add(catalogue, tmp_path, "a/b/c")

    def cut_short(path: Path, **_more: bool) -> None:
        for each in path.iterdir():
            if each.is_file():
                each.unlink()
        raise RuntimeError

    monkeypatch.setattr("steward_server.environments.images.catalogue.remove_tree", cut_short)
    with pytest.raises(RuntimeError):
        await catalogue.remove("thing:1")
    monkeypatch.undo()
    assert list((tmp_path / "images/incoming").iterdir())
    await Catalogue(tmp_path / "images").list()
    assert not list((tmp_path / "images/incoming").iterdir())
    assert not list((tmp_path / "images/roots").iterdir())
