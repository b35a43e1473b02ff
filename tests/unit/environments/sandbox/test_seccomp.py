from __future__ import annotations

import errno
import struct

import pytest

from steward_server.environments.sandbox.inside import seccomp
from steward_server.environments.sandbox.inside.syscalls import AUDIT_ARCH, numbers

ALLOWED, KILLED = "allowed", "killed"


def judge(machine: str, number: int, *arguments: int, arch: int | None = None) -> str:
    """What the kernel would do: a small interpreter of its packet filter."""
    arch = AUDIT_ARCH[machine] if arch is None else arch
    padded = (*arguments, *[0] * 6)[:6]
    data = struct.pack("=IIQ6Q", number, arch, 0, *(value % (1 << 64) for value in padded))
    program = seccomp.program(machine)
    place, accumulator = 0, 0
    for _ in range(10_000):
        code, if_true, if_false, constant = struct.unpack_from("=HBBI", program, place * 8)
        place += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, constant)
            case 0x54:
                accumulator &= constant
            case 0x15:
                place += if_true if accumulator == constant else if_false
            case 0x25:
                place += if_true if accumulator > constant else if_false
            case 0x45:
                place += if_true if accumulator & constant else if_false
            case 0x06 if constant == seccomp.ALLOW:
                return ALLOWED
            case 0x06 if constant == seccomp.KILL:
                return KILLED
            case 0x06:
                return errno.errorcode.get(constant & 0xFFFF, "pretended")
            case _:
                raise AssertionError(f"no such instruction: {code:#x}")
    raise AssertionError("the program does not end")


MACHINES = pytest.mark.parametrize("machine", ["x86_64", "aarch64"])


def test_a_program_fits_the_kernel() -> None:
    for machine in AUDIT_ARCH:
        assert len(seccomp.program(machine)) % 8 == 0
        assert len(seccomp.program(machine)) // 8 < 4096  # BPF_MAXINSNS


def test_an_architecture_that_nobody_looked_at_has_no_program() -> None:
    with pytest.raises(KeyError):
        seccomp.program("riscv64")


@MACHINES
def test_what_programs_need_is_allowed(machine: str) -> None:
    for number in {"x86_64": (0, 1, 2, 9, 57, 59, 202, 257, 439), "aarch64": (56, 63, 64, 221)}[
        machine
    ]:
        assert judge(machine, number) == ALLOWED


@MACHINES
def test_foreign_architectures_are_killed(machine: str) -> None:
    assert judge(machine, 1, arch=0x40000003) == KILLED  # AUDIT_ARCH_I386
    assert judge(machine, 1, arch=0x40000028) == KILLED  # AUDIT_ARCH_ARM
    if machine == "x86_64":
        assert judge(machine, 0x40000000 | 1) == KILLED


@MACHINES
def test_every_named_call_is_refused(machine: str) -> None:
    special = {"socket", "socketpair", "clone", "clone3", "mknod", "mknodat", "ioctl",
               "personality", "setrlimit", "prlimit64"}  # fmt: skip
    for name, number in numbers(machine).items():
        if name not in special:
            assert judge(machine, number, 1, 2, 3) == "EPERM", name


@MACHINES
def test_calls_of_the_future_do_not_exist(machine: str) -> None:
    for number in (467, 500, 1000, 0x3FFFFFFF):
        assert judge(machine, number) == "ENOSYS"


@MACHINES
def test_new_namespaces_are_refused_and_threads_are_not(machine: str) -> None:
    calls = numbers(machine)
    for flag in (0x80, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000,
                 0x40000000):  # fmt: skip
        assert judge(machine, calls["clone"], flag | 17) == "EPERM"
    assert judge(machine, calls["clone"], 0x3D0F00) == ALLOWED  # pthread_create
    assert judge(machine, calls["clone"], 17) == ALLOWED
    assert judge(machine, calls["clone3"], 0) == "ENOSYS"


