"""Environments to look at in the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.e2e.dashboard.site import Site
from tests.missing import missing

SETTINGS = {"STEWARD_ENVIRONMENTS_DRIVER": "auto"}


def emptied_after(site: Site) -> Iterator[None]:
    """No environment is left on this machine."""
    health = site.call("GET", "/api/v1/health")["environments"]
    if not health["usable"]:
        missing(f"no environments can be made on this machine: {health['reason']}")
    yield
    for each in site.call("GET", "/api/v1/environments?limit=100")["environments"]:
        site.end(f"/api/v1/environments/{each['id']}?force=true")


def made(site: Site, name: str, **fields: Any) -> str:
    """The id of an environment that runs."""
    wish = {
        "name": name,
        "image": "host",
        "resources": {"cpu": "100m", "memory": "64Mi", "storage": "16Mi"},
        "wait": 20,
    }
    environment = site.call("POST", "/api/v1/environments", {**wish, **fields})
    assert environment["status"] == "running", environment
    return str(environment["id"])


def run(site: Site, environment_id: str, script: str) -> str:
    """What a script wrote that was run in an environment, and ended well."""
    wish = {"command": ["sh", "-c", script]}
    ended = site.call("POST", f"/api/v1/environments/{environment_id}/exec", wish)
    assert ended["exit_code"] == 0, ended
    return str(ended["stdout"])
