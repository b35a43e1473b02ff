"""Images come in from archives: whole, as they were meant, and never beyond their own folder."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.images.oci import machine
from tests.integration.environments.images.archives import (
    config_of,
    entry,
    folder,
    hard_link,
    layer,
    layout,
    link,
    packed,
    save,
    sha256,
)

NAMED = "org.opencontainers.image.ref.name"
CHAR, BLOCK, FIFO = tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "images")


async def refused(catalogue: Catalogue, path: Path, name: str = "thing") -> str:
    """Why an import was refused; nothing of it may be left."""
    with pytest.raises(Unusable) as told:
        await catalogue.import_archive(path, name=name)
    assert told.value.reason == "BAD_IMAGE"
    root = path.parent / "images"
    assert not list((root / "roots").iterdir())
    assert not list((root / "incoming").iterdir())
    assert not list((root / "names").iterdir())
    return str(told.value)


def files(root: Path) -> set[str]:
    return {
        str(each.relative_to(root))
        for each in root.rglob("*")
        if each.is_symlink() or not each.is_dir()
    }


@pytest.mark.parametrize("form", ["save", "layout", "packed layout", "layout of plain layers"])
async def test_every_form_of_an_image_is_read(
    catalogue: Catalogue, tmp_path: Path, form: str
) -> None:
    layers = [layer(folder("bin"), entry("bin/run", b"one", mode=0o755))]
    config = config_of(
        layers,
        Env=["PATH=/bin", "EQUALS=a=b"],
        Entrypoint=["/bin/run"],
        Cmd=["now"],
        WorkingDir="/srv",
        User="1000:1000",
    )
    if form == "save":
        path = save(tmp_path / "a.tar", layers, config=config)
    else:
        path = layout(tmp_path / "a", layers, config=config, packed="plain" not in form)
        if form.startswith("packed"):
            path = packed(path, tmp_path / "a.tar")

    image = await catalogue.import_archive(path)

    assert image == await catalogue.find("docker.io/library/thing:1")
    assert image.name == "thing:1"
    assert image.env == {"PATH": "/bin", "EQUALS": "a=b"}
    assert image.command == ("/bin/run", "now")
    assert (image.working_dir, image.user) == ("/srv", "1000:1000")
    assert image.size_bytes == 3
    assert not image.is_host
    run = image.root / "bin/run"
    assert run.read_bytes() == b"one"
    assert stat.S_IMODE(run.stat().st_mode) == 0o755
    assert run.stat().st_mtime == 1_700_000_000
    assert image in await catalogue.list()


async def test_later_layers_cover_remove_and_empty_what_earlier_ones_have(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    first = layer(
        entry("kept", b"1"),
        entry("changed", b"1"),
        entry("removed", b"1"),
        entry("tree/a", b"1"),
        entry("tree/b/c", b"1"),
        entry("emptied/old", b"1"),
        entry("emptied/deep/old", b"1"),
        entry("file-to-folder", b"1"),
        entry("folder-to-file/x", b"1"),
    )
    second = layer(
        entry("changed", b"2"),
        entry(".wh.removed"),
        entry(".wh.tree"),
        entry("emptied/new", b"2"),
        entry("emptied/deep/new", b"2"),
        entry("emptied/.wh..wh..opq"),
        entry(".wh..wh.plnk/1.2", b"2"),
        folder("file-to-folder"),
        entry("file-to-folder/x", b"2"),
        entry("folder-to-file", b"2"),
        entry(".wh.never-there"),
        entry("nowhere/.wh.never-there"),
    )
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [first, second]))

    assert files(image.root) == {
        "kept",
        "changed",
        "emptied/new",
        "emptied/deep/new",
        "file-to-folder/x",
        "folder-to-file",
    }
    assert (image.root / "changed").read_bytes() == b"2"
    assert not (image.root / "tree").exists()


async def test_a_whiteout_beside_its_replacement_removes_only_the_old(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    first = layer(entry("d/old", b"1"))
    second = layer(folder("d"), entry("d/new", b"2"), entry(".wh.d"))
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [first, second]))
    assert files(image.root) == {"d/new"}


async def test_hard_links_share_their_file_and_links_stay_links(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    first = layer(entry("bin/a", b"1"), hard_link("bin/b", "bin/a"), link("c", "/bin/a"))
    second = layer(hard_link("bin/d", "./bin/b"), entry("bin/a", b"new"))
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [first, second]))
    root = image.root
    assert (root / "bin/b").stat().st_ino == (root / "bin/d").stat().st_ino
    assert (root / "bin/b").read_bytes() == b"1"
    assert (root / "bin/a").read_bytes() == b"new"
    assert (root / "c").readlink() == Path("/bin/a")


async def test_links_on_the_way_are_followed_inside_the_image_only(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    """As a process rooted in the image would see them: that is what makers of images mean."""
    outside = tmp_path / "outside"
    outside.mkdir()
    evil = layer(
        folder("run"),
        folder("var"),
        link("var/run", "/run"),
        entry("var/run/pid", b"1"),
        link("up", "../../../../../../../.."),
        entry("up/from-the-top", b"1"),
        link("out", str(outside)),
        entry("out/escaped", b"1"),
    )
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [evil]))
    assert not list(outside.iterdir())
    assert (image.root / "run/pid").exists()
    assert (image.root / "from-the-top").exists()
    assert (image.root / str(outside).lstrip("/") / "escaped").exists()


@pytest.mark.attack
async def test_a_file_is_never_written_through_a_link(catalogue: Catalogue, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    evil = layer(link("x", str(victim)), entry("x", b"overwritten", mode=0o600))
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [evil]))
    assert victim.read_text() == "mine"
    assert not (image.root / "x").is_symlink()


@pytest.mark.attack
async def test_a_whiteout_never_removes_through_a_link(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    first = layer(link("x", str(victim)), link("y", str(victim)))
    second = layer(entry("x/.wh.file"), entry("y/.wh..wh..opq"), entry(".wh.x"))
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [first, second]))
    assert (victim / "file").read_text() == "mine"
    assert files(image.root) == {"y"}


@pytest.mark.attack
async def test_a_hard_link_to_a_link_out_of_the_image_links_the_link(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    evil = layer(link("x", str(victim)), hard_link("y", "x"), entry("y", b"over"))
    await catalogue.import_archive(save(tmp_path / "a.tar", [evil]))
    assert victim.read_text() == "mine"


EVIL = {
    "upwards": ([entry("../escaped", b"1")], "leads out of the image"),
    "upwards in the middle": ([entry("a/../../escaped", b"1")], "leads out of the image"),
    "upwards from the top": ([entry("/../escaped", b"1")], "leads out of the image"),
    "a hard link upwards": ([hard_link("x", "../../etc/passwd")], "leads out of the image"),
    "a hard link to the host": ([hard_link("x", "/etc/hostname")], "no folder 'etc'"),
    "a hard link to a folder": ([folder("d"), hard_link("x", "d")], "is a folder"),
    "a hard link through a link": (
        [link("e", "/etc"), hard_link("x", "e/hostname")],
        "there is no folder",
    ),
    "a folder that is a file": ([entry("f", b"1"), entry("f/x", b"1")], "which is no folder"),
    "a ring of links": ([link("a", "b"), link("b", "a"), entry("a/x", b"1")], "ring of links"),
    "a whiteout of its parent": ([entry("d/.wh..")], "which is no name"),
    "a whiteout of itself": ([entry("d/.wh.")], "which is no name"),
    "a name without end": ([entry("n" * 300, b"1")], "contradicts itself"),
    "a path without end": ([entry("n/" * 3000 + "n", b"1")], "too long"),
    "a user beyond all numbers": ([entry("x", b"1", owner=1 << 40)], "header that cannot be read"),
    "a time beyond all numbers": (
        [entry("x", b"1", pax_headers={"mtime": "1e300"})],
        "header that cannot be read",
    ),
    "an empty link": ([link("x", "")], "leads nowhere"),
}


@pytest.mark.parametrize("case", EVIL)
@pytest.mark.attack
async def test_an_evil_layer_is_refused_and_nothing_of_it_is_left(
    catalogue: Catalogue, tmp_path: Path, case: str
) -> None:
    entries, told = EVIL[case]
    assert told in await refused(catalogue, save(tmp_path / "a.tar", [layer(*entries)]))
    assert not (tmp_path / "images" / "roots" / "escaped").exists()
    assert {each.name for each in tmp_path.iterdir()} == {"a.tar", "images"}


@pytest.mark.attack
async def test_devices_rights_of_owners_and_attributes_are_left_out(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    one = layer(
        entry("dev/null", kind=CHAR, devmajor=1, devminor=3),
        entry("dev/sda", kind=BLOCK, devmajor=8, devminor=0),
        entry("whiteout", kind=CHAR, devmajor=0, devminor=0),
        entry("pipe", kind=FIFO),
        entry("su", b"1", mode=0o4755),
        entry("crontab", b"1", mode=0o2755),
        folder("tmp", 0o1777),
        entry("redirected", b"1", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
        entry("capable", b"1", pax_headers={"SCHILY.xattr.security.capability": "\x01"}),
    )
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [one]))
    root = image.root
    assert files(root) == {"pipe", "su", "crontab", "redirected", "capable"}
    assert stat.S_IMODE((root / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "crontab").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert not os.listxattr(root / "redirected")
    assert not os.listxattr(root / "capable")


@as_root
async def test_owners_are_kept(catalogue: Catalogue, tmp_path: Path) -> None:
    one = layer(
        entry("home/a", b"1", owner=1000), entry("link", kind=tarfile.SYMTYPE, link="x", owner=7)
    )
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [one]))
    assert (image.root / "home/a").stat().st_uid == 1000
    assert (image.root / "link").lstat().st_gid == 7


async def test_a_layer_of_another_digest_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    good, other = layer(entry("a", b"1")), layer(entry("a", b"2"))
    told = await refused(catalogue, save(tmp_path / "a.tar", [other], config=config_of([good])))
    assert sha256(good) in told
    assert sha256(other) in told


async def test_a_changed_blob_of_a_layout_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    path = layout(tmp_path / "a", [layer(entry("a", b"1"))])
    manifest = json.loads((path / "index.json").read_text())["manifests"][0]["digest"][7:]
    told = json.loads((path / "blobs/sha256" / manifest).read_text())
    blob = path / "blobs/sha256" / told["layers"][0]["digest"][7:]
    blob.write_bytes(gzip.compress(layer(entry("a", b"2"))))
    assert "damaged or changed" in await refused(catalogue, path)

    (path / "blobs/sha256" / manifest).write_text(json.dumps(told | {"layers": []}))
    assert "damaged or changed" in await refused(catalogue, path)


@pytest.mark.attack
async def test_a_blob_that_is_a_link_out_of_the_layout_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    path = layout(tmp_path / "a", [layer(entry("a", b"1"))])
    for blob in (path / "blobs/sha256").iterdir():
        blob.rename(tmp_path / blob.name)
        blob.symlink_to(tmp_path / blob.name)
    assert "no file" in await refused(catalogue, path)


async def test_an_image_of_another_machine_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    layers = [layer(entry("a", b"1"))]
    config = config_of(layers) | {"architecture": "s390x"}
    told = await refused(catalogue, save(tmp_path / "a.tar", layers, config=config))
    assert "linux/s390x" in told


@pytest.mark.attack
async def test_an_image_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "images", most_bytes=1000, most_files=10)
    big = layer(entry("a", b"x" * 600), entry("b", b"x" * 600))
    assert "larger than 1000 bytes" in await refused(catalogue, save(tmp_path / "a.tar", [big]))
    many = layer(*(entry(f"d{number}/f") for number in range(6)))
    assert "too many files" in await refused(catalogue, save(tmp_path / "a.tar", [many]))


def save_of_junk(**told: Any) -> bytes:
    manifest = {"Config": "c", "Layers": [], **told}
    return layer(
        entry("manifest.json", json.dumps([manifest]).encode()),
        entry("c", json.dumps(config_of([])).encode()),
    )


@pytest.mark.parametrize(
    "junk", [{"platform": [1]}, {"annotations": [1]}, {"annotations": {NAMED: 7}}]
)
async def test_a_layout_that_tells_things_of_another_kind_is_refused(
    catalogue: Catalogue, tmp_path: Path, junk: dict[str, Any]
) -> None:
    path = layout(tmp_path / "a", [layer(entry("a", b"1"))])
    index = json.loads((path / "index.json").read_text())
    index["manifests"][0] |= junk
    (path / "index.json").write_text(json.dumps(index))
    assert "something of another kind" in await refused(catalogue, path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no tar archive"),
        (b"no archive at all", "is no tar archive"),
        (gzip.compress(b"x" * 2000, mtime=0), "is no tar archive"),
        (layer(entry("manifest.json", b"{")), "is no JSON"),
        (layer(entry("manifest.json", b"[{}]")), "has no 'Config'"),
        (layer(entry("manifest.json", b"[]")), "holds 0 images"),
        (layer(entry("manifest.json", b'[{"Config":"c","Layers":[]}]')), "no file 'c'"),
        (save_of_junk(RepoTags=7), "something of another kind"),
        (save_of_junk(RepoTags=[None]), "something of another kind"),
        (layer(link("manifest.json", "manifest.json")), "no file 'manifest.json'"),
        (layer(entry("other", b"")), "neither an OCI layout"),
    ],
    ids=[
        "nothing",
        "a text",
        "a packed text",
        "a broken manifest",
        "a manifest without a configuration",
        "no images",
        "a configuration that is not there",
        "names that are a number",
        "a name that is none",
        "a manifest that is a link",
        "another archive",
    ],
)
async def test_what_is_no_image_is_refused(
    catalogue: Catalogue, tmp_path: Path, content: bytes, told: str
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    await catalogue.list()
    assert told in await refused(catalogue, path)


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (b"(\xb5/\xfd" + b"x" * 100, "compressed with zstd"),
        (gzip.compress(layer(entry("a", os.urandom(5000))))[:-2000], "cannot be decompressed"),
        (layer(entry("a", b"1" * 5000))[:1024], "no whole tar archive"),
        (b"x" * 2000, "no whole tar archive"),
        (layer(entry("a", b"1"))[:1024] + b"x" * 1024, "damaged header"),
        (layer(entry("a", b"1"))[:1024] + b"x" * 100, "damaged header"),
    ],
    ids=["zstd", "packed and cut off", "cut off", "no archive", "more after it", "rest after it"],
)
async def test_a_broken_layer_is_refused(
    catalogue: Catalogue, tmp_path: Path, broken: bytes, told: str
) -> None:
    assert told in await refused(catalogue, save(tmp_path / "a.tar", [broken]))


async def test_a_layer_may_end_without_a_mark(catalogue: Catalogue, tmp_path: Path) -> None:
    one = layer(entry("a", b"1" * 512), entry("b", b"1"))[:2048]
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [one]))
    assert files(image.root) == {"a", "b"}


async def test_a_sparse_file_is_whole(catalogue: Catalogue, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    made = tmp_path / "layer.tar"
    subprocess.run(["tar", "--sparse", "-C", tmp_path, "-cf", made, "sparse"], check=True)
    assert made.stat().st_size < 100_000
    image = await catalogue.import_archive(save(tmp_path / "a.tar", [made.read_bytes()]))
    assert (image.root / "sparse").read_bytes() == sparse.read_bytes()
    assert image.size_bytes == 3_000_003


@pytest.mark.attack
async def test_a_layer_that_goes_on_without_end_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    endless = gzip.compress(layer(entry("a", b"1")) + bytes(70 * 1024 * 1024), 1)
    assert "without end" in await refused(catalogue, save(tmp_path / "a.tar", [endless]))


@pytest.mark.attack
async def test_a_header_that_would_fill_the_memory_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    evil = layer(entry("x", b"1" * 2_000_000, kind=tarfile.GNUTYPE_LONGNAME))
    assert "has a header of 2000000 bytes" in await refused(
        catalogue, save(tmp_path / "a.tar", [evil])
    )


async def test_one_of_several_images_is_chosen_by_its_name(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    parts = []
    for number in (1, 2):
        layers = [layer(entry(f"file-{number}", b"1"))]
        text = json.dumps(config_of(layers)).encode()
        parts += [(f"{sha256(text)[7:]}.json", text), (f"{number}.tar", layers[0])]
    manifest = [
        {"Config": parts[0][0], "RepoTags": ["a:1"], "Layers": ["1.tar"]},
        {"Config": parts[2][0], "RepoTags": ["a:2", "b:2"], "Layers": ["2.tar"]},
    ]
    parts.append(("manifest.json", json.dumps(manifest).encode()))
    path = tmp_path / "a.tar"
    path.write_bytes(layer(*(entry(name, data) for name, data in parts)))

    assert "holds 2 images (a:1, a:2, b:2)" in await refused(catalogue, path, "c")
    image = await catalogue.import_archive(path, name="b:2")
    assert files(image.root) == {"file-2"}


async def test_one_of_several_images_is_chosen_by_its_tag(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    """Other tools write no more than the tag into a layout."""
    layout(tmp_path / "a", [layer(entry("file-1"))])
    layout(tmp_path / "b", [layer(entry("file-2"))])
    manifests = []
    for name, tag in (("a", "1"), ("b", "2")):
        told = json.loads((tmp_path / name / "index.json").read_text())["manifests"][0]
        told["annotations"] = {"org.opencontainers.image.ref.name": tag}
        manifests.append(told)
    for blob in (tmp_path / "b/blobs/sha256").iterdir():
        (tmp_path / "a/blobs/sha256" / blob.name).write_bytes(blob.read_bytes())
    (tmp_path / "a/index.json").write_text(json.dumps({"manifests": manifests}))

    assert "holds 2 images (1, 2)" in await refused(catalogue, tmp_path / "a", "thing:3")
    image = await catalogue.import_archive(tmp_path / "a", name="thing:2")
    assert files(image.root) == {"file-2"}
    image = await catalogue.import_archive(tmp_path / "a", name="other:1")
    assert files(image.root) == {"file-1"}


async def test_of_an_image_for_many_machines_the_one_for_this_is_taken(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    path = layout(tmp_path / "a", [layer(entry("here"))])
    mine = json.loads((path / "index.json").read_text())["manifests"][0] | {
        "platform": {"os": "linux", "architecture": machine()}
    }
    other = {"digest": sha256(b"nowhere"), "platform": {"os": "linux", "architecture": "s390x"}}
    index = json.dumps({"manifests": [other, mine]}).encode()
    (path / "blobs/sha256" / sha256(index)[7:]).write_bytes(index)
    told = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": sha256(index),
        "annotations": {"io.containerd.image.name": "docker.io/library/many:1"},
    }
    (path / "index.json").write_text(json.dumps({"manifests": [told]}))
    image = await catalogue.import_archive(path)
    assert image.name == "many:1"
    assert files(image.root) == {"here"}


async def test_an_index_nested_without_end_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    path = layout(tmp_path / "a", [layer(entry("here"))])
    index = json.loads((path / "index.json").read_text())
    for _ in range(5):
        text = json.dumps(index).encode()
        (path / "blobs/sha256" / sha256(text)[7:]).write_bytes(text)
        kind = "application/vnd.oci.image.index.v1+json"
        index = {"manifests": [{"mediaType": kind, "digest": sha256(text)}]}
    (path / "index.json").write_text(json.dumps(index))
    assert "nested without end" in await refused(catalogue, path)


async def test_many_imports_of_one_name_at_once_leave_one_whole_image(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path / "images", in_use=lambda _root: ())
    paths = [
        save(tmp_path / f"{number}.tar", [layer(*(entry(f"{number}-{n}") for n in range(50)))])
        for number in range(6)
    ]
    seen: list[int] = []

    async def look() -> None:
        while len(seen) < 200:
            try:
                seen.append(len(files((await catalogue.find("thing:1")).root)))
            except (Unusable, FileNotFoundError):
                seen.append(50)  # not there yet, or replaced while it was looked at
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    images = await asyncio.gather(*(catalogue.import_archive(path) for path in paths))
    await looking
    left = await catalogue.find("thing:1")
    assert left in images
    assert len(files(left.root)) == 50
    assert [each.name for each in (tmp_path / "images/roots").iterdir()] == [left.root.parent.name]
    assert not list((tmp_path / "images/incoming").iterdir())


async def test_an_import_given_up_leaves_nothing(catalogue: Catalogue, tmp_path: Path) -> None:
    many = layer(*(entry(f"f{number}") for number in range(20_000)))
    path = save(tmp_path / "a.tar", [many])
    importing = asyncio.create_task(catalogue.import_archive(path))
    while not list((tmp_path / "images").glob("incoming/*/rootfs/*")):
        await asyncio.sleep(0.001)
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    async with asyncio.timeout(30):
        while list((tmp_path / "images/incoming").iterdir()):
            await asyncio.sleep(0.01)
    assert not list((tmp_path / "images/names").iterdir())


async def test_a_layer_nested_too_deep_is_refused(catalogue: Catalogue, tmp_path: Path) -> None:
    deep = layer(entry("/".join("d" * 129)))
    assert "more than 128 levels" in await refused(catalogue, save(tmp_path / "a.tar", [deep]))
    long_way = "/".join(["d"] * 100)
    by_links = layer(
        entry(f"{long_way}/x"), link("l", long_way), entry("l/" + "/".join(["e"] * 100))
    )
    assert "more than 128 levels" in await refused(catalogue, save(tmp_path / "b.tar", [by_links]))


def sparse_of(size_bytes: int, content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    """A file of GNU's newer sparse form, whose map stands before its content."""
    headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(size_bytes), "GNU.sparse.name": "sparse",
    }  # fmt: skip
    return entry("sparse", content, pax_headers=headers)


