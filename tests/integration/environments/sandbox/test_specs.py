from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Feature, Hold, Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import MIB, Machines, secured, spec


async def test_a_driver_says_what_it_can(driver: SandboxDriver) -> None:
    told = driver.capabilities()

    assert (told.driver, told.backend, told.unusable) == ("sandbox", "native", "")
    assert set(told.limits.values()) == {Hold.ENFORCED}
    assert {Feature.ATTACH, Feature.FILES, Feature.PAUSE, Feature.SNAPSHOT} <= told.features
    assert "one shared host kernel" in told.promise


async def test_commands_run_as_the_user_and_group_that_are_asked_for(machines: Machines) -> None:
    name = await machines.make(secured(run_as_user=4321, run_as_group=5678))

    ran = await machines.sh(name, "id -u; id -g; id -G; touch mine; stat -c %u:%g mine")

    assert ran.stdout == "4321\n5678\n5678\n4321:5678\n"


async def test_whoever_must_not_be_root_is_not(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(secured(run_as_user=0, run_as_non_root=True))
    assert refusal.value.reason == "RUN_AS_NON_ROOT"

    name = await machines.make(secured(run_as_non_root=True))
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, "id", user=0)
    assert refusal.value.reason == "RUN_AS_NON_ROOT"


async def test_the_root_of_a_machine_owns_its_files_and_has_no_power(machines: Machines) -> None:
    name = await machines.make(secured(run_as_user=0))

    ran = await machines.sh(
        name,
        "id -u; echo x > /etc/new && echo made; grep Cap /proc/self/status | sort -u -k2;"
        "mount -t tmpfs x /tmp || chown 5 /etc/new || echo refused",
    )

    assert ran.stdout == "0\nmade\nCapInh:\t0000000000000000\nrefused\n"


async def test_a_read_only_root_is_one(machines: Machines) -> None:
    name = await machines.make(secured(run_as_user=0, read_only_root_filesystem=True))

    ran = await machines.sh(
        name,
        "touch /etc/x /x; echo t > /tmp/t && echo w > /workspace/w && cat /tmp/t /workspace/w",
    )

    assert ran.stderr.count("Read-only file system") == 2
    assert ran.stdout == "t\nw\n"


async def test_gaining_rights_is_refused_rather_than_left_out(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(secured(allow_privilege_escalation=True))

    assert refusal.value.reason == "PRIVILEGE_ESCALATION"


async def test_a_network_that_cannot_be_had_is_refused(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(replace(spec(), network=NetworkPolicy(allow_internet=True)))

    assert refusal.value.reason == "NO_NETWORK"
    assert await machines.driver.list_owned() == []


async def test_an_unknown_image_is_refused_with_those_there_are(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(replace(spec(), image="no-such-image:1"))

    assert refusal.value.reason == "UNKNOWN_IMAGE"
    assert "host" in str(refusal.value)


@pytest.mark.attack
async def test_nobody_inside_owns_what_is_the_hosts(machines: Machines) -> None:
    """Else they could read what on the host its owner alone may."""
    name = await machines.make(secured(run_as_user=0))

    assert (await machines.sh(name, "stat -c %u:%g /usr /usr/bin")).stdout == "65534:65534\n" * 2


async def test_programs_of_the_host_run(machines: Machines, machine: str) -> None:
    ran = await machines.python(
        machine, "import ssl, sqlite3, os, socket; print(os.getcwd(), socket.gethostname())"
    )

    assert ran.stdout == f"/workspace {machine}\n", ran.stderr


async def test_variables_of_the_environment_reach_every_command(machines: Machines) -> None:
    name = await machines.make(
        replace(spec("sh", "-c", "echo $TOKEN; sleep 600"), env={"TOKEN": "t"})
    )

    assert (await machines.sh(name, "echo $TOKEN$HOME")).stdout.startswith("t/home/")


async def test_a_machine_may_have_a_larger_disk_than_memory(machines: Machines) -> None:
    name = await machines.make(spec(memory_bytes=64 * MIB, storage_bytes=512 * MIB))

    ran = await machines.sh(name, "head -c 300M /dev/zero > big && stat -c %s big")

    assert ran.stdout == f"{300 * MIB}\n", ran.stderr


async def test_allowed_ports_are_reached_without_a_network(machines: Machines) -> None:
    name = await machines.make(
        replace(spec(), network=NetworkPolicy(allowed_ingress_ports=(8080, 8081)))
    )
    server = await machines.driver.exec(
        name, Command(("python3", "-m", "http.server", "8080", "--bind", "127.0.0.1"))
    )
    await machines.sh(name, "echo content > f; until grep -q ':1F90 ' /proc/net/tcp; do :; done")

    answers, sink = await machines.driver.connect(name, 8080)
    await sink.write(b"GET /f HTTP/1.0\r\n\r\n")
    content = b"".join([part async for part in answers])
    await sink.close()
    assert content.endswith(b"content\n")

    for port, reason in ((8081, "PORT_REFUSED"), (22, "PORT_CLOSED")):
        with pytest.raises(Unusable) as refusal:
            await machines.driver.connect(name, port)
        assert refusal.value.reason == reason
    await server.aclose()


async def test_what_a_machine_wrote_becomes_an_image(
    machines: Machines, images: Catalogue, tmp_path: Path
) -> None:
    name = await machines.make(secured(run_as_user=0))
    await machines.sh(
        name, "mkdir /data; echo kept > /data/f; chown 0:0 /data/f; rm /etc/protocols"
    )

    size_bytes = await machines.driver.snapshot(name, "mine")

    assert size_bytes >= 5
    assert (await machines.sh(name, "cat /data/f")).stdout == "kept\n"
    again = await machines.make(replace(spec(), image="mine"))
    ran = await machines.sh(again, "cat /data/f; stat -c %u /data/f; ls /etc/protocols")
    assert ran.stdout == "kept\n0\n"
    assert list(machines.driver.uses((await images.find("mine")).root)) == [again]
    await machines.driver.delete(again, grace_s=0)
    await images.remove("mine")
