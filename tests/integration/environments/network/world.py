"""A small world of network namespaces: a host, and beyond it an internet, a private range and the
metadata address. Nothing of it touches the machine that the tests run on, and nothing is left of
it: a namespace lives as long as its descriptor.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from pyroute2 import IPRoute

INTERNET = "198.51.100.2"
HOST_OUTSIDE = "198.51.100.1"
PRIVATE = "10.9.0.2"
OTHER_PRIVATE = "172.16.5.2"
METADATA = "169.254.169.254"
RESOLVER = "10.9.0.53"
HOST_INSIDE = "10.9.0.1"
PATIENCE_S = 10.0
"""How long an answer that comes may take, on a machine that has much else to do."""
SHORT_S = 0.7
"""How long one is waited for that does not come."""
WEB, DNS, SECRET = 80, 53, 8443

_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


class Space:
    """A network namespace with nothing in it."""

    def __init__(self) -> None:
        opened: list[int] = []

        def make() -> None:
            if _LIBC.unshare(_NEWNET) != 0:
                opened.append(-ctypes.get_errno())
                return
            opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        self.fd = opened[0]
        if self.fd < 0:
            raise OSError(-self.fd, os.strerror(-self.fd))

    def close(self) -> None:
        os.close(self.fd)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it for the block."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        assert _LIBC.setns(self.fd, _NEWNET) == 0
        try:
            yield
        finally:
            assert _LIBC.setns(before, _NEWNET) == 0
            os.close(before)

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        with self.entered():
            sock = socket.socket(family, kind)
        sock.setblocking(False)
        return sock

    def route(self, work: Callable[[IPRoute], None]) -> None:
        """Change its interfaces and routes; in a thread, for that waits for the kernel."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                with self.entered(), IPRoute() as route:
                    work(route)
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def up(self, name: str, *addresses: str) -> None:
        """Give an interface its addresses and switch it on."""

        def work(route: IPRoute) -> None:
            for address in addresses:
                host, _, length = address.partition("/")
                index = route.link_lookup(ifname=name)[0]
                route.addr("add", index=index, address=host, prefixlen=int(length))
            for each in (name, "lo"):
                route.link("set", index=route.link_lookup(ifname=each)[0], state="up")

        self.route(work)


@dataclass
class World:
    """The host, with whoever is around it."""

    host: Space = field(default_factory=Space)
    around: list[Space] = field(default_factory=list)
    servers: list[socket.socket] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def neighbour(self, link: str, host_address: str, *addresses: str) -> Space:
        """A namespace that a link of the host leads to."""
        space = Space()
        self.around.append(space)
        peer = {"ifname": "up0", "net_ns_fd": space.fd}
        self.host.route(lambda route: route.link("add", ifname=link, kind="veth", peer=peer))
        self.host.up(link, host_address)
        space.up("up0", *addresses)
        gateway = host_address.partition("/")[0]
        space.route(lambda route: route.route("add", dst="default", gateway=gateway))
        return space

    def serve(self, space: Space, port: int, address: str = "0.0.0.0") -> None:
        """Answer whoever connects with the address they came from."""
        sock = space.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen()
        self.servers.append(sock)
        self.tasks.append(asyncio.create_task(self._answer(sock)))

    def serve_datagrams(self, space: Space, port: int, address: str = "0.0.0.0") -> None:
        sock = space.socket(socket.SOCK_DGRAM)
        sock.bind((address, port))
        self.servers.append(sock)
        self.tasks.append(asyncio.create_task(self._echo(sock)))

    async def _answer(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, peer = await loop.sock_accept(sock)
            with suppress(OSError):
                await loop.sock_sendall(connection, peer[0].encode())
            self.servers.append(connection)

    async def _echo(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, peer = await loop.sock_recvfrom(sock, 512)
            await loop.sock_sendto(sock, data, peer)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for sock in self.servers:
            sock.close()
        for space in (self.host, *self.around):
            space.close()


async def make_world() -> World:
    """The host and all around it, with something that answers wherever an agent might look."""
    world = World()
    world.host.up("lo")
    internet = world.neighbour("uplink", f"{HOST_OUTSIDE}/24", f"{INTERNET}/24", "203.0.113.9/32")
    private = world.neighbour("office", f"{HOST_INSIDE}/24", f"{PRIVATE}/24", f"{RESOLVER}/24")
    private.up("up0", f"{OTHER_PRIVATE}/32")
    metadata = world.neighbour("cloud", "169.254.169.1/24", f"{METADATA}/24")
    host = world.host
    host.route(lambda route: route.route("add", dst="default", gateway=INTERNET))
    host.route(lambda route: route.route("add", dst=f"{OTHER_PRIVATE}/32", gateway=PRIVATE))
    for space in (internet, private, metadata, world.host):
        for port in (WEB, DNS):
            world.serve(space, port)
    for space, address in (
        (internet, INTERNET),
        (private, PRIVATE),
        (private, RESOLVER),
        (metadata, METADATA),
        (host, "0.0.0.0"),
    ):
        world.serve_datagrams(space, DNS, address)
    world.serve(world.host, SECRET, "127.0.0.1")
    return world


@dataclass(frozen=True)
class Reached:
    """How a connection went."""

    how: str
    """`connected`, `refused`, `unreachable` or `timeout`."""
    seen_as: str
    """The address the other side saw."""
    took_s: float


async def reach(
    space: Space, address: str, port: int = WEB, *, patience_s: float = PATIENCE_S
) -> Reached:
    """Try to connect from a namespace."""
    loop = asyncio.get_running_loop()
    sock = space.socket()
    start = time.monotonic()
    seen_as = ""
    try:
        async with asyncio.timeout(patience_s):
            await loop.sock_connect(sock, (address, port))
            seen_as = (await loop.sock_recv(sock, 64)).decode()
            how = "connected"
    except TimeoutError:
        how = "timeout"
    except ConnectionRefusedError:
        how = "refused"
    except OSError:
        how = "unreachable"
    finally:
        sock.close()
    return Reached(how, seen_as, time.monotonic() - start)


async def ask(
    space: Space, address: str, port: int = DNS, *, patience_s: float = PATIENCE_S
) -> str:
    """Send a datagram; `answered`, or how it failed."""
    loop = asyncio.get_running_loop()
    sock = space.socket(socket.SOCK_DGRAM)
    try:
        async with asyncio.timeout(patience_s):
            await loop.sock_connect(sock, (address, port))
            await loop.sock_sendall(sock, b"who?")
            await loop.sock_recv(sock, 64)
            return "answered"
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return os.strerror(error.errno or 0)
    finally:
        sock.close()


async def connects(space: Space, address: str, port: int = WEB) -> bool:
    return (await reach(space, address, port)).how == "connected"


async def gets_nowhere(space: Space, address: str, port: int = WEB) -> bool:
    """Whether nobody answers, be it with a refusal."""
    reached = await reach(space, address, port, patience_s=SHORT_S)
    return reached.how != "connected"


async def refuses(space: Space, address: str, port: int = WEB) -> bool:
    """Whether it says no at once: nobody waits for what will not come."""
    reached = await reach(space, address, port)
    return reached.how in ("refused", "unreachable") and reached.took_s < PATIENCE_S / 2
