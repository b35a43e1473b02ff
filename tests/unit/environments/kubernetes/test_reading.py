"""What the driver reads out of what a cluster says."""

from __future__ import annotations

from typing import Any

import pytest

from steward_server.environments.driver import Exit
from steward_server.environments.kubernetes import capacity, inside, scripts
from steward_server.environments.kubernetes.channels import Status, status
from steward_server.environments.kubernetes.logs import Lines
from steward_server.environments.kubernetes.states import condition, exit_of


def pod(state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    containers = [{"name": "main", "state": state}] if state else []
    return {
        "metadata": {"name": "main"},
        "spec": {"containers": [{"image": "registry.example/agent:1"}]},
        "status": {"phase": "Pending", "containerStatuses": containers, **more},
    }


def test_a_pod_that_waits_says_for_what() -> None:
    unschedulable = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes",
    }
    assert condition(pod()).waits_for == ""
    assert condition(pod(conditions=[unschedulable])).waits_for == "Unschedulable: 0/3 nodes"
    creating = condition(pod({"waiting": {"reason": "ContainerCreating"}}))
    assert (creating.waits_for, creating.fault, creating.is_running) == (
        "ContainerCreating",
        None,
        False,
    )


def test_a_pull_that_may_yet_succeed_is_waited_for() -> None:
    waiting = {"reason": "ErrImagePull", "message": "connection reset"}
    assert condition(pod({"waiting": waiting})).fault is None


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"waiting": {"reason": "InvalidImageName", "message": "x"}}, "BAD_IMAGE_NAME"),
        ({"waiting": {"reason": "ErrImagePull", "message": "manifest unknown"}}, "UNKNOWN_IMAGE"),
        ({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}, "IMAGE_PULL"),
        ({"waiting": {"reason": "ErrImageNeverPull", "message": ""}}, "UNKNOWN_IMAGE"),
        ({"waiting": {"reason": "CreateContainerConfigError", "message": "x"}}, "CANNOT_START"),
        (
            {"waiting": {"reason": "RunContainerError", "message": "executable file not found"}},
            "NOT_EXECUTABLE",
        ),
        (
            {
                "terminated": {
                    "reason": "StartError",
                    "exitCode": 128,
                    "message": "no such file or directory",
                }
            },
            "NOT_EXECUTABLE",
        ),
    ],
    ids=["name", "unknown", "backoff", "never", "config", "run", "start"],
)  # fmt: skip
def test_a_pod_that_will_not_run_says_why(state: dict[str, Any], reason: str) -> None:
    fault = condition(pod(state)).fault
    assert fault is not None
    assert fault.reason == reason


def test_an_end_by_memory_is_said_to_be_one() -> None:
    state = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    told = condition(pod(state, phase="Failed"))
    assert told.exit == Exit(137, 9)
    assert "memory" in told.remark


def test_a_deadline_is_an_end() -> None:
    told = condition(
        pod(phase="Failed", reason="DeadlineExceeded", message="too long", startTime="x")
    )
    assert (told.exit, told.remark) == (Exit(137, 9), "DeadlineExceeded: too long")


@pytest.mark.parametrize(
    ("code", "exit_"),
    [(0, Exit(0)), (7, Exit(7)), (128, Exit(128)), (143, Exit(143, 15)), (255, Exit(255))],
)
def test_an_exit_code_tells_the_signal_as_far_as_it_can(code: int, exit_: Exit) -> None:
    assert exit_of(code) == exit_


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"status":"Success"}', Status(0)),
        (
            b'{"reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}',
            Status(7),
        ),
        (b'{"reason":"InternalError","message":"no /bin/sh"}', Status(None, "no /bin/sh")),
        (b"gone wrong", Status(None, "gone wrong")),
    ],
    ids=["success", "code", "error", "text"],
)  # fmt: skip
def test_the_status_of_a_command_is_read(content: bytes, told: Status) -> None:
    assert status(content) == told


def test_a_word_is_one_word_on_one_line_whatever_is_in_it() -> None:
    line = scripts.order(
        ["a'b", "c\nd", "$x"],
        token="t",
        mark="steward-m",
        env={},
        working_dir="-dir",
        has_frames=True,
    )
    assert "\n" not in line
    assert "_st_d='./-dir'" in line


