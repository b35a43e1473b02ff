"""Policies served to fast agents. Start reading at engine.py; runner.py is what makes it quick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from steward.inference.v1 import inference_pb2
from steward.inference.v1.client_tokens_pb2_grpc import add_ClientTokenServiceServicer_to_server
from steward.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from steward.inference.v1.policies_pb2_grpc import add_PolicyServiceServicer_to_server
from steward.open_inference.open_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from steward_server.calls import Call, Context
from steward_server.config import BadSetting
from steward_server.db import Database, Transaction
from steward_server.dispatch import rule_of
from steward_server.errors import PermissionDenied
from steward_server.events.store import NewEntry, append
from steward_server.inference.client_token_service import ClientTokenService
from steward_server.inference.client_tokens import ClientTokens
from steward_server.inference.config import InferenceConfig
from steward_server.inference.engine import Engine
from steward_server.inference.metering import House, Meter
from steward_server.inference.metrics import PolicyMetrics
from steward_server.inference.open_inference_service import OpenInferenceService
from steward_server.inference.policy_service import PolicyService
from steward_server.inference.repository import BadReference, Reference
from steward_server.inference.served import Observe
from steward_server.inference.service import InferenceService
from steward_server.interceptors.authorization import allows
from steward_server.principals import Principal

__all__ = ["ClientTokens", "Engine", "InferenceConfig", "open_engine", "register"]

_SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
_STEPPING = rule_of(_SERVICE.methods_by_name["Step"])


@asynccontextmanager
async def open_engine(
    database: Database,
    house: House,
    config: InferenceConfig,
    data_dir: Path,
    registry: CollectorRegistry,
    clock: Callable[[], int],
) -> AsyncIterator[Engine]:
    """The engine, until the end of the block.

    Raises:
        BadSetting: the default policy's name is none.
    """

    async def tell(kind: str, reference: Reference, facts: Mapping[str, str | int]) -> None:
        entry = NewEntry(kind, dict(facts), subject=str(reference))
        now_us = clock()

        async def work(transaction: Transaction) -> None:
            await append(transaction, now_us, entry)

        await database.run(work)

    try:
        metrics = PolicyMetrics(registry)

        def observe(reference: Reference) -> Observe:
            return metrics.of(reference).observe

        price_nanousd = round(config.price_per_thousand_steps_usd * 10**9)
        meter = Meter(house, price_nanousd=price_nanousd, clock=clock)
        engine = Engine(config, data_dir, clock, observe, tell, meter)
        metrics.watch(engine)
    except BadReference as error:
        raise BadSetting(f"STEWARD_INFERENCE_DEFAULT_POLICY: {error}") from None
    booking = asyncio.create_task(meter.keep_booking(config.book_interval_s))
    try:
        yield engine
    finally:
        engine.close()
        booking.cancel()
        with suppress(asyncio.CancelledError):
            await booking
        await meter.close()


def register(
    methods: Any,
    database: Database,
    *,
    engine: Engine,
    tokens: ClientTokens,
    authenticate: Callable[[Call, str], Awaitable[Principal]],
    config: InferenceConfig,
    clock: Callable[[], int],
) -> None:
    """Serve the room."""

    async def who(token: str, context: Context) -> Principal:
        call = Call((("authorization", f"Bearer {token}"),), peer=context.peer())
        found = await authenticate(call, "")
        if not allows(_STEPPING, found):
            raise PermissionDenied("this token is not for steps of policies")
        return found

    add_InferenceServiceServicer_to_server(
        InferenceService(engine, who, max_batch=config.max_batch), methods
    )
    add_GRPCInferenceServiceServicer_to_server(
        OpenInferenceService(engine, max_batch=config.max_batch), methods
    )
    add_PolicyServiceServicer_to_server(PolicyService(database, engine, clock), methods)
    add_ClientTokenServiceServicer_to_server(
        ClientTokenService(database, tokens, clock, mint_key=config.jwt_mint_key), methods
    )