@MACHINES
def test_only_four_families_of_sockets_exist(machine: str) -> None:
    call = numbers(machine)["socket"]
    allowed = {
        family for family in range(64) if judge(machine, call, family, 2 | 0o2000000, 0) == ALLOWED
    }
    assert allowed == {1, 2, 10, 16}
    assert judge(machine, call, 40, 1, 0) == "EAFNOSUPPORT"
    assert judge(machine, call, 1, 5, 0) == ALLOWED
    assert judge(machine, numbers(machine)["socketpair"], 1, 1, 0) == ALLOWED
    assert judge(machine, numbers(machine)["socketpair"], 40, 1, 0) == "EAFNOSUPPORT"


@MACHINES
def test_of_netlink_only_the_interfaces_are_told(machine: str) -> None:
    call = numbers(machine)["socket"]
    assert judge(machine, call, 16, 3, 0) == ALLOWED
    for protocol in range(1, 32):
        assert judge(machine, call, 16, 3, protocol) == "EAFNOSUPPORT"


@MACHINES
@pytest.mark.parametrize("family", [2, 10])
def test_of_the_internet_only_protocols_of_everyday_exist(machine: str, family: int) -> None:
    call = numbers(machine)["socket"]
    for kind in (1, 1 | 0o2000000, 2, 2 | 0o4000):
        allowed = {p for p in range(300) if judge(machine, call, family, kind, p) == ALLOWED}
        assert allowed == {0, 1, 6, 17, 58}
    assert judge(machine, call, family, 1, 132) == "EPROTONOSUPPORT"  # SCTP
    assert judge(machine, call, family, 5, 132) == "ESOCKTNOSUPPORT"
    assert judge(machine, call, family, 6, 33) == "ESOCKTNOSUPPORT"  # DCCP
    assert judge(machine, call, family, 3 | 0o2004000, 1) == "EPERM"  # raw
    assert judge(machine, call, family, 10, 0) == "EPERM"  # packets, the old way


@MACHINES
def test_the_limit_of_core_files_stays_and_others_do_not(machine: str) -> None:
    calls = numbers(machine)
    assert judge(machine, calls["setrlimit"], 4, 1) == "pretended"
    assert judge(machine, calls["setrlimit"], 7, 1) == ALLOWED
    assert judge(machine, calls["prlimit64"], 0, 4, 0x7FFF_0000_1000, 0) == "pretended"
    assert judge(machine, calls["prlimit64"], 0, 4, 0x7FFF_0000_0000, 0) == "pretended"
    assert judge(machine, calls["prlimit64"], 0, 4, 0, 0x7FFF_0000_1000) == ALLOWED
    assert judge(machine, calls["prlimit64"], 0, 7, 0x7FFF_0000_1000, 0) == ALLOWED


@MACHINES
def test_named_pipes_may_be_made_and_devices_not(machine: str) -> None:
    call = numbers(machine)["mknodat"]
    assert judge(machine, call, 0, 0, 0o010644) == ALLOWED
    assert judge(machine, call, 0, 0, 0o100644) == ALLOWED
    assert judge(machine, call, 0, 0, 0o060644) == "EPERM"
    assert judge(machine, call, 0, 0, 0o020644) == "EPERM"


@MACHINES
def test_nobody_types_into_a_terminal(machine: str) -> None:
    call = numbers(machine)["ioctl"]
    assert judge(machine, call, 0, 0x5412) == "EPERM"
    assert judge(machine, call, 0, 0x541C) == "EPERM"
    assert judge(machine, call, 0, 0x5413) == ALLOWED  # TIOCGWINSZ
    assert judge(machine, call, 0, 0x7777_7777_0000_5412) == "EPERM"  # the kernel drops the rest


@MACHINES
def test_only_harmless_personalities_are_taken_on(machine: str) -> None:
    call = numbers(machine)["personality"]
    assert judge(machine, call, 0) == ALLOWED
    assert judge(machine, call, 0xFFFFFFFF) == ALLOWED
    assert judge(machine, call, 0x0040000) == "EPERM"
