"""What is the host's, and what is a neighbour's, cannot be seen or touched from a machine."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from steward_server.environments.driver import Command
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, groups, secured, until


@pytest.fixture(params=[1000, 0])
async def intruder(machines: Machines, request: pytest.FixtureRequest) -> str:
    """A machine whose commands run as an ordinary user, and as its user 0."""
    return await machines.make(secured(run_as_user=request.param))


async def test_files_of_the_host_are_not_there(
    machines: Machines, intruder: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the host")
    assert "steward" not in (await machines.sh(intruder, "cat /etc/passwd /etc/shadow")).stdout

    hidden = ("/etc/shadow", "/root/.ssh", "/home/agent/../../boot", "/var/lib/dpkg/status",
              "/var/log/syslog", "/sys/kernel")  # fmt: skip
    for path in (str(tmp_path / "secret"), *hidden):
        ran = await machines.run(intruder, "ls", path)
        assert ran.code != 0, path
    ran = await machines.sh(intruder, "touch /usr/bin/x /usr/x; ls /sys")
    assert "Read-only file system" in ran.stderr or "Permission denied" in ran.stderr
    assert ran.stdout == ""


async def test_proc_tells_no_secret(machines: Machines, intruder: str) -> None:
    secrets = ("kcore kmsg keys kallsyms cmdline modules partitions timer_list iomem config.gz "
               "diskstats")  # fmt: skip
    script = f"for n in {secrets}; do echo $n $(head -c 100 /proc/$n 2>/dev/null | wc -c); done"
    ran = await machines.sh(intruder, script)
    assert ran.stdout.splitlines() == [f"{name} 0" for name in secrets.split()]
    switches = ("sysrq-trigger sys/kernel/core_pattern sys/kernel/hostname sys/vm/drop_caches "
                "sys/net/ipv4/ip_forward")  # fmt: skip
    script = (
        f"for n in {switches}; do (echo x > /proc/$n) 2>/dev/null && cat /proc/$n | head -c 100; "
        "done; echo none gave way"
    )
    assert (await machines.sh(intruder, script)).stdout == "none gave way\n"


async def test_the_supervisor_shows_and_gives_nothing(machines: Machines, intruder: str) -> None:
    script = (
        "cat /proc/1/environ /proc/1/maps /proc/1/stack /proc/1/auxv; ls /proc/1/fd /proc/1/root/ "
        "/proc/1/cwd/ /proc/1/map_files; readlink /proc/1/exe /proc/1/ns/net; cat /proc/1/mem"
    )
    assert (await machines.sh(intruder, script)).stdout == ""
    shown = await machines.sh(intruder, "tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/comm")
    assert shown.stdout.split() == ["steward-init", "steward-init"]


async def test_the_supervisor_cannot_be_killed_stopped_or_traced(
    machines: Machines, intruder: str
) -> None:
    program = (
        "import os, ctypes\n"
        "for number in range(1, 65):\n"
        "  try: os.kill(1, number)\n"
        "  except OSError: pass\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for request in (16, 0x4206):\n"  # PTRACE_ATTACH, PTRACE_SEIZE
        "  print(libc.ptrace(request, 1, 0, 0), ctypes.get_errno())\n"
        "buffer = ctypes.create_string_buffer(64)\n"
        "print(libc.prlimit(1, 7, buffer, None), ctypes.get_errno())\n"
    )
    ran = await machines.python(intruder, program)

    assert ran.stdout == "-1 1\n" * 3
    assert (await machines.run(intruder, "echo", "alive")).stdout == "alive\n"
    await machines.sh(intruder, "kill -STOP -1; kill -9 -1")
    assert (await machines.run(intruder, "echo", "alive")).stdout == "alive\n"


async def test_killing_everything_kills_nothing_outside(machines: Machines, intruder: str) -> None:
    neighbour = await machines.make()
    outside = await asyncio.create_subprocess_exec("sleep", "600")

    await machines.sh(intruder, "kill -9 -1")
    await machines.sh(intruder, f"kill -9 {outside.pid} {os.getpid()} {os.getppid()}")

    assert (await machines.run(neighbour, "echo", "alive")).stdout == "alive\n"
    assert outside.returncode is None
    outside.kill()
    await outside.wait()


async def test_processes_and_files_of_a_neighbour_are_not_there(
    machines: Machines, intruder: str
) -> None:
    neighbour = await machines.make()
    running = await machines.driver.exec(neighbour, Command(("sleep", "98765")))
    await machines.sh(neighbour, "echo private > /tmp/f; echo private > /dev/shm/f")

    ran = await machines.sh(
        intruder, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; cat /tmp/f /dev/shm/f; "
        "grep -r priv[a]te /tmp /workspace /dev/shm"
    )  # fmt: skip

    assert "98765" not in ran.stdout
    assert "private" not in ran.stdout
    await running.aclose()


async def test_neighbours_do_not_even_share_user_ids(
    driver: SandboxDriver, machines: Machines
) -> None:
    names = [await machines.make() for _ in range(3)]

    bases = {driver._machines[name].record.uid_base for name in names}

    assert len(bases) == 3
    assert all(base > 1 << 30 and base % 65_536 == 0 for base in bases)
    for name in names:
        for process in groups_pids(driver, name):
            user = int(Path(f"/proc/{process}/status").read_text().split("Uid:")[1].split()[0])
            assert user >= driver._machines[name].record.uid_base


def groups_pids(driver: SandboxDriver, name: str) -> list[int]:
    found = [each for each in groups(driver) if each.name == name]
    pids = {int(line) for each in found for line in (each / "cgroup.procs").read_text().split()}
    assert pids
    return sorted(pids)


async def test_nothing_but_three_descriptors_is_handed_in(
    machines: Machines, intruder: str
) -> None:
    ran = await machines.python(intruder, "import os; print(sorted(os.listdir('/proc/self/fd')))")

    assert ran.stdout == "['0', '1', '2', '3']\n"  # the last one is that of the listing


async def test_devices_are_those_that_are_harmless(machines: Machines, intruder: str) -> None:
    ran = await machines.sh(intruder, "ls /dev; touch /dev/x; rm -f /dev/null; ls /dev/pts")

    assert set(ran.stdout.split()) == {
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    }  # fmt: skip
    ran = await machines.sh(intruder, "cat /proc/self/mountinfo")
    places = [line.split() for line in ran.stdout.splitlines()]
    assert all("nosuid" in each[5] for each in places if not each[4].startswith("/proc/"))
    assert not [each for each in places if "steward-" in " ".join(each) or "machines" in each[3]]


async def test_the_clock_is_the_hosts_and_stays(machines: Machines, intruder: str) -> None:
    ran = await machines.sh(intruder, "date -s 2001-01-01; hwclock --set --date 2001-01-01")

    assert ran.code != 0
    assert "2001" not in (await machines.run(intruder, "date")).stdout


async def test_no_network_is_none(machines: Machines, intruder: str) -> None:
    """Not the host's loopback, not the metadata address, no private range, no name server."""
    program = (
        "import errno, socket, sys\n"
        "for address in sys.argv[1:]:\n"
        "  host, port = address.rsplit(':', 1)\n"
        "  for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n"
        "    s = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind)\n"
        "    s.settimeout(2)\n"
        "    try: s.connect((host, int(port))); s.send(b'x'); print(s.recv(1))\n"
        "    except OSError as e: print(errno.errorcode.get(e.errno, e))\n"
        "print([name for _, name in socket.if_nameindex()])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = await machines.python(
            intruder, program.replace("sys.argv[1:]", repr([
                f"127.0.0.1:{port}", "169.254.169.254:80", "10.0.0.1:80", "192.168.1.1:53",
                "192.0.2.53:53", "fd00::1:80", "2001:db8::53:53",
            ])),
        )  # fmt: skip

    *answers, names = ran.stdout.splitlines()
    assert set(answers[:2]) <= {"ECONNREFUSED"}
    assert set(answers[2:]) <= {"ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH"}
    assert names == "['lo']"
    ran = await machines.python(intruder, "import socket; socket.gethostbyname('secret.example')")
    assert "gaierror" in ran.stderr


async def test_sockets_of_the_host_are_not_there(machines: Machines, intruder: str) -> None:
    name = f"steward-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + name)
        server.listen()
        ran = await machines.python(
            intruder, f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
        )
    assert "ConnectionRefusedError" in ran.stderr
    ran = await machines.sh(intruder, "cat /proc/net/unix | grep steward")
    assert ran.stdout == ""


async def test_orphans_of_every_kind_go_with_the_machine(machines: Machines, intruder: str) -> None:
    script = (
        "nohup sleep 31337 >/dev/null 2>&1 & setsid sleep 31337 & (setsid sh -c "
        "'(setsid sleep 31337 &) &' &); echo up; sleep 600"
    )
    running = await machines.driver.exec(intruder, Command(("sh", "-c", script)))
    await running.read()
    await machines.driver.delete(intruder, grace_s=0)
    await running.aclose()

    def left() -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and b"31337" in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
        return found

    await until(lambda: not left())
