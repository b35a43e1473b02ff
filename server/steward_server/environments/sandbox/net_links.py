"""A machine's interface: one end in the machine, one on the host, and the way between them.

Everything here takes the time the kernel takes; it belongs in a thread of its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

INSIDE = "eth0"
"""What a machine calls its interface."""
_CLONE_NEWNET = 0x4000_0000
_UNICAST = 1
_LINK_SCOPE = 253
_USUAL_MTU = 1500
_WAIT_S, _MOST_WAITS = 0.001, 2_000
_SETTINGS = Path("/proc/sys/net")
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Link:
    """The host's end of a machine's interface."""

    name: str
    index: int
    label: str
    """What was written on it; empty if whoever made it came no further."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where packets for a network leave the host."""

    network: IPv4Network
    interface: int
    is_way: bool
    """Whether packets are sent on; else the network is the host's own address."""


class Links:
    """The interfaces of the network namespace it is opened in. Used by one thread alone."""

    def __init__(self) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._route = IPRoute()
        except OSError:
            os.close(self._own)
            raise

    def close(self) -> None:
        self._route.close()
        os.close(self._own)

    def of_group(self, group: int) -> list[Link]:
        """The interfaces of a group."""
        return [
            Link(
                each.get_attr("IFLA_IFNAME"),
                each["index"],
                each.get_attr("IFLA_IFALIAS") or "",
            )
            for each in self._route.get_links()
            if each.get_attr("IFLA_GROUP") == group
        ]

    def names(self) -> dict[int, tuple[str, int]]:
        """Name and greatest packet of each interface, by its index."""
        return {
            each["index"]: (each.get_attr("IFLA_IFNAME"), each.get_attr("IFLA_MTU") or _USUAL_MTU)
            for each in self._route.get_links()
        }

    def routes(self) -> list[Route]:
        """Every way that leads out of the host, and its own addresses."""
        found = []
        for each in self._route.get_routes(family=2):
            target = each.get_attr("RTA_DST") or "0.0.0.0"  # noqa: S104 - the way to everywhere
            network = IPv4Network(f"{target}/{each['dst_len']}")
            paths = [each.get_attr("RTA_OIF")]
            paths += [hop["oif"] for hop in each.get_attr("RTA_MULTIPATH") or ()]
            is_way = each["type"] == _UNICAST
            found += [Route(network, index, is_way) for index in paths if index]
        return found

    def add(
        self,
        name: str,
        label: str,
        group: int,
        netns: int,
        *,
        address: IPv4Address,
        gateway: IPv4Address,
        mtu: int,
    ) -> None:
        """Make a machine's interface, both ends, ready to be used.

        Raises:
            OSError: it could not be made; what was made of it may be left.
        """
        self._route.link(
            "add",
            ifname=name,
            kind="veth",
            group=group,
            mtu=mtu,
            peer={"ifname": INSIDE, "net_ns_fd": netns, "mtu": mtu},
        )
        index = self._index(name)
        self._route.link("set", index=index, ifalias=label)
        # No address of its own makes itself here, and nothing is told about better ways.
        _set(f"ipv6/conf/{name}/disable_ipv6", "1")
        for setting in ("accept_redirects", "send_redirects"):
            _set(f"ipv4/conf/{name}/{setting}", "0")
        self._route.addr("add", index=index, address=str(gateway), prefixlen=32)
        self._route.link("set", index=index, state="up")
        self._route.route(
            "add",
            dst=f"{address}/32",
            oif=index,
            prefsrc=str(gateway),
            scope=_LINK_SCOPE,
        )
        with self._inside(netns):
            _set("ipv6/conf/all/disable_ipv6", "1")
            _set("ipv6/conf/default/disable_ipv6", "1")
            with IPRoute() as inside:
                loopback = inside.link_lookup(ifname="lo")[0]
                own = inside.link_lookup(ifname=INSIDE)[0]
                inside.link("set", index=loopback, state="up")
                inside.addr("add", index=own, address=str(address), prefixlen=32)
                inside.link("set", index=own, state="up")
                inside.route("add", dst=f"{gateway}/32", oif=own, scope=_LINK_SCOPE)
                inside.route("add", dst="default", gateway=str(gateway), oif=own)
        self._wait_until_up(index)

    def _wait_until_up(self, index: int) -> None:
        """Wait until the kernel has noticed that both ends are up; what is sent before is lost."""
        for _ in range(_MOST_WAITS):
            if self._route.get_links(index)[0].get_attr("IFLA_OPERSTATE") == "UP":
                return
            time.sleep(_WAIT_S)

    def try_out(self) -> None:
        """Make an interface in a network namespace that goes with it: the host sees nothing of it.

        Raises:
            OSError: the kernel has none to give.
        """
        if _LIBC.unshare(_CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"no network namespace can be made: {os.strerror(code)}")
        try:
            with IPRoute() as trial:
                trial.link("add", ifname=INSIDE, kind="veth", peer={"ifname": "other"})
        finally:
            _enter(self._own)

    def remove(self, name: str) -> None:
        """Remove both ends; nothing if it is gone."""
        for index in self._route.link_lookup(ifname=name):
            try:
                self._route.link("del", index=index)
            except NetlinkError as error:
                if error.code != errno.ENODEV:  # gone with its machine meanwhile
                    raise

    def _index(self, name: str) -> int:
        found: list[int] = self._route.link_lookup(ifname=name)
        if not found:
            raise OSError(errno.ENODEV, f"there is no interface {name}")
        return found[0]

    @contextmanager
    def _inside(self, netns: int) -> Iterator[None]:
        _enter(netns)
        try:
            yield
        finally:
            _enter(self._own)


def forwards(interface: str = "all") -> bool:
    """Whether the host passes on what comes in by an interface; of all: whether it is a router."""
    try:
        return (_SETTINGS / f"ipv4/conf/{interface}/forwarding").read_text().strip() == "1"
    except OSError:
        return False


def set_forwarding(interface: str, *, on: bool) -> None:
    """Have the host pass on what comes in by one interface, or not.

    Raises:
        OSError: the settings cannot be written here.
    """
    (_SETTINGS / f"ipv4/conf/{interface}/forwarding").write_text("1" if on else "0")


def may_set_forwarding() -> bool:
    return os.access(_SETTINGS / "ipv4/conf/all/forwarding", os.W_OK)


def nameservers(*files: Path) -> tuple[IPv4Address, ...]:
    """The servers of names that this host asks, those left out that only it can reach.

    The first file that names any counts.
    """
    for file in files:
        found = []
        with suppress(OSError):
            for line in file.read_text().splitlines():
                words: Any = line.split()
                if words[:1] == ["nameserver"] and len(words) > 1:
                    with suppress(ValueError):
                        found.append(IPv4Address(words[1]))
        usable = tuple(each for each in found if not (each.is_loopback or each.is_link_local))
        if usable:
            return usable
    return ()


def _set(setting: str, value: str) -> None:
    """Change a setting of the kernel where it has it."""
    with suppress(OSError):
        (_SETTINGS / setting).write_text(value)


def _enter(netns: int) -> None:
    if _LIBC.setns(netns, _CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"the machine's network cannot be entered: {os.strerror(code)}")
