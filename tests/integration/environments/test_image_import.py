"""Images that administrators send to a server, piece by piece."""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from steward.environments.v1 import images_pb2 as pb
from steward.environments.v1.environments_pb2 import Eof
from steward.environments.v1.images_pb2_grpc import ImageServiceStub
from steward_server.environments.images import host, room
from steward_server.environments.images.catalogue import Catalogue
from tests.child_driver import ChildDriver
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import Site, Sites, until
from tests.integration.environments.images.archives import (
    entry,
    folder,
    hard_link,
    layer,
    link,
    save,
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
async def site(sites: Sites, images: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(host, "make", lambda *_, **__: None)  # it takes its time, and is not sent
    driver: Any = ChildDriver(sites.host)
    driver.images = Catalogue(images, in_use=lambda _: ())
    sites.has_images = True
    async with sites.open(driver, max_image_archive="1Mi") as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    files = layer(folder("etc"), entry("etc/hello", b"hello"))
    return save(tmp_path / "good.tar", [files]).read_bytes()


async def begin(site: Site, name: str = "sent:1", content: bytes = b"") -> Any:
    """An import with its first messages.

    What is refused by one of them is sent no more: grpc.aio tells INTERNAL of a call that ends
    while something is written to it.
    """
    metadata = tuple(site.admin.headers.items())
    stream = ImageServiceStub(site.live.channel).ImportImage(metadata=metadata)
    await stream.write(pb.ImportImageRequest(start=pb.ImportImageStart(name=name)))
    if content:
        await stream.write(pb.ImportImageRequest(data=content))
    return stream


async def send(site: Site, content: bytes, name: str = "sent:1") -> Any:
    """Send an archive whole; the image."""
    stream = await begin(site, name)
    for at in range(0, len(content), 65_536):
        await stream.write(pb.ImportImageRequest(data=content[at : at + 65_536]))
    await stream.write(pb.ImportImageRequest(eof=Eof()))
    return (await stream).image


async def refused(work: Any) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await work
    return error.value.code(), refusal_of(error.value).reason, error.value.details() or ""


def is_empty(images: Path) -> bool:
    """Whether nothing is left of what did not become an image."""
    return not any(any((images / name).iterdir()) for name in ("incoming", "roots", "names"))


async def test_an_image_that_is_sent_is_there_for_everybody(site: Site, archive: bytes) -> None:
    made = await send(site, archive, "sent:1")

    assert (made.name, made.digest.startswith("sha256:")) == ("sent:1", True)
    person = await site.person("somebody")
    seen = await person.call("GET", "/api/v1/images/sent:1")
    assert (seen.status, seen.body["digest"]) == (200, made.digest)
    (written,) = site.audit("sent:1")
    assert written["action"] == "image.imported"
    assert not any((site.driver.images._folder / "incoming").iterdir())  # type: ignore[attr-defined]


async def test_only_administrators_send_images(site: Site) -> None:
    person = await site.person("somebody")
    metadata = tuple(person.headers.items())
    code, _, _ = await refused(ImageServiceStub(site.live.channel).ImportImage(metadata=metadata))
    assert code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "evil",
    [
        [entry("../escaped", b"x")],
        [entry("/../../escaped", b"x")],
        [link("way", "../../../.."), entry("way/escaped", b"x")],
        [entry("etc", b"x"), hard_link("a", "../../../../../../etc/passwd")],
    ],
    ids=["climbs out", "climbs over the root", "goes by a link", "links what is outside"],
)
async def test_nothing_of_an_archive_gets_out_of_its_image(
    site: Site, images: Path, tmp_path: Path, evil: list[Any]
) -> None:
    archive = save(tmp_path / "evil.tar", [layer(*evil)]).read_bytes()
    async with asyncio.timeout(30):
        while not images.exists():  # the server makes it as it starts
            await asyncio.sleep(0.01)
    before = set(tmp_path.iterdir())

    with suppress(grpc.aio.AioRpcError):  # or it is let in, and what is evil in it is left out
        await send(site, archive)

    assert set(tmp_path.iterdir()) == before
    inside = [Path(root) / name for root, _, names in os.walk(images) for name in names]
    passwords = Path("/etc/passwd").stat().st_ino
    assert all(each.lstat().st_ino != passwords for each in inside)
    for escaped in (each for each in inside if each.name == "escaped"):
        assert "rootfs" in escaped.relative_to(images).parts
    assert not any((images / "incoming").iterdir())


async def test_devices_and_rights_of_owners_are_left_out(
    site: Site, images: Path, tmp_path: Path
) -> None:
    files = layer(
        folder("bin"),
        entry("bin/su", b"x", mode=0o6755),
        entry("dev0", kind=tarfile.CHRTYPE, devmajor=1, devminor=1),
        entry("dev1", kind=tarfile.BLKTYPE, devmajor=8, devminor=0),
    )
    await send(site, save(tmp_path / "evil.tar", [files]).read_bytes())

    (root,) = (images / "roots").iterdir()
    found = {each.name: each.lstat().st_mode for each in root.rglob("*")}
    assert not found["su"] & (stat.S_ISUID | stat.S_ISGID)
    assert not any(stat.S_ISCHR(mode) or stat.S_ISBLK(mode) for mode in found.values())


async def test_what_is_no_image_is_refused_and_gone(site: Site, images: Path) -> None:
    code, reason, _ = await refused(send(site, b"no archive at all"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_IMAGE")
    assert is_empty(images)


@pytest.mark.parametrize("name", ["No Name", "snapshot/snap-1", "docker.io/snapshot/snap-1"])
async def test_a_name_that_is_none_is_refused_before_anything_is_sent(
    site: Site, name: str
) -> None:
    code, reason, _ = await refused(await begin(site, name))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_IMAGE_NAME")


async def test_the_built_in_image_is_not_replaced(site: Site, archive: bytes) -> None:
    code, reason, _ = await refused(await begin(site, "host"))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUILT_IN_IMAGE")


async def test_an_archive_larger_than_allowed_is_given_up(site: Site, images: Path) -> None:
    stream = await begin(site)
    for _ in range(17):  # of 64 KiB, and one MiB is allowed; more could follow
        await stream.write(pb.ImportImageRequest(data=b"\0" * 65_536))
    code, reason, _ = await refused(stream)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE")
    assert is_empty(images)


async def test_the_disk_is_not_filled_to_its_end(
    site: Site, images: Path, archive: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LEFT_FREE_BYTES", 1 << 60)
    code, reason, _ = await refused(await begin(site, content=archive))
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL")
    assert is_empty(images)


async def test_an_import_whose_caller_leaves_leaves_nothing(site: Site, images: Path) -> None:
    stream = await begin(site)
    await stream.write(pb.ImportImageRequest(data=b"\0" * 65_536))
    await until(lambda: (images / "incoming").exists() and any((images / "incoming").iterdir()), "")

    stream.cancel()

    await until(lambda: is_empty(images), "it is gone")


async def test_a_whole_archive_without_the_word_that_it_was_all_is_no_image(
    site: Site, images: Path, archive: bytes
) -> None:
    stream = await begin(site, content=archive)
    await stream.done_writing()

    code, _, text = await refused(stream)

    assert (code, "eof: must be the last message" in text) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )
    assert is_empty(images)


async def test_what_is_cut_off_leaves_nothing_whenever_that_is(
    site: Site, images: Path, archive: bytes
) -> None:
    for number in range(20):
        stream = await begin(site, content=archive)
        await asyncio.sleep(0.001 * (number % 5))
        stream.cancel()
        await until(lambda: is_empty(images), "it is gone")

    await send(site, archive, "sent:2")  # by then the others are over
    assert site.audit("sent:1") == []
    assert (await site.admin.call("GET", "/api/v1/images/sent:1")).status == 404


async def test_an_image_whose_sender_left_after_its_end_is_written_down(
    site: Site, archive: bytes
) -> None:
    stream = await begin(site, content=archive)
    await stream.write(pb.ImportImageRequest(eof=Eof()))
    await until(lambda: site.driver.images._read("sent:1") is not None, "it is there")  # type: ignore[attr-defined]
    stream.cancel()
    await until(lambda: len(site.audit("sent:1")) == 1, "it is written down")


async def test_two_images_come_at_a_time(site: Site, archive: bytes, images: Path) -> None:
    begun = [await begin(site) for _ in range(2)]
    await until(
        lambda: (images / "incoming").exists() and len(list((images / "incoming").iterdir())) == 2,
        "both are on their way",
    )

    code, reason, _ = await refused(await begin(site))

    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_IMPORTS")
    for stream in begun:
        stream.cancel()
    await until(lambda: is_empty(images), "they are gone")
    await send(site, archive)


@pytest.mark.parametrize(
    "second",
    [
        pb.ImportImageRequest(start=pb.ImportImageStart(name="other:1")),
        pb.ImportImageRequest(data=b"\0" * (1024 * 1024 + 1)),
        pb.ImportImageRequest(),
    ],
    ids=["a second start", "too much at once", "nothing"],
)
async def test_a_stream_out_of_order_is_refused(site: Site, images: Path, second: Any) -> None:
    stream = await begin(site)
    await stream.write(second)
    await stream.done_writing()
    code, _, _ = await refused(stream)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert is_empty(images)
