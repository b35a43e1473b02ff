"""The system calls that a command may make, as a program of the kernel's packet filter. Pure.

Everything is allowed but what is named: kernel surface that no program of an agent needs, every
address family beyond four (AF_VSOCK reaches the hypervisor through any network namespace) and of
these every protocol that is seldom used and often broken, new namespaces, and entries by another
architecture's door, where other numbers would pass.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from steward_server.environments.sandbox.inside.syscalls import AUDIT_ARCH, HIGHEST_KNOWN, numbers

ALLOW = 0x7FFF0000
KILL = 0x80000000
ERRNO = 0x00050000

# Offsets in struct seccomp_data. Arguments are 64 bits wide; both architectures put the low half
# first, and the kernel itself looks at no more of those that are tested here.
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_LOAD, _JUMP, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_SET, _AND, _RETURN = (
    0x20,  # BPF_LD | BPF_W | BPF_ABS
    0x05,  # BPF_JMP | BPF_JA
    0x15,  # BPF_JMP | BPF_JEQ | BPF_K
    0x25,  # BPF_JMP | BPF_JGT | BPF_K
    0x45,  # BPF_JMP | BPF_JSET | BPF_K
    0x54,  # BPF_ALU | BPF_AND | BPF_K
    0x06,  # BPF_RET | BPF_K
)

_X32_BIT = 0x40000000
NEW_NAMESPACES = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0  # getaddrinfo asks it for the interfaces
STREAM, DATAGRAM, RAW, PACKET = 1, 2, 3, 10
PROTOCOLS = (0, 1, 6, 17, 58)  # none named, ICMP (echo only, if at all), TCP, UDP, ICMPv6
FILE_TYPE, CHARACTER, BLOCK = 0o170000, 0o020000, 0o060000
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # those of Docker's profile
RLIMIT_CORE = 4

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""


def program(machine: str, *, is_alone: bool = False) -> bytes:
    """The filter for an architecture, such as `x86_64`, as an array of struct sock_filter.

    With `is_alone` it is for a machine whose commands have the user of its pid 1, and must not
    change the limits of that.

    Raises:
        KeyError: an architecture that nobody has looked at.
    """
    calls = numbers(machine)
    special = {
        # ENOSYS, not EPERM: the C library then falls back to clone, whose flags can be read.
        "clone3": [_refuse(errno.ENOSYS)],
        "clone": [_argument(0), (_JUMP_SET, 0, 1, NEW_NAMESPACES), _refuse(errno.EPERM), _ALLOW],
        "socket": _socket(),
        "socketpair": [_argument(0), *_when(UNIX, [_ALLOW]), _refuse(errno.EAFNOSUPPORT)],
        "mknod": _no_devices(1),
        "mknodat": _no_devices(2),
        "ioctl": [_argument(1), *_refuse_each(TERMINAL_INJECTION), _ALLOW],
        "personality": [_argument(0), *_allow_each(PERSONALITIES), _refuse(errno.EPERM)],
        "setrlimit": [_argument(0), *_when(RLIMIT_CORE, [_PRETEND]), _ALLOW],
        "prlimit64": [
            *(_only_own_limits() if is_alone else []),
            _argument(1),
            *_when(RLIMIT_CORE, _unless_asked(2)),
            _ALLOW,
        ],
    }
    lines: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        _KILL,
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_SET, 0, 1, _X32_BIT), _KILL]
    lines += [(_JUMP_GREATER, 0, 1, HIGHEST_KNOWN), _refuse(errno.ENOSYS)]
    for name, number in sorted(calls.items()):
        lines += _when(number, special.get(name, [_refuse(errno.EPERM)]))
    return b"".join(struct.pack("=HBBI", *line) for line in [*lines, _ALLOW])


_ALLOW: Instruction = (_RETURN, 0, 0, ALLOW)
_KILL: Instruction = (_RETURN, 0, 0, KILL)
_PRETEND: Instruction = (_RETURN, 0, 0, ERRNO | 0)
"""Does nothing, and says that it is done."""


def _refuse(number: int) -> Instruction:
    return (_RETURN, 0, 0, ERRNO | number)


def _argument(index: int, *, high: bool = False) -> Instruction:
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * index + 4 * high)


def _when(value: int, body: list[Instruction]) -> list[Instruction]:
    """Run a body, which always returns, if what was loaded last is a value."""
    return [(_JUMP_EQUAL, 0, len(body), value), *body]


def _allow_each(values: Iterable[int]) -> list[Instruction]:
    return [line for value in values for line in _when(value, [_ALLOW])]


def _refuse_each(values: Iterable[int]) -> list[Instruction]:
    return [line for value in values for line in _when(value, [_refuse(errno.EPERM)])]


def _no_devices(index: int) -> list[Instruction]:
    kind: list[Instruction] = [_argument(index), (_AND, 0, 0, FILE_TYPE)]
    return [*kind, *_refuse_each((CHARACTER, BLOCK)), _ALLOW]


def _only_own_limits() -> list[Instruction]:
    return [_argument(0), (_JUMP_EQUAL, 1, 0, 0), _refuse(errno.EPERM)]


def _unless_asked(index: int) -> list[Instruction]:
    """Allow a call whose pointer to new values is null.

    The limit of core files stays what it is: one byte, which is how the kernel is told not to run
    the host's own handler of crashes on what crashes in a machine. No byte would not tell it.
    """
    return [
        _argument(index),
        (_JUMP_EQUAL, 1, 0, 0),
        _PRETEND,
        _argument(index, high=True),
        (_JUMP_EQUAL, 1, 0, 0),
        _PRETEND,
        _ALLOW,
    ]


def _socket() -> list[Instruction]:
    """Four families; of the internet's no raw socket, and only the protocols of everyday."""
    protocols = [_argument(2), *_allow_each(PROTOCOLS), _refuse(errno.EPROTONOSUPPORT)]
    internet = [
        _argument(1),
        (_AND, 0, 0, 0xF),  # without SOCK_CLOEXEC and SOCK_NONBLOCK
        *_refuse_each((RAW, PACKET)),
        *_when(STREAM, protocols),
        *_when(DATAGRAM, protocols),
        _refuse(errno.ESOCKTNOSUPPORT),
    ]
    netlink = [
        _argument(2),
        *_when(NETLINK_ROUTE, [_ALLOW]),
        _refuse(errno.EAFNOSUPPORT),
    ]
    return [
        _argument(0),
        *_when(UNIX, [_ALLOW]),
        *_when(NETLINK, netlink),
        *_when(INET, internet),
        *_when(INET6, internet),
        _refuse(errno.EAFNOSUPPORT),
    ]
