"""The engine's filter says what the sandbox' program says, call by call."""

from __future__ import annotations

import errno
import itertools
from typing import Any

import pytest

from steward_server.environments.container.profile import profile
from steward_server.environments.sandbox.inside.syscalls import numbers
from tests.unit.environments.sandbox.test_seccomp import judge

_MASK = (1 << 64) - 1


def libseccomp(rules: dict[str, Any], name: str, *arguments: int) -> str:
    """What libseccomp would do: the first rule whose comparisons all hold."""
    padded = [value & _MASK for value in (*arguments, *[0] * 6)][:6]
    found = [
        rule["errnoRet"]
        for rule in rules["syscalls"]
        if name in rule["names"] and all(_holds(each, padded) for each in rule.get("args", ()))
    ]
    assert rules["defaultAction"] == "SCMP_ACT_ALLOW"
    assert len(set(found)) <= 1, f"{name}{arguments}: two rules differ"
    return errno.errorcode.get(found[0], "pretended") if found else "allowed"


def _holds(comparison: dict[str, Any], arguments: list[int]) -> bool:
    value, wanted = arguments[comparison["index"]], comparison["value"]
    match comparison["op"]:
        case "SCMP_CMP_EQ":
            return bool(value == wanted)
        case "SCMP_CMP_NE":
            return bool(value != wanted)
        case "SCMP_CMP_GT":
            return bool(value > wanted)
        case "SCMP_CMP_MASKED_EQ":
            return bool(value & wanted == comparison["valueTwo"])
    raise AssertionError(comparison)


_CASES: dict[str, list[tuple[int, ...]]] = {
    "clone": [(flags | 17,) for flags in (0, 0x3D0F00, *(1 << place for place in range(8, 32)))],
    "clone3": [(0,)],
    "socket": [
        (family, kind | flag, protocol)
        for family, (kind, flag), protocol in itertools.product(
            (0, 1, 2, 3, 9, 10, 11, 15, 16, 17, 31, 38, 40, 44),
            [*((kind, 0) for kind in range(16)), (1, 0o2000000), (3, 0o4000)],
            (0, 1, 2, 6, 12, 17, 33, 58, 59, 255),
        )
    ],
    "socketpair": [(family, 1, 0) for family in range(48)],
    "mknod": [(0, kind | 0o644) for kind in range(0, 0o200000, 0o10000)],
    "mknodat": [(0, 0, kind | 0o644) for kind in range(0, 0o200000, 0o10000)],
    "ioctl": [(0, request) for request in (0x5412, 0x541C, 0x5413, 0x5401, 0x7_0000_5412)],
    "personality": [
        (value,)
        for value in (
            *(0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000, 0x80000008),
            *(1 << place for place in range(32)),
        )
    ],
    "setrlimit": [(name, 1) for name in range(16)],
    "prlimit64": [(0, name, new) for name in range(16) for new in (0, 1, 1 << 40)],
}


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_both_filters_say_the_same(machine: str) -> None:
    rules, calls = profile(machine), numbers(machine)
    for name, number in calls.items():
        for arguments in _CASES.get(name, [(1, 2, 3)]):
            expected = judge(machine, number, *arguments)
            assert libseccomp(rules, name, *arguments) == expected, (name, arguments)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_value_that_is_wider_than_the_kernel_looks_gets_nobody_through(machine: str) -> None:
    rules = profile(machine)
    for family in (1, 2, 16, 40):
        wide = (1 << 32) | family
        assert libseccomp(rules, "socket", wide, 1, 0) == "EAFNOSUPPORT"
    assert libseccomp(rules, "clone", (1 << 32) | 0x10000000) == "EPERM"
    assert libseccomp(rules, "ioctl", 0, (1 << 40) | 0x5412) == "EPERM"


def test_nothing_passes_by_the_door_of_another_architecture() -> None:
    assert profile("x86_64")["architectures"] == ["SCMP_ARCH_X86_64"]
    assert profile("aarch64")["architectures"] == ["SCMP_ARCH_AARCH64"]
    with pytest.raises(KeyError):
        profile("riscv64")


def test_every_call_of_the_list_is_in_the_profile() -> None:
    for machine in ("x86_64", "aarch64"):
        named = {name for rule in profile(machine)["syscalls"] for name in rule["names"]}
        assert named == numbers(machine).keys()
