"""The system calls that a container may make, as engines read it. Pure.

It says what `sandbox/inside/seccomp.py` says, from the same lists, in the words of libseccomp: a
rule of theirs compares each argument once, so "none but these" becomes a row of rules. What it
cannot say is that calls of the future do not exist; the engine's own library refuses those that it
does not know or lets them through.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any

from steward_server.environments.sandbox.inside.seccomp import (
    BLOCK,
    CHARACTER,
    DATAGRAM,
    FILE_TYPE,
    INET,
    INET6,
    NETLINK,
    NETLINK_ROUTE,
    NEW_NAMESPACES,
    PACKET,
    PERSONALITIES,
    PROTOCOLS,
    RAW,
    RLIMIT_CORE,
    STREAM,
    TERMINAL_INJECTION,
    UNIX,
)
from steward_server.environments.sandbox.inside.syscalls import numbers

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_WORD = 0xFFFFFFFF
"""The kernel itself looks at the low half of these arguments only."""
_TYPE_OF_SOCKET = 0xF
"""Without SOCK_CLOEXEC and SOCK_NONBLOCK."""
_ALL_BITS = 0xFFFFFFFF
"""As a personality it asks for the present one."""

Rule = dict[str, Any]


def profile(machine: str) -> dict[str, Any]:
    """The filter for an architecture, such as `x86_64`, in the form of Docker's and Podman's.

    Raises:
        KeyError: an architecture that nobody has looked at.
    """
    calls = numbers(machine)
    special = _special()
    simple = sorted(calls.keys() - special.keys())
    rules = [_refuse(simple, errno.EPERM)]
    for name, of_call in special.items():
        if name in calls:
            rules += [_refuse([name], number, *arguments) for number, *arguments in of_call]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        # One only: who comes by another architecture's door, where other numbers pass, is killed.
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": rules,
    }


def _special() -> dict[str, list[tuple[Any, ...]]]:
    """By call: which error where which arguments are given."""
    harmless = 0
    for bits in set(PERSONALITIES) - {_ALL_BITS}:
        harmless |= bits
    return {
        # ENOSYS, not EPERM: the C library then falls back to clone, whose flags can be read.
        "clone3": [(errno.ENOSYS,)],
        "clone": [(errno.EPERM, _bits(0, bit, bit)) for bit in _each(NEW_NAMESPACES)],
        "socket": [*_socket()],
        "socketpair": [(errno.EAFNOSUPPORT, _compare(0, "SCMP_CMP_NE", UNIX))],
        "mknod": _devices(1),
        "mknodat": _devices(2),
        "ioctl": [(errno.EPERM, _bits(1, _WORD, each)) for each in TERMINAL_INJECTION],
        "personality": [*_personality(harmless)],
        # Nothing is done, and said to be: see `_unless_asked` there.
        "setrlimit": [(0, _compare(0, "SCMP_CMP_EQ", RLIMIT_CORE))],
        "prlimit64": [(0, _compare(1, "SCMP_CMP_EQ", RLIMIT_CORE), _compare(2, "SCMP_CMP_NE", 0))],
    }


def _refuse(names: list[str], number: int, *arguments: Rule) -> Rule:
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number}
    return rule | {"args": list(arguments)} if arguments else rule


def _compare(index: int, operator: str, value: int) -> Rule:
    return {"index": index, "value": value, "op": operator}


def _bits(index: int, mask: int, value: int) -> Rule:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _each(bits: int) -> Iterable[int]:
    return (1 << place for place in range(32) if bits >> place & 1)


def _none_but(allowed: Iterable[int]) -> Iterable[tuple[str, int]]:
    """Every other value, as one comparison each."""
    most = max(allowed)
    yield "SCMP_CMP_GT", most
    yield from (("SCMP_CMP_EQ", value) for value in range(most) if value not in allowed)


def _socket() -> Iterable[tuple[Any, ...]]:
    """Four families; of the internet's no raw socket, and only the protocols of everyday."""
    for operator, family in _none_but((UNIX, INET, INET6, NETLINK)):
        yield errno.EAFNOSUPPORT, _compare(0, operator, family)
    netlink = _compare(0, "SCMP_CMP_EQ", NETLINK)
    yield errno.EAFNOSUPPORT, netlink, _compare(2, "SCMP_CMP_NE", NETLINK_ROUTE)
    for family in (INET, INET6):
        internet = _compare(0, "SCMP_CMP_EQ", family)
        for kind in range(_TYPE_OF_SOCKET + 1):
            if kind not in (STREAM, DATAGRAM):
                number = errno.EPERM if kind in (RAW, PACKET) else errno.ESOCKTNOSUPPORT
                yield number, internet, _bits(1, _TYPE_OF_SOCKET, kind)
        for kind in (STREAM, DATAGRAM):
            for operator, protocol in _none_but(PROTOCOLS):
                yield (
                    errno.EPROTONOSUPPORT,
                    internet,
                    _bits(1, _TYPE_OF_SOCKET, kind),
                    _compare(2, operator, protocol),
                )


def _devices(index: int) -> list[tuple[Any, ...]]:
    return [(errno.EPERM, _bits(index, FILE_TYPE, kind)) for kind in (CHARACTER, BLOCK)]


def _personality(harmless: int) -> Iterable[tuple[Any, ...]]:
    """Nothing but harmless bits, or all bits together."""
    top = 1 << 31
    for bit in _each(_ALL_BITS & ~top):
        if not bit & harmless:
            yield errno.EPERM, _bits(0, top | bit, bit)
        yield errno.EPERM, _bits(0, top | bit, top)
