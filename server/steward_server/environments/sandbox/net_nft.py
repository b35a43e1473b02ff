"""Speak to the kernel's packet filter: whole changes that happen at once or not at all.

pyroute2 knows how the messages are written. Its own transactions wait for ever where the kernel
refuses one as a whole, so these are sent here: the kernel has answered by the time it has taken
them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyroute2.netlink import (
    NETLINK_NETFILTER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_REQUEST,
)
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg, nftsocket

from steward_server.environments.sandbox import net_expressions as step

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_MOST_BYTES = 16 * 1024 * 1024
"""Of one change: rules for thousands of machines at once."""
_ADD = NLM_F_CREATE | NLM_F_APPEND

HOOKS = {"input": 1, "forward": 2, "output": 3, "postrouting": 4}
NAME_BYTES = 16
"""Of an interface's name in a key, filled with zeros."""


class Refused(OSError):
    """The kernel has not made a change, and nothing of it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One part of a change."""

    kind: int
    flags: int
    content: Any
    """A message of pyroute2."""
    told: str


@dataclass(frozen=True, slots=True)
class Element:
    """What is in a set: a key, or all keys from one to another."""

    group: str
    """The set's name."""
    key: bytes
    end: bytes = b""
    """The last key, if there are several."""


def _message(kind: int, flags: int, told: str, form: Any, /, **values: Any) -> Message:
    content = form()
    content["attrs"] = [
        [form.name2nla(name), value] for name, value in values.items() if value is not None
    ]
    content["nfgen_family"] = nftsocket.NFPROTO_INET
    return Message(kind, flags, content, told)


def add_table(table: str, flags: int = 0) -> Message:
    told = f"table {table}"
    return _message(
        nftsocket.NFT_MSG_NEWTABLE, _ADD, told, nftsocket.nft_table_msg, name=table, flags=flags
    )


def remove_table(table: str) -> Message:
    told = f"removal of table {table}"
    return _message(nftsocket.NFT_MSG_DELTABLE, 0, told, nftsocket.nft_table_msg, name=table)


def add_chain(
    table: str, chain: str, *, hook: str = "", kind: str = "filter", priority: int = 0
) -> Message:
    """A chain; one with a hook sees packets by itself and lets pass what it does not decide."""
    seat = (
        {"attrs": [["NFTA_HOOK_HOOKNUM", HOOKS[hook]], ["NFTA_HOOK_PRIORITY", priority]]}
        if hook
        else None
    )
    return _message(
        nftsocket.NFT_MSG_NEWCHAIN,
        _ADD,
        f"chain {chain}",
        nftsocket.nft_chain_msg,
        table=table,
        name=chain,
        hook=seat,
        policy=step.ACCEPT if hook else None,
        type=kind if hook else None,
    )


def add_rule(table: str, chain: str, *expressions: Any) -> Message:
    told = "/".join(each["attrs"][0][1] for each in expressions)
    return _message(
        nftsocket.NFT_MSG_NEWRULE,
        _ADD,
        f"rule {told} in chain {chain}",
        nftsocket.nft_rule_msg,
        table=table,
        chain=chain,
        expressions=list(expressions),
    )


