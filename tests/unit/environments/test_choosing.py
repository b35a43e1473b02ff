"""Which driver the settings choose, and what of them is refused before anything is opened."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from steward_server.config import BadSetting, load
from steward_server.environments import open_driver
from steward_server.environments.config import EnvironmentsConfig


@pytest.mark.parametrize(
    ("chosen", "driver", "has_images"),
    [
        ("auto", "sandbox", True),
        ("sandbox", "sandbox", True),
        ("container", "container", True),
        ("kubernetes", "kubernetes", False),
        ("off", "off", False),
    ],
)
def test_the_settings_choose_a_driver_which_is_not_open_yet(
    tmp_path: Path, chosen: str, driver: str, *, has_images: bool
) -> None:
    made, images = open_driver(tmp_path, replace(EnvironmentsConfig(), driver=chosen))
    told = made.capabilities()
    assert (told.driver, bool(told.unusable)) == (driver, True)
    assert (images is not None) is has_images


@pytest.mark.parametrize(
    ("driver", "package"),
    [("container", "aiodocker"), ("kubernetes", "kubernetes_asyncio")],
)
def test_a_driver_whose_package_is_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, package: str
) -> None:
    ours = f"steward_server.environments.{driver}"
    for name in [each for each in sys.modules if each.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    for name in [each for each in sys.modules if each.startswith(ours)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(BadSetting, match=rf"pip install 'steward-agents\[{driver}\]'"):
        open_driver(tmp_path, replace(EnvironmentsConfig(), driver=driver))


def test_the_ranges_of_a_cluster_are_networks() -> None:
    key = "STEWARD_ENVIRONMENTS_KUBERNETES_CLUSTER_RANGES"
    config = load("environments", EnvironmentsConfig, {}, {key: "10.96.0.0/12, fd00::/108,"})
    assert config.cluster_ranges() == (ip_network("10.96.0.0/12"), ip_network("fd00::/108"))
    assert EnvironmentsConfig().cluster_ranges() == ()
    with pytest.raises(BadSetting, match=rf"{key}: .*10.96.0.1/12.*write networks such as"):
        load("environments", EnvironmentsConfig, {}, {key: "10.96.0.1/12"}).cluster_ranges()
