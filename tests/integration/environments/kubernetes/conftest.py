from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.kubernetes import Cluster, KubernetesDriver
from tests.integration.environments.kubernetes.machines import Machines
from tests.integration.environments.kubernetes.standin import StandIn, standing_in
from tests.missing import missing


@pytest.fixture(params=["v5", "v4", "v4 with busybox"])
def speaking(request: pytest.FixtureRequest, cluster: StandIn, tmp_path: Path) -> None:
    """What the cluster speaks, before and after Kubernetes 1.30, and what shell images have."""
    version, _, shell = request.param.partition(" with ")
    if version == "v4":
        cluster.protocols = ("v4.channel.k8s.io",)
    if shell:
        busybox = shutil.which(shell)
        if busybox is None:
            text = "busybox is not installed here: its shell and tools are not tried"
            missing(text)
        applets = tmp_path / "applets"
        applets.mkdir()
        subprocess.run([busybox, "--install", "-s", str(applets)], check=True)
        cluster.kubelet.tools = applets


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[StandIn]:
    """A cluster that has seen nothing that its API's schema does not have."""
    async with standing_in(tmp_path) as (standin, _):
        yield standin
        assert standin.schema_faults == []


@pytest.fixture
def kubeconfig(cluster: StandIn, tmp_path: Path) -> Path:
    return tmp_path / "kubeconfig"


@pytest.fixture
async def driver(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> AsyncIterator[KubernetesDriver]:
    opened = KubernetesDriver(
        tmp_path / "steward", Cluster(kubeconfig), start_timeout_s=5, most_life_s=90_000
    )
    await opened.open()
    assert opened.capabilities().unusable == ""
    yield opened
    await opened.aclose()


@pytest.fixture
def machines(driver: KubernetesDriver) -> Machines:
    return Machines(driver)