def add_set(
    table: str,
    name: str,
    number: int,
    lengths: Sequence[int],
    *,
    intervals: bool = False,
    learns: bool = False,
) -> Message:
    """A set whose keys have parts of these lengths. One that learns is filled by rules."""
    flags = {"NFT_SET_EVAL"} if learns else set()
    description = None
    if intervals:
        flags.add("NFT_SET_INTERVAL")
    if intervals and len(lengths) > 1:
        flags.add("NFT_SET_CONCAT")
        fields = (_attribute(1, _attribute(1, struct.pack(">I", each))) for each in lengths)
        description = _attribute(2, b"".join(fields))
    return _message(
        nftsocket.NFT_MSG_NEWSET,
        _ADD,
        f"set {name}",
        _SetMessage,
        table=table,
        name=name,
        flags=flags,
        key_type=0,
        key_len=sum(-(-each // 4) * 4 for each in lengths),
        id=number,
        desc=description,
    )


def change_elements(
    table: str, elements: Iterable[Element], *, remove: bool = False
) -> list[Message]:
    """Put elements into their sets, or take them out."""
    by_set: dict[str, list[Element]] = {}
    for element in sorted(elements, key=lambda each: (each.group, each.key)):
        by_set.setdefault(element.group, []).append(element)
    return [
        _message(
            nftsocket.NFT_MSG_DELSETELEM if remove else nftsocket.NFT_MSG_NEWSETELEM,
            0 if remove else NLM_F_CREATE,
            f"{'removal of ' * remove}elements of set {group}",
            nftsocket.nft_set_elem_list_msg,
            table=table,
            set=group,
            elements=[_element(each) for each in some],
        )
        for group, elements_of in by_set.items()
        for some in _pieces(elements_of)
    ]


def add_ranges(table: str, name: str, ranges: Iterable[tuple[bytes, bytes]]) -> Message:
    """Fill a set of plain intervals; each from its first key to the one behind its last."""
    ends = []
    for first, behind in ranges:
        ends.append({"attrs": [["NFTA_SET_ELEM_KEY", _data(first)]]})
        if behind:
            ends.append(
                {
                    "attrs": [
                        ["NFTA_SET_ELEM_KEY", _data(behind)],
                        ["NFTA_SET_ELEM_FLAGS", {1}],
                    ]
                }
            )
    return _message(
        nftsocket.NFT_MSG_NEWSETELEM,
        NLM_F_CREATE,
        f"elements of set {name}",
        nftsocket.nft_set_elem_list_msg,
        table=table,
        set=name,
        elements=ends,
    )


def name_key(interface: str) -> bytes:
    """An interface as part of a key."""
    return interface.encode().ljust(NAME_BYTES, b"\0")


class Filter:
    """A connection to the packet filter of the network namespace it was opened in."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        try:
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _MOST_BYTES)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._number = 0

    def close(self) -> None:
        self._socket.close()

    def change(self, messages: Sequence[Message]) -> None:
        """Make a change, all of it or nothing.

        Raises:
            Refused: nothing was changed; the error number says why.
        """
        told: dict[int, str] = {}
        data = bytearray(self._packed(nfgen_msg(), _BATCH_BEGIN, NLM_F_REQUEST, batch=True))
        for message in messages:
            kind = NFNL_SUBSYS_NFTABLES << 8 | message.kind
            data += self._packed(message.content, kind, NLM_F_REQUEST | message.flags)
            told[self._number] = message.told
        data += self._packed(nfgen_msg(), _BATCH_END, NLM_F_REQUEST, batch=True)
        self._socket.send(data)
        # Only refusals are answered, and they are here by now; the first is the cause.
        first: Refused | None = None
        for kind, number, body in self._answers(wait=False):
            code = -struct.unpack_from("=i", body)[0]
            if kind == _NLMSG_ERROR and code and first is None:
                first = Refused(code, f"{told.get(number, 'the change')}: {os.strerror(code)}")
        if first is not None:
            raise first

    def has_table(self, table: str) -> bool:
        return table in self.tables()

    def tables(self) -> set[str]:
        """The names of all tables for packets of both protocols."""
        found = self._dump(nftsocket.nft_table_msg, nftsocket.NFT_MSG_GETTABLE)
        return {each.get_attr("NFTA_TABLE_NAME") for each in found}

    def elements(self, table: str, group: str) -> list[Element]:
        """What is in a set.

        Raises:
            Refused: there is no such set.
        """
        found = self._dump(
            nftsocket.nft_set_elem_list_msg,
            nftsocket.NFT_MSG_GETSETELEM,
            table=table,
            set=group,
        )
        return [
            Element(group, _value(each, "KEY"), _value(each, "KEY_END"))
            for message in found
            for each in message.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ()
        ]

    def dropping_chains(self) -> list[tuple[int, str, str]]:
        """Protocol, table and name of each chain that forwards nothing it does not know."""
        found = self._dump(nftsocket.nft_chain_msg, nftsocket.NFT_MSG_GETCHAIN, family=0)
        return [
            (
                each["nfgen_family"],
                each.get_attr("NFTA_CHAIN_TABLE"),
                each.get_attr("NFTA_CHAIN_NAME"),
            )
            for each in found
            if (hook := each.get_attr("NFTA_CHAIN_HOOK")) is not None
            and hook.get_attr("NFTA_HOOK_HOOKNUM") == HOOKS["forward"]
            and each.get_attr("NFTA_CHAIN_POLICY") == step.DROP
        ]

    def _dump(
        self, form: Any, kind: int, *, family: int = nftsocket.NFPROTO_INET, **values: str
    ) -> list[Any]:
        request = _message(kind, 0, "", form, **values).content
        request["nfgen_family"] = family
        kind |= NFNL_SUBSYS_NFTABLES << 8
        self._socket.send(self._packed(request, kind, NLM_F_REQUEST | NLM_F_DUMP))
        found = []
        for answer, number, body in self._answers(wait=True):
            if number != self._number:
                continue
            if answer in (_NLMSG_DONE, _NLMSG_ERROR):
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise Refused(code, os.strerror(code))
                break
            decoded = form(struct.pack("=IHHII", len(body) + 16, answer, 0, 0, 0) + body)
            decoded.decode()
            found.append(decoded)
        return found

    def _packed(self, content: Any, kind: int, flags: int, *, batch: bool = False) -> bytes:
        self._number += 1
        if batch:
            content["res_id"] = NFNL_SUBSYS_NFTABLES
        content["header"]["type"] = kind
        content["header"]["flags"] = flags
        content["header"]["sequence_number"] = self._number
        content.reset()
        content.encode()
        return bytes(content.data)

    def _answers(self, *, wait: bool) -> Iterable[tuple[int, int, bytes]]:
        """Kind, number and body of each message that has come."""
        while True:
            try:
                data = self._socket.recv(_MOST_BYTES, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    continue  # more refusals than have room; one is enough
                raise
            at = 0
            while at + 16 <= len(data):
                length, kind, _, number, _ = struct.unpack_from("=IHHII", data, at)
                yield kind, number, data[at + 16 : at + length]
                at += -(-length // 4) * 4


class _SetMessage(nftsocket.nft_set_msg):  # type: ignore[misc]
    """pyroute2 writes the fields of a key in a form that the kernel does not take."""

    nla_map = tuple(
        (name, "cdata" if name == "NFTA_SET_DESC" else kind)
        for name, kind in nftsocket.nft_set_msg.nla_map
    )


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def _data(value: bytes) -> Any:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _element(element: Element) -> Any:
    attributes = [["NFTA_SET_ELEM_KEY", _data(element.key)]]
    if element.end:
        attributes.append(["NFTA_SET_ELEM_KEY_END", _data(element.end)])
    return {"attrs": attributes}


def _pieces(elements: list[Element]) -> Iterable[list[Element]]:
    # The length of a list of elements is told in sixteen bits.
    for start in range(0, len(elements), 500):
        yield elements[start : start + 500]


def _value(element: Any, which: str) -> bytes:
    data = element.get_attr(f"NFTA_SET_ELEM_{which}")
    return b"" if data is None else bytes(data.get_attr("NFTA_DATA_VALUE"))
