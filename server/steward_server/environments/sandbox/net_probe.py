"""What keeps machines from having networks on a host, by name, and what to do about it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from pyroute2.netlink.exceptions import NetlinkError

from steward_server.environments.sandbox import net_links

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
"""The first changes networks, the second enters a machine's."""


def lacks() -> str:
    """What this process and its host lack; empty if nothing is known to be missing."""
    if sys.platform != "linux":
        return "networks of machines need Linux"
    status = Path("/proc/thread-self/status").read_text()
    held = int(next(line for line in status.splitlines() if line.startswith("CapEff"))[7:], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]
    if missing:
        return (
            f"the server lacks {' and '.join(missing)}; run it as root, or give its unit "
            f"AmbientCapabilities={' '.join(missing)}, or its container --cap-add "
            f"{' --cap-add '.join(missing)}"
        )
    if not net_links.forwards() and not net_links.may_set_forwarding():
        return (
            "/proc/sys/net is read-only here and this host forwards nothing; give the server a "
            "writable /proc/sys/net, or set net.ipv4.ip_forward = 1 on the host"
        )
    return ""


def why(error: OSError | NetlinkError) -> str:
    """What a refusal of the kernel means."""
    code = error.code if isinstance(error, NetlinkError) else error.errno
    if code in (errno.EPERM, errno.EACCES):
        return (
            f"the kernel lets this server change no network ({error}); in a user namespace it "
            "needs a network namespace of its own, and a table of another running server is not "
            "touched"
        )
    if code in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
        return f"this kernel has no nf_tables ({error}); load it: modprobe nf_tables"
    if code in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL):
        return (
            f"this kernel lacks a part of nf_tables or veth ({error}); it takes Linux 5.6 with: "
            "modprobe -a veth nf_tables nft_ct nft_connlimit nft_masq nft_reject_inet"
        )
    return f"networks of machines cannot be used: {error}"


def notes(
    dropping: Iterable[tuple[int, str, str]], nameservers: Sequence[IPv4Address]
) -> tuple[str, ...]:
    """What may keep machines from what they are allowed to reach."""
    found = [
        f"the chain {chain!r} of table {table!r} drops what it does not know of what this host "
        "forwards; let interfaces `steward-*` pass there, or machines reach nothing"
        for _, table, chain in dropping
    ]
    if not nameservers:
        found.append(
            "this host's servers of names can be asked by nobody else; machines find no names "
            "until some are configured"
        )
    return tuple(found)
