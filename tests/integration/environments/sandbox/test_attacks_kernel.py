"""What the kernel offers and a command has no need of is refused, whoever it runs as."""

from __future__ import annotations

import platform

import pytest

from tests.integration.environments.sandbox.machines import Machines, secured

_CALL = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *arguments)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
"""

_REFUSED = {
    "mount": ("165, b'none', b'/tmp', b'tmpfs', 0, b''", "EPERM"),
    "umount": ("166, b'/proc', 2", "EPERM"),
    "pivot_root": ("155, b'/', b'/tmp'", "EPERM"),
    "chroot": ("161, b'/tmp'", "EPERM"),
    "fsopen": ("430, b'tmpfs', 0", "EPERM"),
    "open_tree": ("428, -100, b'/', 1", "EPERM"),
    "move_mount": ("429, -100, b'/', -100, b'/tmp', 0", "EPERM"),
    "mount_setattr": ("442, -100, b'/', 0, b'', 0", "EPERM"),
    "setns": ("308, 0, 0", "EPERM"),
    "unshare of the user namespace": ("272, 0x10000000", "EPERM"),
    "unshare of mounts": ("272, 0x00020000", "EPERM"),
    "clone into a user namespace": ("56, 0x10000000 | 17, 0, 0, 0, 0", "EPERM"),
    "clone into a network namespace": ("56, 0x40000000 | 17, 0, 0, 0, 0", "EPERM"),
    "clone3": ("435, 0, 0", "ENOSYS"),
    "keyctl": ("250, 0, 0, 0", "EPERM"),
    "add_key": ("248, b'user', b'a', b'b', 1, -3", "EPERM"),
    "request_key": ("249, b'user', b'a', 0, 0", "EPERM"),
    "bpf": ("321, 0, 0, 0", "EPERM"),
    "perf_event_open": ("298, 0, 0, -1, -1, 0", "EPERM"),
    "userfaultfd": ("323, 0", "EPERM"),
    "io_uring": ("425, 1, 0", "EPERM"),
    "load of a module": ("175, 0, 0, 0", "EPERM"),
    "load of a module by descriptor": ("313, 0, b'', 0", "EPERM"),
    "unload of a module": ("176, b'overlay', 0", "EPERM"),
    "kexec": ("246, 0, 0, 0, 0", "EPERM"),
    "reboot": ("169, 0, 0, 0, 0", "EPERM"),
    "kernel log": ("103, 2, 0, 0", "EPERM"),
    "swapon": ("167, b'/tmp/f', 0", "EPERM"),
    "setting the clock": ("227, 0, b'\\0' * 16", "EPERM"),
    "setting the time of day": ("164, b'\\0' * 16, 0", "EPERM"),
    "adjusting the clock": ("159, b'\\1' + b'\\0' * 300", "EPERM"),
    "host name": ("170, b'x', 1", "EPERM"),
    "file by handle": ("304, 0, 0, 0", "EPERM"),
    "handle of a file": ("303, -100, b'/', 0, 0, 0", "EPERM"),
    "another's descriptor": ("438, 0, 0, 0", "EPERM"),
    "device node": ("133, b'/tmp/sda', 0o060600, 0x800", "EPERM"),
    "character device node": ("259, -100, b'/tmp/mem', 0o020600, 0x101", "EPERM"),
    "typing into a terminal": ("16, 0, 0x5412, b'x'", "EPERM"),
    "personality of old": ("135, 0x0040000", "EPERM"),
    "io ports": ("172, 3", "EPERM"),
    "descriptor tables": ("154, 0, 0, 0", "EPERM"),
    "fanotify": ("300, 0, 0", "EPERM"),
    "quota": ("179, 0, 0, 0, 0", "EPERM"),
    "process accounting": ("163, 0", "EPERM"),
    "a call that nobody knows": ("999, 0", "ENOSYS"),
    "vsock": ("41, 40, 1, 0", "EAFNOSUPPORT"),
    "packet socket": ("41, 17, 3, 0", "EAFNOSUPPORT"),
    "crypto socket": ("41, 38, 5, 0", "EAFNOSUPPORT"),
    "bluetooth socket": ("41, 31, 3, 1", "EAFNOSUPPORT"),
    "xdp socket": ("41, 44, 3, 0", "EAFNOSUPPORT"),
    "netfilter by netlink": ("41, 16, 3, 12", "EAFNOSUPPORT"),
    "raw socket": ("41, 2, 3, 1", "EPERM"),
    "raw socket of version 6": ("41, 10, 3, 58", "EPERM"),
    "SCTP": ("41, 2, 1, 132", "EPROTONOSUPPORT"),
    "DCCP": ("41, 2, 6, 33", "ESOCKTNOSUPPORT"),
    "pair of vsocks": ("53, 40, 1, 0, 0", "EAFNOSUPPORT"),
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the calls are written by their numbers on x86-64"
)


@pytest.mark.parametrize("user", [1000, 0])
async def test_calls_of_attackers_are_refused(machines: Machines, user: int) -> None:
    name = await machines.make(secured(run_as_user=user))
    program = _CALL + "".join(
        f"print({title!r}, call({arguments}), sep='|')\n"
        for title, (arguments, _) in _REFUSED.items()
    )

    ran = await machines.python(name, program)

    answers = dict(line.split("|") for line in ran.stdout.splitlines())
    assert answers == {title: expected for title, (_, expected) in _REFUSED.items()}, ran.stderr


async def test_what_programs_need_is_allowed(machines: Machines, machine: str) -> None:
    program = (
        "import os, socket, threading, multiprocessing, subprocess, tempfile, select, mmap\n"
        "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n"
        "socket.getaddrinfo('localhost', 80)\n"
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n"
        "  for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM): socket.socket(family, kind)\n"
        "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "subprocess.run(['true'], check=True)\n"
        "os.mkfifo('/tmp/fifo'); os.memfd_create('m'); select.epoll()\n"
        "with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]\n"
        "print('all')\n"
    )

    ran = await machines.python(machine, program)

    assert ran.stdout == "thread\nall\n", ran.stderr


_FOREIGN = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex({code!r}))
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
print("before", flush=True)
ctypes.CFUNCTYPE(ctypes.c_int)(address)()
print("after", flush=True)
"""