def test_processes_are_read_without_the_servers_own() -> None:
    stat = "(a) b) S 1 7 7 0 -1 4194560 0 0 0 0 1 2 0 0 20 0 1 0 5000 1000 25 0"
    ours = f"43 {stat}\n0\nsh steward-helper-1 \n"
    told = f"1700000000\n42 {stat}\n1000\nsleep 9 \n{ours}44 {stat}\n0\n\n"
    found = inside.processes(told.encode())
    assert [(each.pid, each.parent_pid, each.user, each.command) for each in found] == [
        (42, 1, 1000, "sleep 9"),
        (44, 1, 0, "[a) b]"),
    ]
    assert found[0].started_at_us == 1_700_000_050_000_000
    assert found[0].memory_bytes == 25 * 4096


def test_the_room_of_a_cluster_is_what_ready_nodes_have_not_promised() -> None:
    def node(name: str, ready: str = "True", **more: Any) -> dict[str, Any]:
        return {
            "metadata": {"name": name},
            "spec": more,
            "status": {
                "allocatable": {"cpu": "4", "memory": "8Gi"},
                "conditions": [{"type": "Ready", "status": ready}],
            },
        }

    def requests(cpu: str, memory: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu, "memory": memory}}}

    nodes = [node("a"), node("b"), node("c", "Unknown"), node("d", unschedulable=True)]
    pods: list[dict[str, Any]] = [
        {
            "spec": {
                "nodeName": "a",
                "containers": [requests("500m", "1Gi"), requests("250m", "1Gi"), {}],
                "initContainers": [requests("2", "512Mi")],
                "overhead": {"cpu": "100m", "memory": "64Mi"},
            },
            "status": {"phase": "Running"},
        },
        {"spec": {"nodeName": "c", "containers": [requests("4", "8Gi")]}, "status": {}},
        {"spec": {"containers": [requests("4", "8Gi")]}, "status": {"phase": "Pending"}},
    ]
    told = capacity.capacity("v1.36.0", nodes, pods)
    assert told.node_count == 4
    assert told.millicores == 8_000
    assert told.free_millicores == 8_000 - 2_100
    assert told.free_memory_bytes == (16 << 30) - (2 << 30) - (64 << 20)


@pytest.mark.parametrize(
    ("names", "plugin"),
    [(["kube-proxy", "calico-node"], "Calico"), (["kube-flannel-ds"], ""), ([], "")],
    ids=["calico", "flannel", "none"],
)
def test_a_network_plugin_is_known_by_its_name(names: list[str], plugin: str) -> None:
    assert capacity.plugin({"metadata": {"name": each}} for each in names) == plugin


STAMP = b"2026-11-26T12:00:00.123456789Z "
PART_BYTES = 64 * 1024


@pytest.mark.parametrize("chunk_bytes", [997, 70_000, 1_000_000])
@pytest.mark.parametrize(
    "length", [0, 10, 16_384, 16_385, 40_000, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES // 2]
)
@pytest.mark.parametrize("between", [STAMP, b""], ids=["times between", "plain"])
def test_a_long_line_is_cut_and_read_without_the_times_before_its_pieces(
    length: int, chunk_bytes: int, between: bytes
) -> None:
    text = bytes(ord("a") + at % 26 for at in range(length))
    pieces = [text[at : at + 16_384] for at in range(0, length + 1, 16_384)]
    sent = STAMP + between.join(pieces) + b"\n" + STAMP + b"after\n"
    lines = Lines()
    found = [
        each
        for at in range(0, len(sent), chunk_bytes)
        for each in lines.add(sent[at : at + chunk_bytes])
    ]
    time_text = STAMP.decode().strip()
    parts = [text[at : at + PART_BYTES] for at in range(0, max(length, 1), PART_BYTES)]
    assert found == [(time_text, part) for part in [*parts, b"after"]]


def test_what_has_no_end_is_told_in_parts_and_never_held() -> None:
    lines = Lines()
    list(lines.add(STAMP))
    told = [part for _ in range(40) for _, part in lines.add(b"x" * 100_000)]
    assert set(map(len, told)) == {PART_BYTES}
    assert 4_000_000 - sum(map(len, told)) < 2 * PART_BYTES
    assert [(len(part) > 0) for _, part in lines.add(b"\n")] == [True]
