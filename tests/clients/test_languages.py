"""The clients in other languages: built and tested, the script made, the example run.

A toolchain that is missing is a failure: whoever chooses these has to have them all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from steward.agents.v1 import agents_pb2
from steward_client import AsyncClient
from steward_client.price_snapshot import shipped_table
from steward_client.standin import StandIn, StandInConfig
from tests.clients.harness import assert_conforms, run
from tests.live import ADMIN_PASSWORD, PROVIDER_KEY, ServerProcess

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1_200)]

BUILD_TIMEOUT_S = 1_000.0
"""From nothing, with what each downloads."""


@dataclass(frozen=True, slots=True)
class Language:
    """How a client is built and tested, and how its programs are run then."""

    tests: Sequence[Sequence[str]]
    runner: Sequence[str]
    example: Sequence[str]


NPM = ("npm", "--silent", "--prefix", "clients/typescript")
JAVA = ("java", "@clients/java/target/classpath")
GO = ("go", "-C", "clients/go")
RUST_OPTIONS = ("--manifest-path", "clients/rust/Cargo.toml", "--locked", "--quiet")
LANGUAGES = {
    "typescript": Language(
        tests=[(*NPM, "ci"), (*NPM, "test")],
        runner=(*NPM, "run", "conformance"),
        example=(*NPM, "run", "example"),
    ),
    "java": Language(
        tests=[("mvn", "-q", "-f", "clients/java", "verify")],
        runner=(*JAVA, "Conformance"),
        example=(*JAVA, "Agent"),
    ),
    "go": Language(
        tests=[(*GO, "vet", "./..."), (*GO, "test", "./...")],
        runner=(*GO, "run", "./conformance"),
        example=(*GO, "run", "./examples/agent"),
    ),
    "rust": Language(
        tests=[("cargo", "test", *RUST_OPTIONS)],
        runner=("cargo", "run", *RUST_OPTIONS, "--example", "conformance"),
        example=("cargo", "run", *RUST_OPTIONS, "--example", "agent"),
    ),
}


@pytest.fixture(scope="module")
def built() -> set[str]:
    """The languages whose client was built by this process."""
    return set()


@pytest.fixture(params=LANGUAGES)
async def language(request: pytest.FixtureRequest, built: set[str]) -> Language:
    """A client that has been built, and whose own tests pass."""
    name: str = request.param
    chosen = LANGUAGES[name]
    if name not in built:
        for command in chosen.tests:
            ended = await run(command, BUILD_TIMEOUT_S)
            assert ended.code == 0, ended.text
        built.add(name)
    return chosen


async def test_every_step_of_the_script_passes(language: Language, tmp_path: Path) -> None:
    await assert_conforms(language.runner, tmp_path / "data")


async def test_the_example_borrows_spends_gives_back_and_steps(
    language: Language, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        prices = shipped_table(datetime(2026, 11, 1, tzinfo=UTC))
        standin = await stack.enter_async_context(
            StandIn(prices, StandInConfig(api_keys=(PROVIDER_KEY,)))
        )
        server = await ServerProcess(tmp_path / "data").start()
        stack.callback(server.kill)
        admin = await stack.enter_async_context(AsyncClient(server.grpc_address))
        await admin.login("admin", ADMIN_PASSWORD)
        await admin.providers.create("openai", api_key=PROVIDER_KEY, base_url=f"{standin.url}/v1")
        agent = await admin.agents.create("scout", budget_usd=5)
        token = await admin.tokens.create(agent.id, scopes=["budget", "inference"])
        ended = await run(
            language.example, STEWARD_SERVER=server.grpc_address, STEWARD_IC_TOKEN=token.token
        )
        status = await admin.call(
            "steward.agents.v1.AgentService/GetAgentStatus",
            agents_pb2.GetAgentStatusRequest(agent_id=agent.id),
        )

    assert ended.code == 0, ended.text
    assert status.open_leases == 0
    spent_nanousd = status.budget.spent_nanousd
    assert spent_nanousd > 0
    spent_usd = f"{spent_nanousd / 1e9:.9f}".rstrip("0")
    assert re.search(r"lease_[0-9a-f]", ended.text), ended.text
    assert str(spent_nanousd) in ended.text or spent_usd in ended.text, ended.text
    assert "cartpole" in ended.text.lower(), ended.text
