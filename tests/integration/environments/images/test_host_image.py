"""The built-in image: the machine's own programs, as somebody inside meets them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Unusable
from steward_server.environments.images import host
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.images.image import Image
from tests.e2e.agentbox.wheels import write_wheel

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and change its root")

OWN = ".".join(map(str, sys.version_info[:3]))
MINOR = f"3.{sys.version_info.minor}"


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "images")


def inside(image: Image, *command: str, user: str = "") -> subprocess.CompletedProcess[str]:
    """Run something in an image, with nothing but its root and what it binds."""
    root = str(image.root)
    binds = [("/dev", "/dev"), *image.binds]
    mounts = "".join(
        f'mount --bind "{source}" "{root}{target}" && mount -o remount,bind,ro "{root}{target}" && '
        for source, target in binds
    )
    script = f'{mounts} exec chroot --userspec={user or image.user} "{root}" "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh", *command],
        check=False,
        env=dict(image.env),
        capture_output=True,
        text=True,
        timeout=20,
    )


@pytest.mark.parametrize(
    "name",
    [
        "host",
        "python",
        "python:3",
        f"python:{MINOR}",
        f"python:{MINOR}-slim",
        f"python:{OWN}",
        f"python:{OWN}-slim",
        "docker.io/library/python:latest",
    ],
)
async def test_a_python_of_this_machine_answers_to_its_names(
    catalogue: Catalogue, name: str
) -> None:
    image = await catalogue.find(name)
    assert image.is_host
    assert image.user == "1000:1000"
    assert (Path("/usr"), "/usr") in image.binds


@pytest.mark.parametrize(
    "name",
    ["python:2", "python:3.1", "python:3.99", "python:3.11-alpine", "python:3.11.99", "debian"],
)
async def test_what_is_not_here_is_refused_with_a_list_of_what_is(
    catalogue: Catalogue, name: str
) -> None:
    with pytest.raises(Unusable) as told:
        await catalogue.find(name)
    assert told.value.reason == "UNKNOWN_IMAGE"
    assert f"{name!r}" in str(told.value)
    assert "host, python:3." in str(told.value)
    assert f"steward image import <archive> --name {name}" in str(told.value)


@pytest.mark.parametrize("name", ["", "UPPER", "a b", "../x", "a//b", "x:", "a" * 600, "x\0y"])
async def test_what_is_no_name_is_said_so(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(Unusable) as told:
        await catalogue.find(name)
    assert told.value.reason == "BAD_IMAGE_NAME"


@as_root
async def test_python_is_found_on_the_path_inside(catalogue: Catalogue) -> None:
    for image in await catalogue.list():
        if not image.name.startswith("python:"):
            continue
        ask = "import sys, ssl, json; print('.'.join(map(str, sys.version_info[:3])))"
        for command in ("python", "python3"):
            answer = inside(image, command, "-c", ask)
            assert answer.stdout.strip() == image.name.removeprefix("python:"), answer.stderr


@as_root
async def test_pip_is_found_where_this_servers_python_has_one(catalogue: Catalogue) -> None:
    image = await catalogue.find(f"python:{OWN}")
    if not (Path(sys.base_prefix) / "bin" / f"pip{MINOR}").exists():
        pytest.skip("this Python came without pip")
    assert f"(python {MINOR})" in inside(image, "pip", "--version").stdout


@as_root
async def test_packages_of_a_folder_are_found_by_pip_without_a_network(tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "a_small_package")
    image = await Catalogue(tmp_path / "images", wheels=tmp_path / "wheels").find("python")
    assert inside(image, "ls", "/opt/wheels").stdout == "a_small_package-0.1-py3-none-any.whl\n"
    if not (Path(sys.base_prefix) / "bin" / f"pip{MINOR}").exists():
        pytest.skip("this Python came without pip")
    alone = replace(image, env={**image.env, **image.env_alone})
    found = inside(alone, "pip", "install", "--dry-run", "a-small-package")
    assert "Would install a_small_package-0.1" in found.stdout, found.stderr
    assert inside(alone, "pip", "install", "--dry-run", "another").returncode == 1


@as_root
async def test_inside_is_a_whole_small_system_with_a_user(catalogue: Catalogue) -> None:
    image = await catalogue.find("host")
    script = (
        "id -un; id -gn; echo ~; getent hosts localhost | head -1; ls -d /tmp /workspace /proc; "
        "awk 'BEGIN{print 6*7}'; touch /tmp/x && rm /tmp/x && echo writable"
    )
    answer = inside(image, "sh", "-c", script)
    assert answer.stderr == ""
    lines = answer.stdout.split("\n")
    assert lines[:3] == ["agent", "agent", "/home/agent"]
    assert "localhost" in lines[3]
    assert lines[4:7] == ["/proc", "/tmp", "/workspace"]
    assert lines[7:9] == ["42", "writable"]


@as_root
async def test_certificates_are_found_inside(catalogue: Catalogue) -> None:
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        pytest.skip("this machine has no certificates")
    image = await catalogue.find("python")
    ask = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 10)"
    assert inside(image, "python", "-c", ask).stdout.strip() == "True"


@as_root
async def test_nothing_of_the_hosts_own_files_is_inside(catalogue: Catalogue) -> None:
    image = await catalogue.find("host")
    for path in ("/etc/shadow", "/etc/gshadow", "/etc/ssl/private", "/etc/ssh", "/etc/hostname"):
        assert not (image.root / path.lstrip("/")).exists()
    for command in (["touch", "/usr/x"], ["sh", "-c", ": > /etc/passwd"], ["ls", "/root"]):
        assert inside(image, *command).returncode != 0
    names = {each.name for each in (image.root / "home").iterdir()}
    assert names == {"agent"}


async def test_the_frame_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = await Catalogue(tmp_path / "images").find("host")
    second = await Catalogue(tmp_path / "images").find("host")
    assert first == second
    assert len(list((tmp_path / "images/host").iterdir())) == 1


def test_a_frame_has_its_name_once_it_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def synced(root: Path) -> None:
        assert (root / "rootfs/etc/passwd").read_bytes()
        raise OSError(errno.EIO, "the disk has lost it")

    monkeypatch.setattr(host, "sync", synced)
    with pytest.raises(OSError, match="lost it"):
        host.make(tmp_path / "host", interpreters=())
    assert list((tmp_path / "host").iterdir()) == []


def test_a_system_whose_usr_is_not_merged_has_its_folders_bound(tmp_path: Path) -> None:
    system = tmp_path / "system"
    for name in ("bin", "lib", "usr/bin", "etc/ssl/private", "etc/ssl/certs"):
        (system / name).mkdir(parents=True)
    (system / "bin/sh").touch()
    (system / "etc/ssl/private/key").write_text("secret")
    (system / "etc/services").write_text("ssh 22/tcp\n")
    (system / "etc/protocols").write_text("x")
    (system / "etc/protocols").chmod(0o600)
    made = host.make(tmp_path / "frames", system=system, interpreters=[])
    assert made is not None
    image = made.find("host")
    assert image is not None
    assert {target for _, target in image.binds} == {"/usr", "/bin", "/lib"}
    assert (image.root / "etc/services").read_text() == "ssh 22/tcp\n"
    assert not (image.root / "etc/protocols").exists()
    assert not (image.root / "etc/ssl/private").exists()
    assert made.find("python") is None


def test_a_system_without_a_shell_has_no_host_image(tmp_path: Path) -> None:
    assert host.make(tmp_path / "frames", system=tmp_path, interpreters=[]) is None


def test_a_python_outside_usr_is_bound_where_it_is(tmp_path: Path) -> None:
    prefix = tmp_path / "opt/python"
    python = host.Interpreter((3, 12, 1), prefix / "bin/python3.12", prefix)
    made = host.make(tmp_path / "frames", interpreters=[python])
    assert made is not None
    image = made.find("python:3.12")
    assert image is not None
    assert (prefix, str(prefix)) in image.binds
    assert (image.root / str(prefix).lstrip("/")).is_dir()
    assert f"{prefix}/bin" in image.env["PATH"].split(":")


def test_a_python_whose_folder_holds_the_data_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "app"
    (prefix / "bin").mkdir(parents=True)
    (prefix / f"bin/python{MINOR}").touch()
    monkeypatch.setattr(sys, "base_prefix", str(prefix))
    assert prefix in [each.prefix for each in host.find_interpreters()]
    assert prefix not in [each.prefix for each in host.find_interpreters(prefix / "data")]
