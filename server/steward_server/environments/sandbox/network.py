"""Networks of machines: each has an interface of its own, and reaches what its policy lists.

Start reading at net_rules.py for what passes and what does not. What is put on the host:

    interfaces   `steward-…`, one for each machine with a network, of a group of this server's own;
                 each tells its machine, so that a restarted server knows them
    one table    of packet filter rules, which speak of these interfaces only. Connections are
                 tracked from then on, the host's too: translation of addresses needs it
    forwarding   for these interfaces, and for those by which answers come back (net_ways.py); the
                 host does not become a router

All of it goes with the last machine. Machines with no network need none of it.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog
from pyroute2.netlink.exceptions import NetlinkError

from steward_server.completion import finish
from steward_server.environments.driver import Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.sandbox import net_links, net_nft, net_probe, net_rules
from steward_server.environments.sandbox.net_links import Link, Links
from steward_server.environments.sandbox.net_nft import Element, Filter, Refused
from steward_server.environments.sandbox.net_pool import Pool, choose
from steward_server.environments.sandbox.net_ways import Ways, names_in

MOST_CONNECTIONS = 2_048
"""Of one machine at once. A host remembers a few hundred thousand; then it loses its own."""

_WATCH_S = 5
"""How often it is looked whether others have changed what machines stand on."""
_OWNED, _LASTING = 2, 4
"""Flags of a table: nobody else may change it; it outlives its owner. Since Linux 6.9."""
_HOSTS_NAMES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))

_P = ParamSpec("_P")
_T = TypeVar("_T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a machine is."""

    address: IPv4Address
    gateway: IPv4Address
    interface: str
    """The host's end."""
    nameservers: tuple[IPv4Address, ...] = ()
    """Those it may ask; they belong into its resolv.conf."""


@dataclass(frozen=True, slots=True)
class _Machine:
    at: Address
    elements: frozenset[Element]

    @property
    def reach(self) -> net_rules.Reach:
        return net_rules.reach(self.elements)