async def test_a_sparse_files_map_cannot_fill_the_memory(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    count = 2_000_000
    bomb = layer(sparse_of(1, f"{count}\n".encode() + b"0\n" * 2 * count))
    told = await refused(catalogue, layout(tmp_path / "a", [bomb]))
    assert "a sparse file's map has more than" in told


async def test_headers_that_hold_for_all_that_follows_cannot_fill_the_memory(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    def global_header(number: int) -> bytes:
        info, _ = entry("x")
        return info.create_pax_global_header({f"key{number}": "v" * 30_000})

    bomb = b"".join(global_header(each) + layer(entry(f"f{each}"))[:512] for each in range(5))
    told = await refused(catalogue, save(tmp_path / "a.tar", [bomb + bytes(1024)]))
    assert "global headers of more than" in told


@pytest.mark.parametrize("size", ["-1", "-511", "-100000"])
async def test_a_file_of_less_than_nothing_is_refused(
    catalogue: Catalogue, tmp_path: Path, size: str
) -> None:
    """It would give back room, and send a reader back to where it was."""
    liar = layer(entry(".wh.x", pax_headers={"size": size}))
    assert "bytes" in await refused(catalogue, save(tmp_path / "a.tar", [liar]))
    outer = layer(entry("manifest.json", pax_headers={"size": size}))
    (tmp_path / "b.tar").write_bytes(outer)
    assert await refused(catalogue, tmp_path / "b.tar")


async def test_an_archive_of_files_without_end_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    one = layer(entry("f"))[:512]
    (tmp_path / "a.tar").write_bytes(one * 60_000 + bytes(1024))
    assert "more than 50000 files" in await refused(catalogue, tmp_path / "a.tar")


async def test_an_archive_of_images_without_end_is_refused(
    catalogue: Catalogue, tmp_path: Path
) -> None:
    path = layout(tmp_path / "a", [layer(entry("f"))])
    index = json.loads((path / "index.json").read_text())
    index["manifests"] *= 300
    (path / "index.json").write_text(json.dumps(index))
    assert "more than 200 images" in await refused(catalogue, path)
