from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest

from steward_server.environments.container import request
from steward_server.environments.container.images import EngineImage
from steward_server.environments.driver import Command, Unusable
from steward_server.environments.environment import (
    NetworkPolicy,
    Resources,
    SecurityContext,
    Spec,
)
from steward_server.environments.sandbox.limits import limits

IMAGE = EngineImage("python:3.11", "sha256:0", 1, 0)
SPEC = Spec("python:3.11", Resources(500, 256 << 20, 64 << 20), command=("sh", "-c", "x"))
DOCKER = request.Wanted(
    "env-1", "steward-abc", "{}", 16 << 20, is_podman=False, is_disk_held=False,
    most_open_files=1 << 30, most_processes_of_user=1 << 30,
)  # fmt: skip


def body(spec: Spec = SPEC, image: EngineImage = IMAGE, wanted: request.Wanted = DOCKER) -> dict:  # type: ignore[type-arg]
    return request.container(spec, image, limits(spec.resources, process_count=64), wanted)


def test_everything_is_said_to_the_engine() -> None:
    host = body()["HostConfig"]

    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp={}"]
    assert host["Memory"] == host["MemorySwap"] == 256 << 20
    assert (host["CpuPeriod"], host["CpuQuota"]) == (100_000, 50_000)
    assert host["PidsLimit"] == 65
    assert host["NetworkMode"] == "none"
    assert {each["Name"]: each["Hard"] for each in host["Ulimits"]} == {
        "nofile": 16_384, "nproc": 32_768, "core": 1,
    }  # fmt: skip
    assert all(f"size={64 << 20}" in each for each in host["Tmpfs"].values())
    assert "/proc/kcore" in host["MaskedPaths"]
    assert "StorageOpt" not in host
    assert "Runtime" not in host


def test_podman_is_told_in_its_own_words() -> None:
    host = body(wanted=replace(DOCKER, is_podman=True, seccomp="/f.json"))["HostConfig"]

    assert host["SecurityOpt"][1] == "seccomp=/f.json"
    assert host["SecurityOpt"][2].startswith("mask=/proc/")
    assert host["LogConfig"]["Type"] == "k8s-file"


def test_limits_of_the_server_are_not_exceeded() -> None:
    host = body(wanted=replace(DOCKER, most_open_files=1000, most_processes_of_user=500))

    named = {each["Name"]: each for each in host["HostConfig"]["Ulimits"]}
    assert named["nofile"] == {"Name": "nofile", "Soft": 1000, "Hard": 1000}
    assert named["nproc"]["Hard"] == 500


def test_a_disk_that_is_held_is_asked_for_and_a_runtime_too() -> None:
    wanted = replace(DOCKER, is_disk_held=True)
    host = body(replace(SPEC, runtime_class="runc"), wanted=wanted)["HostConfig"]

    assert host["StorageOpt"] == {"size": str(64 << 20)}
    assert host["Runtime"] == "runc"


def test_a_network_is_ours_and_not_the_engines() -> None:
    told = body(wanted=replace(DOCKER, resolv_conf="/data/resolv.conf"))

    assert told["HostConfig"]["NetworkMode"] == "none"
    (mount,) = told["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"], mount["ReadOnly"]) == (
        "/data/resolv.conf", "/etc/resolv.conf", True,
    )  # fmt: skip
    assert request.kept(told["Labels"]).has_network


def test_labels_tell_what_a_restarted_server_needs() -> None:
    spec = replace(
        SPEC,
        network=NetworkPolicy(allowed_ingress_ports=(80, 8080)),
        security=SecurityContext(run_as_non_root=True),
    )
    told = body(spec)

    assert told["Labels"][request.OWNER] == "steward-abc"
    assert request.kept(told["Labels"]) == request.Kept(
        "env-1", (80, 8080), must_not_be_root=True, has_network=False, storage_bytes=64 << 20
    )


def test_a_read_only_root_leaves_room_to_work_in() -> None:
    told = body(replace(SPEC, security=SecurityContext(read_only_root_filesystem=True)))

    assert told["HostConfig"]["ReadonlyRootfs"]
    assert set(told["HostConfig"]["Tmpfs"]) == {"/tmp", "/var/tmp", "/workspace"}


def test_the_images_own_entry_point_does_not_stand_before_the_command() -> None:
    told = body(image=replace(IMAGE, command=("/entry",)))

    assert (told["Entrypoint"], told["Cmd"]) == (["sh"], ["-c", "x"])


@pytest.mark.parametrize(
    ("of_image", "context", "user"),
    [
        ("", {}, "1000:1000"),
        ("5", {}, "5:5"),
        ("5:6", {}, "5:6"),
        ("app", {}, "app"),
        ("app:staff", {}, "app:staff"),
        ("app", {"run_as_user": 7}, "7:7"),
        ("5:6", {"run_as_group": 8}, "5:8"),
        ("", {"run_as_user": 0}, "0:0"),
        ("", {"run_as_non_root": True}, "1000:1000"),
    ],
)
def test_who_commands_run_as(of_image: str, context: dict[str, int], user: str) -> None:
    spec = replace(SPEC, security=SecurityContext(**context))  # type: ignore[arg-type]

    assert request.user_of(replace(IMAGE, user=of_image), spec) == user


@pytest.mark.parametrize(
    ("of_image", "context", "reason"),
    [
        ("", {"run_as_user": 65_535}, "BAD_USER"),
        ("", {"run_as_group": 65_535}, "BAD_USER"),
        ("0", {"run_as_non_root": True}, "RUN_AS_NON_ROOT"),
        ("app", {"run_as_non_root": True}, "UNKNOWN_USER"),
    ],
)
def test_who_commands_may_not_run_as(of_image: str, context: dict[str, int], reason: str) -> None:
    spec = replace(SPEC, security=SecurityContext(**context))  # type: ignore[arg-type]

    with pytest.raises(Unusable) as refusal:
        request.user_of(replace(IMAGE, user=of_image), spec)

    assert refusal.value.reason == reason


def test_a_command_is_asked_for_with_its_terminal() -> None:
    plain = request.command(Command(("ls",), user=5), working_dir="/workspace")
    tty = request.command(Command(("sh",), tty=(80, 24), working_dir="/tmp"), working_dir="/w")

    assert (plain["User"], plain["WorkingDir"], plain["Tty"]) == ("5:5", "/workspace", False)
    assert (tty["ConsoleSize"], tty["WorkingDir"], tty["Tty"]) == ([24, 80], "/tmp", True)
    assert "TERM=xterm-256color" in tty["Env"]
    assert not tty["AttachStderr"]


def test_the_archive_of_a_folder_has_its_owner_and_no_padding() -> None:
    content = request.folder_archive("/workspace", "5:6")

    assert len(content) == 3 * 512
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        (folder,) = archive.getmembers()
    assert (folder.name, folder.uid, folder.gid, folder.isdir()) == ("workspace", 5, 6, True)
