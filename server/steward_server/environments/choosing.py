"""Makes the driver that the settings choose, and imports what that needs no earlier."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import cast

from steward_server.config import BadSetting, variable_name
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Driver
from steward_server.environments.needs import Images
from steward_server.environments.nothing import NoDriver

_START_SHARE = 0.9
"""Of the time that a start may take, for a driver that says itself what it waited for."""


def open_driver(data_dir: Path, config: EnvironmentsConfig) -> tuple[Driver, Images | None]:
    """What makes machines, as the settings choose it, and its images; not opened yet.

    Raises:
        BadSetting: a setting of it is wrong, or what it needs is not installed.
    """
    data_dir = data_dir.absolute()  # processes that have another folder to work in are told of it
    folder = data_dir / "environments"
    match config.driver:
        case "off":
            return cast("Driver", NoDriver()), None
        case "container":
            return _container(folder / "container", config)
        case "kubernetes":
            return _kubernetes(folder / "kubernetes", config), None
    return _sandbox(folder, data_dir / "images", config)


def _sandbox(
    folder: Path, images: Path, config: EnvironmentsConfig
) -> tuple[Driver, Images | None]:
    from steward_server.environments.images.catalogue import Catalogue
    from steward_server.environments.sandbox.driver import SandboxDriver
    from steward_server.environments.sandbox.network import Network

    def in_use(root: Path) -> Collection[str]:
        return driver.uses(root)

    wheels = config.wheels_dir
    if wheels is not None and not wheels.is_dir():
        raise BadSetting(
            f"{variable_name('environments', 'wheels_dir')} is {str(wheels)!r}; it is no folder"
        )
    catalogue = Catalogue(images, in_use=in_use, wheels=wheels)
    driver = SandboxDriver(
        folder,
        catalogue,
        Network(_label(folder)),
        max_processes=config.max_processes,
        log_bytes=config.log_bytes,
        spare_machines=config.spare_machines,
        runsc=config.runsc,
    )
    return driver, catalogue


def _container(folder: Path, config: EnvironmentsConfig) -> tuple[Driver, Images]:
    try:
        from steward_server.environments.container import ContainerDriver, EngineImages
        from steward_server.environments.container.engine import Engine
    except ModuleNotFoundError as error:
        raise _not_installed("container", error) from None
    from steward_server.environments.sandbox.network import Network

    engine = Engine(config.container_engine or "")
    driver = ContainerDriver(
        folder,
        engine,
        Network(_label(folder)),
        max_processes=config.max_processes,
        log_bytes=config.log_bytes,
    )
    return driver, EngineImages(engine)


def _kubernetes(folder: Path, config: EnvironmentsConfig) -> Driver:
    try:
        from steward_server.environments.kubernetes import Cluster, KubernetesDriver
    except ModuleNotFoundError as error:
        raise _not_installed("kubernetes", error) from None
    return KubernetesDriver(
        folder,
        Cluster(config.kubernetes_config, config.kubernetes_context),
        namespace_prefix=config.kubernetes_namespace_prefix,
        runtime_class=config.kubernetes_runtime_class or "",
        network="enforced" if config.kubernetes_network == "enforced" else "auto",
        cluster_ranges=config.cluster_ranges(),
        most_life_s=max(config.kubernetes_max_life_s, config.max_timeout_s),
        start_timeout_s=config.start_timeout_s * _START_SHARE,
        log_bytes=config.log_bytes,
    )


def _not_installed(driver: str, error: ModuleNotFoundError) -> BadSetting:
    return BadSetting(
        f"{variable_name('environments', 'driver')} is {driver!r}, which needs a package that is "
        f"not installed ({error.name}): pip install 'steward-agents[{driver}]'"
    )


def _label(folder: Path) -> str:
    """Two servers on one machine do not meet: what they put there carries their folder's hash."""
    return f"steward-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:10]}"
