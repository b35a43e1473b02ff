"""Policies whose network another server computes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inference.conftest import Site, open_site
from tests.unit.inference.model_server import ModelServer, serving
from tests.unit.inference.models import adding, steering

STEP = {"observation": [1, 0.5, 0], "deterministic": True}


@pytest.fixture(params=[True, False], ids=["raw", "as numbers"])
def servicer(tmp_path: Path, request: pytest.FixtureRequest) -> ModelServer:
    return ModelServer(adding(tmp_path / "there") / "model.onnx", is_raw=request.param)  # type: ignore[abstract]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def behind(folder: Path, port: int, model: str = "model") -> None:
    """Make the policy `adding` one of a server on this port."""
    place = adding(folder / "adding" / "1")
    (place / "model.onnx").unlink()
    manifest = place / "policy.yaml"
    server = f"server: {{url: 'grpc://127.0.0.1:{port}', model: {model}}}"
    manifest.write_text(re.sub(r"model_sha256: \w+", server, manifest.read_text()))


async def step(site: Site, agent_id: str = "default") -> Any:
    return await site.client.call("POST", "/step", STEP | {"agent_id": agent_id})


async def told(site: Site) -> Any:
    answer = await site.client.call("GET", "/api/v1/policies/adding")
    return answer.body["versions"][0]


async def test_agents_step_as_if_the_network_were_here(
    tmp_path: Path, servicer: ModelServer, stack: ExitStack
) -> None:
    behind(tmp_path / "policies", stack.enter_context(serving(servicer)))
    async with open_site(tmp_path) as site:
        values = [(await step(site)).body["value"] for _ in range(3)]
        assert values == [1.5, 2.25, 2.625]
        await site.client.call("POST", "/reset", {"agent_id": "b"})
        assert (await step(site, "b")).body["value"] == 1.5
        servicer.rows.clear()
        await asyncio.gather(*(step(site, name) for name in ("default", "b")))
        assert sum(servicer.rows) == 2
        assert (await told(site))["is_loaded"]


async def test_a_server_that_goes_and_comes_costs_no_agent_its_state(
    tmp_path: Path, servicer: ModelServer
) -> None:
    server = serving(servicer)
    port = server.__enter__()
    behind(tmp_path / "policies", port)
    async with open_site(tmp_path) as site:
        assert (await step(site)).body["value"] == 1.5
        server.__exit__(None, None, None)
        refused = await step(site)
        assert refused.status == 503, refused
        assert f"the model server at 127.0.0.1:{port} does not compute 'model'" in str(refused.body)
        with serving(servicer, port):
            for _ in range(100):
                again = await step(site)
                if again.status == 200:
                    break
                await asyncio.sleep(0.05)
            assert again.body["value"] == 2.25


async def test_a_server_that_is_not_there_yet_is_tried_again(
    tmp_path: Path, servicer: ModelServer
) -> None:
    with serving(servicer) as port:
        behind(tmp_path / "policies", port)
    async with open_site(tmp_path, reload_interval_s=0.05) as site:
        assert "does not compute 'model': UNAVAILABLE" in (await told(site))["fault"]
        assert (await step(site)).status != 200
        with serving(servicer, port):
            for _ in range(100):
                if (await told(site)).get("is_loaded"):
                    break
                await asyncio.sleep(0.05)
            assert (await step(site)).body["value"] == 1.5


async def test_a_model_that_does_not_fit_is_refused_with_what_is_wrong(
    tmp_path: Path, stack: ExitStack
) -> None:
    other = ModelServer(steering(tmp_path / "there") / "model.onnx")  # type: ignore[abstract]
    port = stack.enter_context(serving(other))
    behind(tmp_path / "policies", port)
    async with open_site(tmp_path) as site:
        fault = (await told(site))["fault"]
        assert fault == "the model takes obs, and the manifest says memory, obs, total"
        behind(tmp_path / "policies", port, model="none")
        await site.live.admin.call("POST", "/api/v1/policies/adding/load")
        assert "NOT_FOUND: no model none" in (await told(site))["fault"]
