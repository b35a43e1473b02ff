"""The whole server, started by an ordinary user with a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

from steward_server.environments.sandbox import SandboxDriver
from tests.e2e import test_environments_drivers as whole


async def test_an_ordinary_user_serves_environments_and_keeps_them_over_a_restart(
    driver: SandboxDriver, tmp_path: Path
) -> None:
    assert os.geteuid() != 0
    assert driver.capabilities().backend == "bubblewrap"
    server = whole.server_on(tmp_path, "sandbox")
    await server.start()
    try:
        async with whole.signed_in(server) as admin:
            told = (await admin.call("GET", "/api/v1/health")).body["environments"]
            assert (told["driver"], told["backend"]) == ("sandbox", "bubblewrap")
            assert told["limits"]["processes"] == "enforced"
            body = {"name": "g", "image": "host", "resources": whole.RESOURCES}
            gvisor = {**body, "isolation": {"runtime_class": "gvisor"}}
            refused = await admin.call("POST", whole.ENVIRONMENTS, gvisor)
            assert refused.status == 400
            assert (
                "runtime_class: is 'gvisor'; this server has bubblewrap" in refused.body["message"]
            )
            kept = await whole.made(admin, "host")
            await whole.use_all_of_it(admin, kept, "/workspace")
        server.kill()
        await server.start()
        async with whole.signed_in(server) as admin:
            assert (await whole.becomes(admin, kept, "running"))["metrics"]["process_count"] >= 1
            script = "wc -c < some.bin"
            counted = await whole.run(admin, kept, "sh", "-c", script)
            assert counted["stdout"].strip() == "10240"
            assert (await admin.call("DELETE", f"{whole.ENVIRONMENTS}/{kept}")).status == 204
    finally:
        server.stop()
    assert list((server.data_dir / "environments" / "machines").iterdir()) == []