class Network:
    """The networks of one server's machines.

    `label` is `steward-` and what tells this server from others on the host. It works in the
    network namespace of the thread that calls `open`.
    """

    def __init__(
        self,
        label: str,
        *,
        pool: IPv4Network | None = None,
        nameservers: Sequence[IPv4Address] | None = None,
        most_connections: int = MOST_CONNECTIONS,
    ) -> None:
        self._label = label
        digest = hashlib.sha256(label.encode()).digest()
        self._group = int.from_bytes(digest[:4]) >> 1 or 1
        self._wanted_pool = pool
        self._given_nameservers = nameservers
        self._nameservers: tuple[IPv4Address, ...] = ()
        self._most_connections = most_connections
        self._machines: dict[str, _Machine] = {}
        self._table_flags = _OWNED | _LASTING
        self._kernel: _Kernel | None = None
        # Sockets, and what a thread sees of settings, belong to one network namespace.
        self._thread = ThreadPoolExecutor(1, "steward-network")
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False
        self.warnings: tuple[str, ...] = ()
        """What may keep machines from what they are allowed to reach."""

    async def open(self) -> str:
        """Find out whether machines can have a network here, and which have one.

        Returns why not and what to do about it; empty if they can. Nothing is left on the host
        unless machines live.
        """
        why = await self._run(self._open)
        if not why:
            self._watching = asyncio.create_task(self._watch(), name="network watch")
        return why

    async def aclose(self) -> None:
        """Let go; the machines keep their networks. Again: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def attach(self, machine_id: str, netns: int, policy: NetworkPolicy) -> Address | None:
        """Give a machine its network; None if its policy asks for none.

        `netns` is a descriptor of its network namespace. It has no interface there before.

        Raises:
            Unusable: reason NO_IPV6, NO_ADDRESSES or NO_NETWORK; nothing of it is left.
        """
        _check(policy)
        if not _asks(policy):
            return None
        # Given up, it is waited for: the descriptor's number may be another machine's at once.
        return await finish(self._run(self._attach, machine_id, netns, policy))

    async def change(self, machine_id: str, policy: NetworkPolicy) -> Address | None:
        """Let a machine reach something else, at once: what is closed is cut.

        Raises:
            Unusable: reason NO_IPV6; or NO_NETWORK, for it was made without one.
        """
        _check(policy)
        return await self._run(self._change, machine_id, policy)

    async def detach(self, machine_id: str) -> None:
        """Take a machine's network away; nothing if it has none."""
        await self._run(self._detach, machine_id)

    async def list_owned(self) -> set[str]:
        """The machines whose networks exist."""
        return await self._run(self._list_owned)

    def address(self, machine_id: str) -> Address | None:
        """Where a machine is; None if it has no network."""
        machine = self._machines.get(machine_id)
        return None if machine is None else machine.at

    async def _run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(work, *args, **kwargs))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_S)
            try:
                if what := await self._run(self._repair):
                    log.warning("network.repaired", what=what)
            except (OSError, NetlinkError, Unusable) as error:
                log.exception("network.not_repaired", error=str(error))

    # What follows runs in the one thread.

    def _open(self) -> str:
        if why := net_probe.lacks():
            return why
        try:
            self._nameservers = tuple(
                net_links.nameservers(*_HOSTS_NAMES)
                if self._given_nameservers is None
                else self._given_nameservers
            )
            kernel = self._kernel = _Kernel(self._label, self._group, self._apply)
            kernel.ways.opened = self._find_machines(kernel)
            ours = {link.index for link in kernel.links.of_group(self._group)}
            routes = kernel.links.routes()
            taken = (route.network for route in routes if route.interface not in ours)
            kernel.pool = choose(taken, self._wanted_pool)
            self._build(keep=bool(self._machines))
            kernel.links.try_out()
            if not self._machines:
                kernel.ways.close()
            self.warnings = net_probe.notes(kernel.packets.dropping_chains(), self._nameservers)
        except (OSError, NetlinkError, Unusable) as error:
            self._close()
            return str(error) if isinstance(error, Unusable) else net_probe.why(error)
        return ""

    def _close(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    @property
    def _open_kernel(self) -> _Kernel:
        if self._kernel is None:
            raise Unusable("NO_NETWORK", "machines can have no network on this host")
        return self._kernel

    def _find_machines(self, kernel: _Kernel) -> set[str]:
        """Learn what a server before this one has left; returns the interfaces it opened."""
        standing: set[Element] = set()
        if kernel.packets.has_table(self._label):
            for group in net_rules.SETS:
                with suppress(Refused):  # a set that an older server did not know
                    standing.update(kernel.packets.elements(self._label, group))
        for link in kernel.links.of_group(self._group):
            if told := self._told_by(link):
                machine_id, address, gateway = told
                own = net_rules.of_interface(standing, link.name)
                at = Address(address, gateway, link.name, net_rules.names_asked(own))
                own |= net_rules.elements(link.name, address, NetworkPolicy(), ())
                self._machines[machine_id] = _Machine(at, own)
            elif link.name.startswith(net_rules.PREFIX) and not link.label:
                kernel.links.remove(link.name)  # whoever made it was killed halfway
        return names_in(standing)

    def _told_by(self, link: Link) -> tuple[str, IPv4Address, IPv4Address] | None:
        """The machine of an interface, its address and gateway; None if it is not ours."""
        told = link.label.split(" ")
        if len(told) != 4 or told[0] != self._label:
            return None
        return told[1], IPv4Address(told[2]), IPv4Address(told[3])

    def _attach(self, machine_id: str, netns: int, policy: NetworkPolicy) -> Address:
        kernel = self._open_kernel
        self._detach(machine_id)
        name = self._interface(machine_id)
        used = {each.at.address for each in self._machines.values()}
        at = Address(
            kernel.pool.take(used),
            kernel.pool.gateway,
            name,
            net_rules.reachable_names(policy, self._nameservers),
        )
        elements = net_rules.elements(name, at.address, policy, self._nameservers)
        machine = self._machines[machine_id] = _Machine(at, elements)
        try:
            mtu = kernel.ways.open(machine.reach)
            self._apply(elements, ())
            kernel.links.remove(name)
            kernel.links.add(
                name,
                f"{self._label} {machine_id} {at.address} {at.gateway}",
                self._group,
                netns,
                address=at.address,
                gateway=at.gateway,
                mtu=mtu,
            )
            self._let_forward(machine)
        except (OSError, NetlinkError) as error:
            self._detach(machine_id)
            text = f"the network of environment {machine_id!r} cannot be made: {error}"
            raise Unusable("NO_NETWORK", text) from error
        return at

    def _change(self, machine_id: str, policy: NetworkPolicy) -> Address | None:
        kernel = self._open_kernel
        machine = self._machines.get(machine_id)
        if machine is None:
            if not _asks(policy):
                return None
            raise Unusable(
                "NO_NETWORK",
                f"environment {machine_id!r} was made without a network; make another one",
            )
        at = replace(machine.at, nameservers=net_rules.reachable_names(policy, self._nameservers))
        wanted = net_rules.elements(at.interface, at.address, policy, self._nameservers)
        changed = self._machines[machine_id] = _Machine(at, wanted)
        try:
            kernel.ways.open(changed.reach)
            self._apply(wanted - machine.elements, machine.elements - wanted)
            self._let_forward(changed)
        except (OSError, NetlinkError) as error:
            self._machines[machine_id] = machine
            text = f"the network of environment {machine_id!r} cannot be changed: {error}"
            raise Unusable("NO_NETWORK", text) from error
        self._close_ways()
        return at

    def _detach(self, machine_id: str) -> None:
        kernel = self._open_kernel
        machine = self._machines.pop(machine_id, None)
        if machine is None:
            return
        kernel.links.remove(machine.at.interface)
        if self._machines:
            self._apply((), machine.elements)
            self._close_ways()
        else:
            self._clear()

    def _list_owned(self) -> set[str]:
        links = self._open_kernel.links.of_group(self._group)
        return {told[0] for told in map(self._told_by, links) if told}

    def _interface(self, machine_id: str) -> str:
        digest = hashlib.sha256(f"{self._label} {machine_id}".encode()).digest()
        return f"{net_rules.PREFIX}{base64.b32encode(digest)[:7].decode().lower()}"

    def _let_forward(self, machine: _Machine) -> None:
        if machine.reach and not net_links.forwards(machine.at.interface):
            net_links.set_forwarding(machine.at.interface, on=True)

    def _close_ways(self) -> None:
        """Leave the host's interfaces as they were, once no machine needs a way out."""
        if not any(machine.reach for machine in self._machines.values()):
            self._apply((), self._open_kernel.ways.close())

    def _clear(self) -> None:
        """Take everything off the host."""
        kernel = self._open_kernel
        kernel.ways.close()
        if kernel.packets.has_table(self._label):
            kernel.packets.change([net_nft.remove_table(self._label)])

    def _apply(self, added: Iterable[Element], removed: Iterable[Element]) -> None:
        """Change what stands in the sets, at once."""
        changes = net_nft.change_elements(self._label, removed, remove=True)
        changes += net_nft.change_elements(self._label, added)
        if not changes:
            return
        try:
            self._open_kernel.packets.change(changes)
        except Refused as refusal:
            if refusal.errno != errno.ENOENT:
                raise
            # The first machine's, or somebody has taken the table away.
            self._build()

    def _build(self, *, keep: bool = True) -> None:
        """Make the table anew as it should be, in place of what is there.

        If it is not to be kept, the kernel only says whether it could be made.
        """
        kernel = self._open_kernel
        elements = {each for machine in self._machines.values() for each in machine.elements}
        rules = net_rules.table(
            self._label,
            self._group,
            self._most_connections,
            elements | kernel.ways.elements,
        )
        packets = kernel.packets
        remove = [net_nft.remove_table(self._label)]
        before = remove if packets.has_table(self._label) else []
        after = [] if keep else remove
        try:
            made = net_nft.add_table(self._label, self._table_flags)
            packets.change([*before, made, *rules, *after])
        except Refused as refusal:
            if refusal.errno not in (errno.EOPNOTSUPP, errno.EINVAL) or not self._table_flags:
                raise
            self._table_flags = 0
            packets.change([*before, net_nft.add_table(self._label), *rules, *after])

    def _repair(self) -> str:
        """Put right what others have changed; what that was, if anything."""
        kernel = self._kernel
        if kernel is None or not self._machines:
            return ""
        what = ""
        if not kernel.packets.has_table(self._label):
            self._build()
            what = "the rules were gone"
        for machine in self._machines.values():
            if machine.reach:
                kernel.ways.open(machine.reach)  # the host may go out elsewhere by now
        if kernel.ways.let_go():
            what = what or "the host has become a router"
        return what


class _Kernel:
    """What a server holds of the kernel, while it runs."""

    pool: Pool

    def __init__(
        self,
        label: str,
        group: int,
        apply: Callable[[Iterable[Element], Iterable[Element]], None],
    ) -> None:
        self.packets = Filter()
        try:
            self.links = Links()
        except OSError:
            self.packets.close()
            raise
        self.ways = Ways(self.packets, self.links, label, group, apply)

    def close(self) -> None:
        self.packets.close()
        self.links.close()


def _asks(policy: NetworkPolicy) -> bool:
    return bool(policy.allow_internet or policy.allowed_egress)


def _check(policy: NetworkPolicy) -> None:
    other = [str(each) for each in policy.allowed_egress if isinstance(each, IPv6Network)]
    if other:
        raise Unusable(
            "NO_IPV6",
            f"machines of this driver reach IPv4 addresses only; take {', '.join(other)} out of "
            "allowed_egress_cidrs",
        )
