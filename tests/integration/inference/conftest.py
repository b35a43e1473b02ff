"""A server with policies of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward_server.db import now_us
from steward_server.inference.config import InferenceConfig
from steward_server.settings import Settings
from tests.live import Api, Live, live_server, live_settings
from tests.unit.inference.models import adding, steering

STATIC_TOKEN = "a-static-token-of-tests"


@dataclass(frozen=True, slots=True)
class Site:
    """A server that serves `adding` to whoever names no policy, and `steering` as well."""

    live: Live
    folder: Path
    """Of the policies."""

    @property
    def client(self) -> Api:
        """An inference client, by the static token."""
        return self.live.api.acting_as(authorization=f"Bearer {STATIC_TOKEN}")

    @property
    def stub(self) -> Any:
        return InferenceServiceStub(self.live.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {STATIC_TOKEN}"),)


Open = Callable[..., AbstractAsyncContextManager[Site]]


@asynccontextmanager
async def open_site(
    data_dir: Path, clock: Callable[[], int] = now_us, **config: Any
) -> AsyncIterator[Site]:
    folder = data_dir / "policies"
    if not folder.exists():
        adding(folder / "adding" / "1")
        steering(folder / "steering" / "1")
    settings = Settings(inference=InferenceConfig(**{"default_policy": "adding", **config}))
    chosen = live_settings(data_dir, settings, static_token=STATIC_TOKEN)
    async with live_server(chosen, clock) as live:
        yield Site(live, folder)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as opened:
        yield opened
