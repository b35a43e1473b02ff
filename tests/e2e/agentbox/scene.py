"""A server with environments in it for every call there is."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steward_server.environments.images.catalogue import Catalogue
from tests.e2e.curl import UPGRADE, curl
from tests.e2e.process import forked, steward, until
from tests.e2e.scene import Scene
from tests.integration.environments.images import archives
from tests.missing import missing

RATES = {"CREATION": 100_001, "EXECUTION": 100_002, "DEFAULT": 100_003, "LOGIN": 100_004}
"""Calls a minute that nobody makes, told apart by the headers that name them."""
BEGIN = "cd /tmp; mkdir -p made kept/deep old/deep; printf hello | tee a.txt b.txt old.txt"
BUSY = "while :; do date > /tmp/now; echo tick; sleep 0.05; done"


class AgentboxScene(Scene):
    """What the tables of AgentBox name beside what every scene has."""

    @property
    def token(self) -> str:
        """The administrator's."""
        return self._admin.removeprefix("Authorization: Bearer ")

    def new_environment_id(self) -> str:
        """One of the administrator's that runs."""
        return self._running()

    def environment_id(self) -> str:
        """One with a main command, lines and files: the call that makes them may run elsewhere."""
        environment_id = self._running(command=["sleep", "3600"])
        begin = {"command": ["sh", "-c", BEGIN]}
        self.post(f"/api/v1/environments/{environment_id}/exec", begin, self._admin)
        return environment_id

    def busy_environment_id(self) -> str:
        """One that writes lines and a file without an end."""
        return self._running(command=["sh", "-c", BUSY])

    def over_environment_id(self) -> str:
        """One whose main command has ended."""
        environment_id = self._running(command=["true"])
        self._becomes(environment_id, "terminated")
        return environment_id

    def new_paused_environment_id(self) -> str:
        environment_id = self._running()
        self.post(f"/api/v1/environments/{environment_id}/pause", {}, self._admin)
        return environment_id

    def shared_environment_id(self) -> str:
        """One that is shared with `known`, to be read."""
        environment_id, person = self._running(), self["known_person"]
        path = f"{self.url()}/api/v1/environments/{environment_id}/shares/{person}"
        answer = self.run(f"""-X PUT {path} $as_admin $json -d '{{"permission":"read"}}'""")
        assert answer.status == 200, answer
        return environment_id

    def with_environment(self) -> str:
        """The administrator, who has one that runs."""
        assert self["environment_id"]
        return self.as_admin()

    def new_logs_ticket(self) -> str:
        """To follow the logs of the busy one."""
        path = f"/api/v1/environments/{self['busy_environment_id']}/tickets"
        return str(self.post(path, {"purpose": "logs"}, self._admin)["ticket"])

    def upgrade(self) -> str:
        return UPGRADE

    def pid(self) -> str:
        """Of the main command of the environment."""
        path = f"{self.url()}/api/v1/environments/{self['environment_id']}/processes"
        return str(curl(path, "-H", self._admin).body["processes"][0]["pid"])

    def open_environment_id(self) -> str:
        """One whose port 8080 may be reached; nobody listens there."""
        policy = {"network_policy": {"allowed_ingress_ports": [8080]}}
        return self._running(isolation=policy)

    def preview_path(self) -> str:
        path = f"/api/v1/environments/{self['open_environment_id']}/previews"
        return str(self.post(path, {"port": 8080}, self._admin)["path"])

    def snapshot_id(self) -> str:
        """Of an environment that is gone."""
        return self._snapshot_of(self._running())

    def new_snapshot_id(self) -> str:
        return self._snapshot_of(self["environment_id"])

    def snapshot_in_use(self) -> str:
        """One that an environment is made of."""
        snapshot_id = self._snapshot_of(self["environment_id"])
        self._running(image=f"snapshot/{snapshot_id}")
        return snapshot_id

    def _snapshot_of(self, environment_id: str) -> str:
        path = f"/api/v1/environments/{environment_id}/snapshots"
        return str(self.post(path, {"name": "mine"}, self._admin)["id"])

    def image(self) -> str:
        return self.new_image()

    def new_image(self) -> str:
        """One that was imported, and that nobody stands on."""
        name = f"imported/{self.new_name()}:1"
        content = archives.layer(archives.folder("etc"), archives.entry("etc/hello", b"hello"))
        archive = archives.save(self._data_dir / "image.tar", [content])
        asyncio.run(Catalogue(self._data_dir / "images").import_archive(archive, name=name))
        return name

    def clear(self) -> None:
        """Leave no environment behind."""
        listed = self.run("$url/api/v1/environments?limit=1000 $as_admin")
        for environment in listed.body["environments"]:
            self.run(f"-X DELETE $url/api/v1/environments/{environment['id']}?force=1 $as_admin")

    def _running(self, **fields: Any) -> str:
        body = {
            "name": self.new_name(),
            "image": "host",
            "resources": {"cpu": "1", "memory": "64Mi", "storage": "16Mi"},
            "env": {"MY_VAR": "my-value"},
            "labels": {"project": "my-project"},
            **fields,
        }
        return self.made(body)

    def made(self, body: dict[str, Any]) -> str:
        """An environment that is as it was asked for, or over already; its id."""
        made = self.post("/api/v1/environments", body, self._admin)
        self._becomes(made["id"], "running", "terminated")
        return str(made["id"])

    def _becomes(self, environment_id: str, *statuses: str) -> None:
        path = f"{self.url()}/api/v1/environments/{environment_id}"
        until(lambda: curl(path, "-H", self._admin).body["status"] in statuses, "it gets there")


def image_of(scene: AgentboxScene, name: str) -> str:
    """It, or the same of the Python that is on this machine."""
    if scene.run(f"$url/api/v1/images/{name} $as_admin").status == 200:
        return name
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return re.sub(r"\d+\.\d+", version, name)


@contextmanager
def agentbox_scene(data_dir: Path, **settings: str) -> Iterator[AgentboxScene]:
    """A server that makes environments, for the block; skipped where this machine can make none."""
    chosen = {
        "STEWARD_ENVIRONMENTS_DRIVER": "auto",
        "STEWARD_ENVIRONMENTS_MAX_PER_USER": "1000",
        "STEWARD_ENVIRONMENTS_CPU_PER_USER": "1000",
        "STEWARD_API_KEYS_MAX_PER_USER": "1000",
        "STEWARD_AUTH_LOGINS_PER_MINUTE": str(RATES["LOGIN"]),
        "STEWARD_RATES_DEFAULT_PER_MINUTE": str(RATES["DEFAULT"]),
        "STEWARD_RATES_ENVIRONMENT_CREATION_PER_MINUTE": str(RATES["CREATION"]),
        "STEWARD_RATES_COMMAND_EXECUTION_PER_MINUTE": str(RATES["EXECUTION"]),
    }
    with steward(data_dir, forked, **chosen | settings) as server:
        health = curl(f"{server.url}/api/v1/health").body["environments"]
        if not health["usable"]:
            missing(f"no environments can be made on this machine: {health['reason']}")
        scene = AgentboxScene(server, data_dir)
        try:
            yield scene
        finally:
            scene.clear()
        assert "Traceback" not in server.log