@pytest.mark.parametrize(
    "code",
    [
        "b814000000cd80c3",  # mov eax, 20 (getpid of 32 bits); int 0x80; ret
        "b8270000400f05c3",  # mov eax, 0x40000027 (getpid of x32); syscall; ret
    ],
)
async def test_the_doors_of_other_architectures_kill(
    machines: Machines, machine: str, code: str
) -> None:
    ran = await machines.python(machine, _FOREIGN.format(code=code))

    assert (ran.stdout, ran.code) == ("before\n", 128 + 31)  # SIGSYS


async def test_a_setuid_program_gives_nothing(machines: Machines) -> None:
    name = await machines.make(secured(run_as_user=0))
    script = "cp /bin/bash /tmp/sh; chmod 6755 /tmp/sh; ls -l /tmp/sh"
    assert "rwsr-sr-x" in (await machines.sh(name, script)).stdout

    ran = await machines.run(name, "/tmp/sh", "-p", "-c", "id -u; id -ru", user=1000)
    assert ran.stdout == "1000\n1000\n"

    ran = await machines.run(name, "su", "-c", "id", user=1000)
    assert ran.code != 0


async def test_no_rights_are_left_and_none_come_back(machines: Machines) -> None:
    for user in (0, 1000):
        name = await machines.make(secured(run_as_user=user))
        ran = await machines.run(name, "cat", "/proc/self/status")
        status = dict(line.split(":\t") for line in ran.stdout.splitlines() if ":\t" in line)
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[key], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"


async def test_a_crash_calls_no_handler_of_the_host(machines: Machines, machine: str) -> None:
    """Wherever the host's core_pattern leads: a limit of one byte is the kernel's word for that."""
    program = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
        "pid = os.fork()\n"
        "if pid == 0: os.abort()\n"
        "print(os.WCOREDUMP(os.waitpid(pid, 0)[1]))"
    )

    ran = await machines.python(machine, program)

    assert ran.stdout == "(1, 1)\nFalse\n"
    shell = await machines.run(machine, "bash", "-c", "ulimit -c 0; ulimit -c unlimited; ulimit -n")
    assert shell.stdout == "1024\n"
