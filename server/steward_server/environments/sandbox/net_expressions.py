"""What rules of the packet filter are made of: steps that each go on, or end the rule. Pure."""

from __future__ import annotations

import struct
from typing import Any

from pyroute2.netlink.nfnetlink import nftsocket
from pyroute2.nftables.expressions import genex

ACCEPT, DROP, GOTO = 1, 0, -4
"""Verdicts, by the kernel's numbers."""


def load(key: nftsocket.Meta, register: int = 1) -> Any:
    """Load what is known about a packet."""
    return genex("meta", {"key": int(key), "dreg": register})


def load_network(offset: int, length: int, register: int = 1) -> Any:
    """Load from the network header."""
    return genex("payload", {"dreg": register, "base": 1, "offset": offset, "len": length})


def load_transport(offset: int, length: int, register: int = 1) -> Any:
    """Load from the transport header."""
    return genex("payload", {"dreg": register, "base": 2, "offset": offset, "len": length})


def compare(data: bytes, *, equal: bool = True) -> Any:
    """Go on only if what was loaded is this, or is not."""
    values = {"attrs": [("NFTA_DATA_VALUE", data)]}
    return genex("cmp", {"sreg": 1, "op": 0 if equal else 1, "data": values})


def look_up(name: str, *, found: bool = True) -> Any:
    """Go on only if what was loaded is in a set, or is not."""
    return genex(
        "lookup", {"set": name, "sreg": 1, "flags": set() if found else {"NFT_LOOKUP_F_INV"}}
    )


def connection_states(*bits: int) -> tuple[Any, ...]:
    """Go on only if the packet's connection is in one of these states, of the kernel's numbers."""
    mask = struct.pack("=I", sum(bits))
    return (
        genex("ct", {"key": 0, "dreg": 1}),
        genex(
            "bitwise",
            {
                "sreg": 1,
                "dreg": 1,
                "len": 4,
                "mask": {"attrs": [("NFTA_DATA_VALUE", mask)]},
                "xor": {"attrs": [("NFTA_DATA_VALUE", bytes(4))]},
            },
        ),
        compare(bytes(4), equal=False),
    )


def is_answer() -> tuple[Any, ...]:
    """Go on only if the other side has opened the connection."""
    return genex("ct", {"key": 1, "dreg": 1}), compare(b"\x01")


def connections_over(group: str, count: int) -> Any:
    """Go on only if the key that was loaded has more connections than this, counted in a set."""
    over = genex("connlimit", {"count": count, "flags": {"NFT_LIMIT_F_INV"}})
    return genex("dynset", {"set_name": group, "op": 0, "sreg_key": 1, "expr": over})


def verdict(code: int, chain: str | None = None) -> Any:
    """Decide; or go on in a chain."""
    told = [("NFTA_VERDICT_CODE", code), *((("NFTA_VERDICT_CHAIN", chain),) if chain else ())]
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": told})]}
    return genex("immediate", {"dreg": 0, "data": data})


def reset() -> Any:
    """Refuse a TCP connection at once."""
    return genex("reject", {"type": 1, "icmp_code": 0})


def prohibit() -> Any:
    """Refuse a packet at once, as forbidden by an administrator."""
    return genex("reject", {"type": 2, "icmp_code": 3})


def masquerade() -> Any:
    """Send it under the address of the interface it leaves by."""
    return genex("masq", {})
