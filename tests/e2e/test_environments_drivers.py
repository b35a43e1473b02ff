"""The whole product on an engine and on a cluster: settings, REST, files, terminals, a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.integration.environments.container.podman import IMAGE, Podman
from tests.integration.environments.kubernetes.standin import standing_in
from tests.live import Api, ServerProcess

ENVIRONMENTS = "/api/v1/environments"
RESOURCES = {"cpu": "1", "memory": "256Mi", "storage": "64Mi"}
SCRIPT = "trap 'exit 0' TERM; echo ready; echo of:$SECRET >&2; while :; do sleep 0.05; done"


def server_on(folder: Path, driver: str, **settings: str) -> ServerProcess:
    return ServerProcess(
        folder / "data",
        STEWARD_ENVIRONMENTS_DRIVER=driver,
        STEWARD_RATES_ENVIRONMENT_CREATION_PER_MINUTE="0",
        STEWARD_RATES_COMMAND_EXECUTION_PER_MINUTE="0",
        **{f"STEWARD_ENVIRONMENTS_{name}": value for name, value in settings.items()},
    )


@asynccontextmanager
async def signed_in(server: ServerProcess) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield await Api(f"http://{server.http_address}", session).sign_in()


async def becomes(admin: Api, environment_id: str, status: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            answer = await admin.call("GET", f"{ENVIRONMENTS}/{environment_id}")
            if answer.status == 200 and answer.body["status"] == status:
                return answer.body
            assert answer.body.get("status") != "failed", answer.body
            await asyncio.sleep(0.05)


async def made(admin: Api, image: str) -> str:
    body = {
        "name": "whole",
        "image": image,
        "resources": RESOURCES,
        "env": {"SECRET": "a-secret"},
        "labels": {"team": "blue"},
        "command": ["sh", "-c", SCRIPT],
    }
    answer = await admin.call("POST", ENVIRONMENTS, body)
    assert answer.status == 201, answer
    environment_id = str(answer.body["id"])
    await becomes(admin, environment_id, "running")
    return environment_id


async def run(admin: Api, environment_id: str, *command: str, **more: Any) -> Any:
    path = f"{ENVIRONMENTS}/{environment_id}/exec"
    answer = await admin.call("POST", path, {"command": command, **more})
    assert answer.status == 200, answer
    return answer.body


async def use_all_of_it(admin: Api, environment_id: str, folder: str) -> None:
    """Commands, logs, a terminal and files, as the seed has them."""
    path = f"{ENVIRONMENTS}/{environment_id}"
    told = await run(admin, environment_id, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (told["stdout"], told["stderr"], told["exit_code"]) == ("out\n", "err\n", 7)
    late = await run(admin, environment_id, "sh", "-c", "echo begun; sleep 60", timeout=1)
    assert (late["timed_out"], late["stdout"]) == (True, "begun\n")

    logs = (await admin.call("GET", f"{path}/logs")).body["logs"]
    assert {"ready", "of:a-secret", "begun"} <= {each["message"] for each in logs}

    async with admin.session.ws_connect(
        f"{admin.base_url}{path}/attach?command=sh", headers=admin.headers
    ) as terminal:
        await terminal.send_json({"type": "stdin", "data": "echo a$((1+1))b; exit 3\n"})
        said, frame = "", dict[str, Any](type="")
        while frame["type"] != "exit":
            frame = await terminal.receive_json(timeout=20)
            said += frame.get("data", "")
        assert "a2b" in said
        assert frame["exit_code"] == 3

    content = bytes(range(256)) * 40
    file = f"{path}/files/content?path={folder}/some.bin"
    async with admin.session.put(
        f"{admin.base_url}{file}", data=content, headers=admin.headers
    ) as answer:
        assert answer.status in (200, 201), await answer.text()
    async with admin.session.get(f"{admin.base_url}{file}", headers=admin.headers) as answer:
        assert await answer.read() == content
    listed = (await admin.call("GET", f"{path}/files?path={folder}")).body
    assert "some.bin" in str(listed)
    processes = (await admin.call("GET", f"{path}/processes")).body["processes"]
    assert any("trap" in each["command"] for each in processes)


async def test_an_engine_serves_environments_and_keeps_them_over_a_restart(
    podman: Podman, tmp_path: Path
) -> None:
    server = server_on(tmp_path, "container", CONTAINER_ENGINE=podman.url)
    await server.start()
    try:
        async with signed_in(server) as admin:
            health = (await admin.call("GET", "/api/v1/health")).body
            assert (health["status"], health["environments"]["driver"]) == ("healthy", "container")
            assert health["environments"]["backend"].startswith("podman ")
            wanted = {"name": "none", "image": "not-there:1", "resources": RESOURCES}
            unknown = await admin.call("POST", ENVIRONMENTS, wanted)
            assert unknown.status == 400
            assert IMAGE in unknown.body["message"]
            images = (await admin.call("GET", "/api/v1/images")).body
            assert IMAGE in str(images)
            kept = await made(admin, IMAGE)
            await use_all_of_it(admin, kept, "/workspace")
        server.kill()
        await server.start()
        async with signed_in(server) as admin:
            assert (await becomes(admin, kept, "running"))["metrics"]["process_count"] >= 1
            assert (await run(admin, kept, "sh", "-c", "wc -c < some.bin"))["stdout"].strip() == (
                "10240"
            )
            paused = await admin.call("POST", f"{ENVIRONMENTS}/{kept}/pause", {})
            assert (paused.status, paused.body["paused"]) == (200, True)
            assert (await admin.call("DELETE", f"{ENVIRONMENTS}/{kept}")).status == 204
            assert (await admin.call("GET", f"{ENVIRONMENTS}/{kept}")).status == 404
    finally:
        server.stop()
    assert list((server.data_dir / "environments" / "container" / "machines").iterdir()) == []


async def test_an_engine_that_comes_after_its_server_is_taken_up(
    podman: Podman, tmp_path: Path
) -> None:
    socket = tmp_path / "engine.sock"
    server = server_on(tmp_path, "container", CONTAINER_ENGINE=f"unix://{socket}")
    await server.start()
    try:
        async with signed_in(server) as admin:
            health = (await admin.call("GET", "/api/v1/health")).body
            assert health["status"] == "degraded"
            assert "podman system service" in health["environments"]["reason"]
            wanted = {"name": "none", "image": IMAGE, "resources": RESOURCES}
            refused = await admin.call("POST", ENVIRONMENTS, wanted)
            assert refused.status == 503
            socket.symlink_to(podman.socket)
            async with asyncio.timeout(20):
                while (await admin.call("GET", "/api/v1/health")).body["status"] != "healthy":
                    await asyncio.sleep(0.2)
    finally:
        server.stop()


async def test_a_cluster_serves_environments(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    async with standing_in(folder) as (cluster, kubeconfig):
        server = server_on(
            tmp_path,
            "kubernetes",
            KUBERNETES_CONFIG=str(kubeconfig),
            KUBERNETES_CLUSTER_RANGES="11.77.0.0/16",
        )
        await server.start()
        try:
            async with signed_in(server) as admin:
                health = (await admin.call("GET", "/api/v1/health")).body
                assert health["kubernetes"] == {"connected": True, "version": "v1.36.1"}
                assert health["capacity"]["total_nodes"] == 3
                made_id = await made(admin, "python:3.11-slim")
                pod = cluster.find("pods", f"agentbox-{made_id}")
                assert pod is not None
                assert "blue" in pod["metadata"]["labels"].values()
                await use_all_of_it(admin, made_id, str(tmp_path))
                images = await admin.call("GET", "/api/v1/images")
                assert images.status == 409
                paused = await admin.call("POST", f"{ENVIRONMENTS}/{made_id}/pause", {})
                assert paused.status == 409
                assert "kubernetes" in paused.body["message"]
                deleted = await admin.call("DELETE", f"{ENVIRONMENTS}/{made_id}?force=true")
                assert deleted.status == 204
                assert cluster.all_of("pods") == []
        finally:
            await asyncio.to_thread(server.stop)
        assert cluster.schema_faults == []
