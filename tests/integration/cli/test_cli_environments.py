"""`steward env` and `steward image`: environments are created, looked at, changed and removed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from steward_client.cli.environments_exec import NOT_RUN
from steward_server.environments.driver import Away
from tests.integration.cli.conftest import Shell
from tests.integration.environments.conftest import Site, until
from tests.integration.environments.images.archives import entry, layer, save
from tests.live import ADMIN_PASSWORD

IMAGE = ("--image", "python:3.11")


async def test_what_the_server_cannot_do_now_is_told_as_it_says_it(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    site.driver.faults["exec"].append(Away("NO_ENGINE", "no engine answers; start it"))
    refused = await operator("env", "exec", environment_id, "true")

    assert (refused.code, refused.out) == (NOT_RUN, "")
    assert refused.err == "Error: no engine answers; start it\n"


async def test_an_environment_is_created_with_everything_and_shown(
    operator: Shell, site: Site
) -> None:
    made = await operator(
        *("env", "create", "mine", *IMAGE, "--cpu", "1", "--memory", "1Gi", "--storage", "2Gi"),
        *("--timeout", "10m", "--idle-timeout", "90", "-e", "A=1=2", "--env", "SECRET"),
        *("--label", "project=x", "--internet", "--egress", "10.1.0.0/16", "--port", "8080"),
        *(
            "--user",
            "1000",
            "--runtime-class",
            "native",
            "--json",
            "--",
            "sh",
            "-c",
            "sleep 60",
            "-v",
        ),
        SECRET="from here",
    )
    shown = await operator("env", "show", "mine")
    quiet = await operator("env", "create", "other", *IMAGE, "-q")
    table = await operator("env", "list")
    listed = await operator("env", "list", "--label", "project=x", "--json")

    assert made.code == 0, made
    told = made.json
    assert told["resources"] == {"cpu": "1", "memory": "1Gi", "storage": "2Gi"}
    assert (told["timeout_s"], told["idle_timeout_s"]) == (600, 90)
    assert told["env"] == {"A": "1=2", "SECRET": "from here"}
    assert told["isolation"]["network_policy"] == {
        "allow_internet": True,
        "allowed_egress_cidrs": ["10.1.0.0/16"],
        "allowed_ingress_ports": [8080],
        "allow_cluster_internal": False,
    }
    assert told["isolation"]["security_context"]["run_as_user"] == 1000
    assert told["command"] == ["sh", "-c", "sleep 60", "-v"]
    for text in (told["id"], "native", "10.1.0.0/16", "8080", "project=x", "SECRET"):
        assert text in shown.out
    assert "from here" not in shown.out
    assert quiet.out.strip() in table.out
    assert "running" in table.out
    assert "project=x" in table.out
    assert [each["id"] for each in listed.json] == [told["id"]]


async def test_creating_waits_until_it_runs_unless_told_not_to(operator: Shell, site: Site) -> None:
    gate = site.driver.gates["create"] = asyncio.Event()
    pending = await operator("env", "create", "slow", *IMAGE, "--no-wait", "--json")
    waiting = asyncio.create_task(operator("env", "create", "slower", *IMAGE, "--json"))
    await until(lambda: len(site.driver.calls) > 3, "both are being made")
    gate.set()
    ready = await waiting
    site.driver.faults["create"].append(RuntimeError("the disk is gone"))
    failed = await operator("env", "create", "broken", *IMAGE)

    assert pending.json["status"] == "pending"
    assert ready.json["status"] == "running"
    assert failed.code == 6
    assert "is failed" in failed.err


async def test_what_is_wrong_with_a_creation_is_said(operator: Shell) -> None:
    image = await operator("env", "create", "mine", "--image", "nothing")
    name = await operator("env", "create", "Not A Name", *IMAGE)
    amount = await operator("env", "create", "mine", *IMAGE, "--memory", "much")
    time = await operator("env", "create", "mine", *IMAGE, "--timeout", "soon")
    label = await operator("env", "create", "mine", *IMAGE, "--label", "x")
    unset = await operator("env", "create", "mine", *IMAGE, "--env", "NOT_SET_HERE")

    assert "there is python:3.11" in image.err
    assert "Not A Name" in name.err
    assert "much" in amount.err
    assert "15m" in time.err
    assert "NAME=VALUE" in label.err
    assert "NOT_SET_HERE" in unset.err
    every = (image, name, amount, time, label, unset)
    assert [each.code for each in every] == [2] * 6
    assert [each.out for each in every] == [""] * 6


async def test_names_stand_for_ids_as_long_as_they_are_clear(operator: Shell, site: Site) -> None:
    over = (await operator("env", "create", "twin", *IMAGE, "-q", "--no-wait", "--", "true")).out
    await site.becomes(over.strip(), "terminated")
    ended = await operator("env", "show", "twin")
    one = (await operator("env", "create", "twin", *IMAGE, "-q")).out.strip()
    living = await operator("env", "show", "twin", "--json")
    two = (await operator("env", "create", "twin", *IMAGE, "-q")).out.strip()
    unclear = await operator("env", "show", "twin")
    none = await operator("env", "show", "nobody")
    removed = await operator("env", "rm", one, two)
    gone = await operator("env", "show", one)

    assert "terminated" in ended.out
    assert living.json["id"] == one
    assert unclear.code == 5
    assert one in unclear.err
    assert two in unclear.err
    assert (none.code, none.err) == (
        5,
        "Error: no environment is named 'nobody'; see: steward env list\n",
    )
    assert (removed.code, removed.out) == (0, "")
    assert one in removed.err
    assert gone.code == 5


async def test_an_environment_lives_longer_and_stands_still(operator: Shell) -> None:
    made = await operator("env", "create", "mine", *IMAGE, "--timeout", "600", "--json")
    longer = await operator("env", "extend", "mine", "1h", "--json")
    beyond = await operator("env", "extend", "mine", "1000d")
    paused = await operator("env", "pause", "mine", "--json")
    listed = await operator("env", "list")
    refused = await operator("env", "exec", "mine", "true")
    resumed = await operator("env", "resume", "mine", "--json")

    assert made.json["timeout_s"] == 600
    assert longer.json["timeout_s"] == 4_200
    assert beyond.code != 0
    assert paused.json["paused"] is True
    assert "paused" in listed.out
    assert (refused.code, refused.out) == (125, "")
    assert "paused" in refused.err
    assert resumed.json["paused"] is False


async def test_it_is_shared_and_taken_away_again(
    operator: Shell, site: Site, tmp_path: Path
) -> None:
    made = (await operator("env", "create", "mine", *IMAGE, "-q")).out.strip()
    await site.person("ann")
    ann = Shell(tmp_path / "ann", operator.server)
    await ann("login", "--user", "ann", "--password-stdin", stdin=ADMIN_PASSWORD)
    before = await ann("env", "show", made)
    shared = await operator("env", "share", "mine", "ann", "--permission", "write", "--json")
    ran = await ann("env", "exec", "mine", "echo", "hello")
    refused = await ann("env", "rm", "mine")
    listed = await operator("env", "share", "mine")
    removed = await operator("env", "share", "mine", "ann", "--remove")
    after = await ann("env", "show", made)
    nobody = await operator("env", "share", "mine", "--remove")

    assert before.code == after.code == 5
    assert shared.json["permission"] == "write"
    assert (ran.code, ran.out) == (0, "hello\n")
    assert refused.code == 4
    assert "ann" in listed.out
    assert removed.code == 0
    assert nobody.code == 2


async def test_processes_are_listed_without_what_a_terminal_would_act_upon(
    operator: Shell, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from steward_server.environments.driver import Process

    async def processes(_id: str) -> list[Process]:
        return [Process(7, 1, 1000, "evil\x1b]0;title\x07", 1_000_000, 3 * 2**20)]

    monkeypatch.setattr(site.driver, "processes", processes)
    await operator("env", "create", "mine", *IMAGE)
    table = await operator("env", "ps", "mine")
    listed = await operator("env", "ps", "mine", "--json")

    assert "evil\\x1b]0;title\\x07" in table.out
    assert "3.0 MiB" in table.out
    assert (listed.json[0]["pid"], listed.json[0]["memory_bytes"]) == (7, 3 * 2**20)


async def test_what_becomes_of_environments_is_told_as_it_happens(
    operator: Shell, site: Site
) -> None:
    wanted = ("mine", *IMAGE, "--no-wait", "-q", "--", "sh", "-c", "exit 3")
    made = (await operator("env", "create", *wanted)).out.strip()
    await site.becomes(made, "failed")
    tail = ("events", "tail", "--since", "0", "--count", "2", "--type", "EnvironmentStarted")
    told = await operator(*tail, "--type", "EnvironmentFailed")

    started, failed = told.out.splitlines()
    assert made in started
    assert "mine runs, made of python:3.11" in started
    assert "exit code 3" in failed


async def test_images_are_listed_and_removed(operator: Shell) -> None:
    table = await operator("image", "list")
    listed = await operator("image", "list", "--json")
    removed = await operator("image", "rm", "python:3.11")
    none = await operator("image", "rm", "nothing")

    assert "python:3.11" in table.out
    assert [each["name"] for each in listed.json] == ["python:3.11"]
    assert removed.code == 0
    assert (none.code, none.out) == (5, "")
    assert "there is python:3.11" in none.err


async def test_an_image_is_imported_into_a_data_folder(tmp_path: Path) -> None:
    """Without a server: what it says next is what `steward image list` of one would."""
    shell = Shell(tmp_path / "home", "127.0.0.1:1")
    archive = save(
        tmp_path / "small.tar", [layer(entry("etc/motd", b"hello\n"))], names=["small:1"]
    )
    data = tmp_path / "data"
    missing = await shell("image", "import", str(archive), "--data-dir", str(data))
    data.mkdir()
    made = await shell("image", "import", str(archive), "--data-dir", str(data), "--json")
    named = await shell(
        "image", "import", str(archive), "--name", "mine:2", "-q", STEWARD_DATA_DIR=str(data)
    )
    bad = await shell("image", "import", sys.executable, "--data-dir", str(data))

    assert (missing.code, missing.out) == (1, "")
    assert "--data-dir" in missing.err
    assert made.json["name"] == "small:1"
    assert made.json["digest"].startswith("sha256:")
    assert named.out == "mine:2\n"
    assert bad.code == 1
    assert "docker save" in bad.err
    (one, _two) = sorted((data / "images" / "roots").iterdir())
    assert (one / "rootfs" / "etc" / "motd").read_bytes() == b"hello\n"
