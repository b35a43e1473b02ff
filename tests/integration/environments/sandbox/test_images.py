"""What machines are made from: an image is a stranger's, and so are its links, users and owners."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import SecurityContext
from steward_server.environments.images.image import Image
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, spec, traces, until
from tests.missing import missing


class Shown:
    """A catalogue of one image, whose programs are the host's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.user = ""

    async def find(self, name: str) -> Image:
        return Image(
            name=name,
            digest="sha256:0",
            root=self.root,
            user=self.user,
            working_dir="/srv",
            binds=tuple((Path(path), path) for path in ("/usr",)),
        )

    @asynccontextmanager
    async def held(self, name: str, *, by: str) -> AsyncIterator[Image]:
        yield await self.find(name)

    async def add_snapshot(
        self, name: str, base: Image, upper: Path, *, first_id: int = 0
    ) -> Image:
        raise NotImplementedError


@pytest.fixture
def image(tmp_path: Path) -> Shown:
    root = tmp_path / "root"
    for name in ("etc", "srv", "usr"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:777:778::/srv:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nstaff:x:50:\n")
    (root / "etc/shadow").write_text("secret of the image")
    (root / "etc/shadow").chmod(0o600)
    os.chown(root / "srv", 777, 778)
    return Shown(root)


@pytest.fixture
async def shown(image: Shown, tmp_path: Path) -> AsyncIterator[Machines]:
    driver = SandboxDriver(tmp_path / "sandbox", image)
    await driver.open()
    if driver.capabilities().unusable:
        missing(f"machines cannot be made here: {driver.capabilities().unusable}")
    try:
        yield Machines(driver)
    finally:
        await Machines(driver).clear()
        await driver.aclose()
        await until(lambda: not traces(tmp_path / "sandbox"))


@pytest.mark.parametrize(
    ("user", "runs_as"),
    [
        ("", "1000 1000 /workspace"),
        ("app", "777 778 /srv"),
        ("app:staff", "777 50 /srv"),
        ("777", "777 778 /srv"),
        ("5:6", "5 6 /workspace"),
        ("root", "0 0 /root"),
    ],
)
async def test_commands_run_as_the_image_says(
    shown: Machines, image: Shown, user: str, runs_as: str
) -> None:
    image.user = user
    name = await shown.make()

    assert (await shown.sh(name, "echo $(id -u) $(id -g) $HOME")).stdout == f"{runs_as}\n"


async def test_an_environment_may_want_another_user(shown: Machines, image: Shown) -> None:
    image.user = "app"
    name = await shown.make(replace(spec(), security=SecurityContext(run_as_user=5)))

    assert (await shown.sh(name, "echo $(id -u) $(id -g)")).stdout == "5 5\n"


async def test_a_user_that_the_image_does_not_know_is_refused(
    shown: Machines, image: Shown
) -> None:
    image.user = "nobody"

    with pytest.raises(Unusable) as refusal:
        await shown.make()

    assert refusal.value.reason == "UNKNOWN_USER"


async def test_files_belong_inside_to_whom_they_belong_in_the_image(
    shown: Machines, image: Shown
) -> None:
    image.user = "app"
    name = await shown.make()

    ran = await shown.sh(name, "stat -c %u:%g /srv /etc/passwd; pwd; touch mine; cat /etc/shadow")
    assert ran.stdout == "777:778\n0:0\n/srv\n"
    assert "Permission denied" in ran.stderr
    assert not (image.root / "srv/mine").exists()

    as_root = await shown.run(name, "cat", "/etc/shadow", user=0)
    assert as_root.stdout == "secret of the image"


async def test_an_image_stays_as_it_was(shown: Machines, image: Shown) -> None:
    image.user = "root"
    name = await shown.make()
    assert (await shown.sh(name, "echo x >> /etc/passwd; rm /etc/group; mkdir /new")).code == 0
    before = (image.root / "etc/passwd").read_text()

    another = await shown.make()

    assert (await shown.sh(another, "tail -n 1 /etc/passwd; ls -d /new /etc/group")).stdout == (
        "app:x:777:778::/srv:/bin/sh\n/etc/group\n"
    )
    assert (image.root / "etc/passwd").read_text() == before


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("tmp", "{outside}"),
        ("workspace", "{outside}"),
        ("proc", "{outside}"),
        ("dev", "{outside}"),
        ("dev", "../../../../../../../..{outside}"),
        ("usr", "{outside}"),
        ("etc/hosts", "{outside}/hosts"),
        ("etc/hostname", "/proc/1/root{outside}/hosts"),
        ("proc", "/etc"),
    ],
)
async def test_links_of_an_image_lead_no_mount_and_no_file_out_of_it(
    shown: Machines,
    image: Shown,
    tmp_path: Path,
    place: str,
    target: str,
    *,
    read_only: bool,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if (image.root / place).is_dir():
        (image.root / place).rmdir()
    (image.root / place).symlink_to(target.replace("{outside}", str(outside)))
    mounts = Path("/proc/self/mountinfo").read_text()
    wanted = replace(spec(), security=SecurityContext(read_only_root_filesystem=read_only))

    with suppress(Unusable):  # or the machine is refused, for its image makes no sense
        name = await shown.make(wanted)
        assert (await shown.run(name, "echo", "fine")).stdout == "fine\n"

    assert list(outside.iterdir()) == []
    assert Path("/proc/self/mountinfo").read_text() == mounts


@pytest.mark.parametrize("is_pipe", [True, False])
async def test_what_an_image_has_in_the_place_of_a_file_keeps_no_machine_from_being_made(
    shown: Machines, image: Shown, *, is_pipe: bool
) -> None:
    if is_pipe:
        os.mkfifo(image.root / "etc/hosts")
    else:
        shutil.rmtree(image.root / "etc")
        (image.root / "etc").write_text("no folder")

    async with asyncio.timeout(10):
        name = await shown.make()

    assert (await shown.sh(name, "test -p /etc/hosts || test -f /etc")).code == 0
