"""What pages may reach, and what their downloads and addresses are called."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_address

import pytest

from steward_server.executions.steps.closed import is_closed
from steward_server.executions.steps.pages.downloads import safe_name
from steward_server.executions.steps.pages.telling import bounded, shown_url


@pytest.mark.parametrize(
    ("address", "is_no_place"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("::169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("fd00:ec2::254", True),
        ("fe80::a9fe:a9fe", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("64:ff9b::808:808", False),
    ],
)
def test_addresses_are_closed_in_every_spelling(address: str, *, is_no_place: bool) -> None:
    assert is_closed(ip_address(address)) is is_no_place


@pytest.mark.parametrize(
    ("suggested", "safe"),
    [
        ("report.csv", "report.csv"),
        ("../../etc/passwd", "passwd"),
        ("C:\\windows\\x.exe", "x.exe"),
        (".bashrc", "bashrc"),
        ("", "download"),
        ("a\nb\u202e.txt", "a_b_.txt"),
        ("é" * 200 + ".pdf", "_" * 96 + ".pdf"),
    ],
)
def test_downloads_have_safe_names(suggested: str, safe: str) -> None:
    assert safe_name(suggested) == safe


def test_addresses_are_told_without_names_and_passwords_in_them() -> None:
    assert shown_url("http://ann:hunter2@plant:8088/a?b=c") == "http://plant:8088/a?b=c"
    assert len(shown_url("http://plant/" + "a" * 1_000)) == 500


def test_texts_of_pages_are_bounded_and_can_be_written() -> None:
    assert bounded("abc\ud800def", 5) == "abc?d"


def test_playwright_is_not_loaded_before_the_first_step_in_a_browser() -> None:
    code = (
        "import sys; from steward_server.executions.steps import browser, designer, fat, "
        "perspective; from steward_server.executions.steps.pages.chromium import Browsers; "
        "sys.exit('playwright' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
