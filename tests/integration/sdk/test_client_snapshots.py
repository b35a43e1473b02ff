"""Snapshots, live networks and images that are sent, through both clients."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_client.client.environments_values import NetworkPolicy
from steward_client.errors import Conflict, NotFound
from tests.environment_site import environment_site
from tests.integration.environments.conftest import Site
from tests.integration.sdk.conftest import Call
from tests.integration.sdk.test_client_environments import running
from tests.live import Live


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with environment_site(tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def live(site: Site) -> Live:
    return site.live


async def test_an_environment_is_kept_and_put_back(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_client.client.environments_snapshots.PAGE_SIZE", 1)
    name = await running(call)
    await call("environments.files.write", name, "/note", b"before")

    made = await call("environments.snapshots.create", name, "mine")
    other = await call("environments.snapshots.create", name, "other")

    assert (made.name, made.environment_id, made.base_image) == ("mine", name, "python:3.11")
    assert made.created_at is not None
    assert set(await call("environments.snapshots.list")) == {made, other}
    assert await call("environments.snapshots.list", "env-other") == ()
    assert await call("environments.snapshots.get", made.id) == made
    await call("environments.files.write", name, "/note", b"after")
    back = await call("environments.snapshots.restore", name, made.id)
    assert (back.status, back.image) == ("pending", made.image)
    await call("environments.wait_until_running", name)
    assert await call("environments.files.read", name, "/note") == b"before"
    with pytest.raises(Conflict, match="is in use"):
        await call("environments.snapshots.delete", made.id)
    await call("environments.snapshots.delete", other.id)
    with pytest.raises(NotFound):
        await call("environments.snapshots.get", other.id)


async def test_a_network_is_changed_while_an_environment_runs(call: Call) -> None:
    name = await running(call)
    policy = NetworkPolicy(allow_internet=True, allowed_ingress_ports=(8080,))
    changed = await call("environments.update", name, network=policy)
    assert changed.isolation.network_policy == policy
    closed = await call("environments.update", name, network=NetworkPolicy())
    assert closed.isolation.network_policy == NetworkPolicy()


async def test_a_link_to_a_port_is_given(call: Call) -> None:
    name = await running(call)
    await call("environments.update", name, network=NetworkPolicy(allowed_ingress_ports=(8080,)))
    made = await call("environments.preview", name, 8080, ttl_s=60)
    assert made.path == f"/preview/{made.token}/"
    assert made.expires_at is not None
    assert made.token not in repr(made)
    with pytest.raises(Conflict, match="may not be reached"):
        await call("environments.preview", name, 8081)


async def test_an_image_is_sent(call: Call) -> None:
    for archive in (b"x" * 3_000_000, io.BytesIO(b"x" * 3_000_000)):
        assert (await call("images.send", archive, "sent:1")).name == "sent:1"
