"""Where webhooks may lead."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver

from steward_server.alerts.addresses import (
    BadAddress,
    PrivateAddress,
    PublicResolver,
    check_name,
    check_url,
    is_public,
)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1"),
        *("224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1"),
    ],
)
def test_an_address_inside_is_told_however_it_is_written(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_an_address_of_the_open_internet_is_let_through(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("https://", "host"),
        ("example.com", "https"),
        ("https://user:secret@example.com/", "user name"),
        ("https://example.com/#top", "fragment"),
        ("https://exa mple.com/", "characters"),
        ("https://example.com\\@127.0.0.1/", "characters"),
        ("https://example.com:99999/", "not a URL"),
        ("https://127.0.0.1/", "private"),
        ("https://[::1]:8443/", "private"),
        ("https://[::ffff:169.254.169.254]/", "private"),
        ("https://localhost/", "private"),
        ("https://LOCALHOST./", "private"),
        ("https://db.localhost/", "private"),
        *(
            (f"https://{host}/", "private")
            for host in ("2130706433", "127.1", "0x7f.0x1", "0177.1.")
        ),
        ("https://" + "a" * 2_000, "at most 2000"),
    ],
)
def test_an_address_that_is_not_to_be_called_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadAddress, match=why):
        check_url(url, allow_private=False)


def test_private_addresses_and_plain_http_can_be_allowed() -> None:
    for url in ("http://127.0.0.1:9/x", "https://localhost/", "http://[::1]/"):
        check_url(url, allow_private=True)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "localhost"])
async def test_a_number_that_means_this_machine_is_refused_when_it_is_looked_up(host: str) -> None:
    with pytest.raises(BadAddress, match="private"):
        await check_name(f"https://{host}/")


async def test_a_name_nobody_knows_may_be_known_later() -> None:
    await check_name("https://no-such-name.invalid/")


class Answers(AbstractResolver):
    """A name that means something else each time it is asked for."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
        return [
            {"hostname": host, "host": each, "port": port, "family": family, "proto": 0, "flags": 0}
            for each in self._answers.pop(0)
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def test_a_name_that_turns_inside_is_refused_when_it_is_connected_to() -> None:
    resolver = PublicResolver(Answers(["8.8.8.8"], ["169.254.169.254"], ["8.8.8.8", "10.0.0.1"]))
    assert [each["host"] for each in await resolver.resolve("rebinds.example")] == ["8.8.8.8"]
    for _ in range(2):
        with pytest.raises(PrivateAddress, match=r"rebinds\.example leads"):
            await resolver.resolve("rebinds.example")
    await resolver.close()
