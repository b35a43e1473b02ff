"""Limits, webhooks and plaintext keys by both clients."""

from __future__ import annotations

from decimal import Decimal

import pytest

from steward_client.errors import Conflict, InvalidRequest, NotFound
from tests.integration.sdk.conftest import Call


async def test_a_limit_is_set_listed_and_removed(call: Call) -> None:
    made = await call(
        "limits.set", "everyone", max_requests_per_minute=60, max_cost_per_month_usd="2.50"
    )
    listed = await call("limits.list")
    await call("limits.remove", "everyone")

    assert listed == (made,)
    assert (made.max_requests_per_minute, made.max_tokens_per_day) == (60, None)
    assert made.max_cost_per_month_usd == Decimal("2.5")
    assert (made.tokens_today, made.leased_usd) == (0, 0)
    with pytest.raises(NotFound):
        await call("limits.remove", "everyone")
    with pytest.raises(InvalidRequest) as refused:
        await call("limits.set", "nobody", max_tokens_per_day=1)
    assert set(refused.value.fields) == {"scope"}


async def test_a_webhook_is_created_changed_tested_and_deleted(call: Call) -> None:
    made = await call("webhooks.create", "https://hooks.invalid/x", events=["Overrun"])
    rotated = await call("webhooks.rotate", made.id)
    seen = await call("webhooks.get", made.id)
    delivery = await call("webhooks.test", made.id)
    deliveries = await call("webhooks.deliveries", made.id)
    changed = await call("webhooks.update", made.id, enabled=False, events=[])
    listed = await call("webhooks.list")

    assert made.secret.startswith("whsec_")
    assert rotated.secret not in ("", made.secret)
    assert seen.secret == ""
    assert made.secret not in repr(made)
    assert (delivery.event_type, delivery.status) == ("Test", "pending")
    assert [each.id for each in deliveries] == [delivery.id]
    assert (changed.enabled, changed.events) == (False, ())
    assert listed == (changed,)
    with pytest.raises(Conflict):
        await call("webhooks.test", made.id)
    await call("webhooks.delete", made.id)
    assert await call("webhooks.list") == ()


async def test_a_provider_may_be_allowed_to_hand_its_key_over_in_clear(call: Call) -> None:
    made = await call("providers.create", "openai", api_key="sk-live-canary-0123456789abcdef")
    changed = await call("providers.update", made.id, allow_plaintext_key=True)
    assert (made.allow_plaintext_key, changed.allow_plaintext_key) == (False, True)
    assert await call("providers.list") == (changed,)
