"""`steward env snapshot`, `restore` and `network`, and `steward image send`."""

from __future__ import annotations

from pathlib import Path

from tests.integration.cli.conftest import Shell
from tests.integration.environments.conftest import Site


async def test_an_environment_is_kept_and_put_back_by_its_name(operator: Shell, site: Site) -> None:
    name = await site.running(name="mine")
    await site.run(name, "sh", "-c", "echo before > note")

    made = await operator("env", "snapshot", "create", "mine", "first", "--json")
    snapshot_id = made.json["id"]
    await site.run(name, "sh", "-c", "echo after > note")
    shown = await operator("env", "snapshot", "list", "mine")
    back = await operator("env", "restore", "mine", snapshot_id, "--json")
    used = await operator("env", "snapshot", "rm", snapshot_id)
    again = await operator("env", "create", "next", "--image", made.json["image"], "--json")

    assert snapshot_id in shown.out
    assert (back.json["status"], back.json["image"]) == ("running", made.json["image"])
    assert (await site.run(name, "cat", "note"))["stdout"] == "before\n"
    assert (await site.run(again.json["id"], "cat", "note"))["stdout"] == "before\n"
    assert (used.code != 0, "is in use" in used.err) == (True, True)
    await operator("env", "rm", "--force", "mine", "next")
    gone = await operator("env", "snapshot", "rm", snapshot_id)
    assert (gone.code, snapshot_id in gone.err) == (0, True), gone


async def test_a_network_is_opened_and_closed(operator: Shell, site: Site) -> None:
    name = await site.running(name="mine")
    opened = await operator(
        "env", "network", "mine", "--internet", "--egress", "10.0.0.0/8", "-p", "8080", "--json"
    )
    assert opened.json["isolation"]["network_policy"] == {
        "allow_internet": True,
        "allowed_egress_cidrs": ["10.0.0.0/8"],
        "allowed_ingress_ports": [8080],
        "allow_cluster_internal": False,
    }
    linked = await operator("env", "preview", "mine", "8080", "--ttl", "1m", "--json")
    shown = await operator("env", "preview", "mine", "8080")
    assert linked.json["path"] == f"/preview/{linked.json['token']}/"
    assert "/preview/pv_" in shown.out
    closed = await operator("env", "network", "mine")
    assert closed.code == 0
    assert not site.driver.host.machines[name].spec.network.needs_network


async def test_an_image_is_sent(operator: Shell, tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_bytes(b"x" * 100_000)
    sent = await operator("image", "send", str(tmp_path / "image.tar"), "--name", "sent:1")
    assert (sent.code, "sent:1" in sent.out) == (0, True), sent
