"""Settings of environments: amounts are read as Kubernetes writes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.config import BadSetting, load
from steward_server.environments import open_driver
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.quota import Quota


def test_amounts_are_read_and_unset_ones_are_no_limit() -> None:
    environ = {
        "STEWARD_ENVIRONMENTS_MAX_PER_USER": "3",
        "STEWARD_ENVIRONMENTS_CPU_PER_USER": "1500m",
        "STEWARD_ENVIRONMENTS_MEMORY_PER_USER": "2Gi",
        "STEWARD_ENVIRONMENTS_STORAGE_PER_USER": "",
    }
    config = load("environments", EnvironmentsConfig, {}, environ)
    assert config.of_user() == Quota(3, 1500, 2**31, None)
    assert config.of_all() == Quota(500)
    assert config.of_one() == Quota(None, 10_000, 10 << 30, 100 << 30)


@pytest.mark.parametrize(
    ("key", "text", "method"),
    [
        ("max_cpu", "lots", "of_one"),
        ("memory_per_user", "2GB", "of_user"),
        ("cpu_total", "1.5m", "of_all"),
    ],
)
def test_what_is_no_amount_names_its_setting(key: str, text: str, method: str) -> None:
    config = replace(EnvironmentsConfig(), **{key: text})  # type: ignore[arg-type]
    with pytest.raises(BadSetting, match=f"STEWARD_ENVIRONMENTS_{key.upper()} is '{text}'"):
        getattr(config, method)()


def test_a_folder_of_packages_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = replace(EnvironmentsConfig(), wheels_dir=tmp_path / "none")
    with pytest.raises(BadSetting, match=r"STEWARD_ENVIRONMENTS_WHEELS_DIR is '.*none'"):
        open_driver(tmp_path / "data", config)
