"""Webhooks."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.alerts.v1 import alerts_pb2 as pb
from tests.integration.access.tables import ADMIN, Recorded
from tests.integration.access.world import World

SERVICE = "steward.alerts.v1.AlertService"
NOBODY_LISTENS = "http://127.0.0.1:9/hook"

ACCESS = {
    SERVICE: {
        "CreateWebhook": ADMIN,
        "ListWebhooks": ADMIN,
        "GetWebhook": ADMIN,
        "UpdateWebhook": ADMIN,
        "DeleteWebhook": ADMIN,
        "RotateWebhookSecret": ADMIN,
        "TestWebhook": ADMIN,
        "ListDeliveries": ADMIN,
    }
}


async def _create(_world: World) -> Message:
    return pb.CreateWebhookRequest(url=NOBODY_LISTENS, events=["BudgetWarning"])


async def _webhook_id(world: World) -> str:
    made = (await world.stub(SERVICE, "CreateWebhook", await _create(world))).webhook
    world.secrets.append(made.secret)
    return str(made.id)


async def _update(world: World) -> Message:
    return pb.UpdateWebhookRequest(webhook_id=await _webhook_id(world), enabled=False)


async def _delete(world: World) -> Message:
    return pb.DeleteWebhookRequest(webhook_id=await _webhook_id(world))


async def _rotate(world: World) -> Message:
    return pb.RotateWebhookSecretRequest(webhook_id=await _webhook_id(world))


async def _test(world: World) -> Message:
    return pb.TestWebhookRequest(webhook_id=await _webhook_id(world))


RECORDED = {
    SERVICE: {
        "CreateWebhook": Recorded(_create, ("webhook.created",)),
        "UpdateWebhook": Recorded(_update, ("webhook.updated",)),
        "DeleteWebhook": Recorded(_delete, ("webhook.deleted",)),
        "RotateWebhookSecret": Recorded(_rotate, ("webhook.rotated",)),
        "TestWebhook": Recorded(_test, ("webhook.tested",)),
    }
}
