"""AlertService: translates between protos and the room."""

from __future__ import annotations

from collections.abc import Sequence

from steward.alerts.v1 import alerts_pb2 as pb
from steward.alerts.v1 import alerts_pb2_grpc as rpc
from steward_server.alerts.alert import EVENT_TYPES
from steward_server.alerts.room import AlertRoom, Changes, Shown
from steward_server.alerts.signing import LEAST_BYTES, MOST_BYTES, secret_key
from steward_server.alerts.webhook import DEAD, DELIVERED, PENDING, Delivery
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument
from steward_server.pages import from_page_token, page_size, to_page_token

STATUSES = {
    PENDING: pb.DELIVERY_STATUS_PENDING,
    DELIVERED: pb.DELIVERY_STATUS_DELIVERED,
    DEAD: pb.DELIVERY_STATUS_DEAD,
}


class AlertService(rpc.AlertServiceServicer):
    """Serves webhooks to administrators."""

    def __init__(self, room: AlertRoom) -> None:
        self._room = room

    async def CreateWebhook(
        self, request: pb.CreateWebhookRequest, context: Context
    ) -> pb.CreateWebhookResponse:
        with Checks() as checks:
            checks.text("url", request.url, 1, 2_000)
            _check_events(checks, request.events)
            checks.text("description", request.description, 0, 200)
            _check_secret(checks, request.secret)
        shown = await self._room.create(
            caller(context),
            url=request.url,
            events=tuple(dict.fromkeys(request.events)),
            description=request.description,
            secret=request.secret,
        )
        return pb.CreateWebhookResponse(webhook=_to_proto(shown))

    async def ListWebhooks(
        self, request: pb.ListWebhooksRequest, _context: Context
    ) -> pb.ListWebhooksResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        shown = await self._room.page(before=before, limit=size + 1)
        response = pb.ListWebhooksResponse(webhooks=[_to_proto(each) for each in shown[:size]])
        if len(shown) > size:
            last = shown[size - 1].webhook
            response.next_page_token = to_page_token(last.created_at_us, last.webhook_id)
        return response

    async def GetWebhook(
        self, request: pb.GetWebhookRequest, _context: Context
    ) -> pb.GetWebhookResponse:
        _check_id(request.webhook_id)
        return pb.GetWebhookResponse(webhook=_to_proto(await self._room.get(request.webhook_id)))

    async def UpdateWebhook(
        self, request: pb.UpdateWebhookRequest, context: Context
    ) -> pb.UpdateWebhookResponse:
        types = tuple(dict.fromkeys(request.events.types)) if request.HasField("events") else None
        changes = Changes(
            request.url if request.HasField("url") else None,
            types,
            request.description if request.HasField("description") else None,
            request.enabled if request.HasField("enabled") else None,
        )
        with Checks() as checks:
            checks.text("webhook_id", request.webhook_id, 1, 100)
            if changes.url is not None:
                checks.text("url", changes.url, 1, 2_000)
            if types is not None:
                _check_events(checks, types)
            if changes.description is not None:
                checks.text("description", changes.description, 0, 200)
        if changes == Changes(None, None, None, None):
            raise InvalidArgument(
                "nothing to change; give `url`, `events`, `description` or `enabled`",
                reason="NO_FIELDS_PROVIDED",
            )
        shown = await self._room.update(caller(context), request.webhook_id, changes)
        return pb.UpdateWebhookResponse(webhook=_to_proto(shown))

    async def DeleteWebhook(
        self, request: pb.DeleteWebhookRequest, context: Context
    ) -> pb.DeleteWebhookResponse:
        _check_id(request.webhook_id)
        await self._room.delete(caller(context), request.webhook_id)
        return pb.DeleteWebhookResponse()

    async def RotateWebhookSecret(
        self, request: pb.RotateWebhookSecretRequest, context: Context
    ) -> pb.RotateWebhookSecretResponse:
        with Checks() as checks:
            checks.text("webhook_id", request.webhook_id, 1, 100)
            _check_secret(checks, request.secret)
        shown = await self._room.rotate(caller(context), request.webhook_id, request.secret)
        return pb.RotateWebhookSecretResponse(webhook=_to_proto(shown))

    async def TestWebhook(
        self, request: pb.TestWebhookRequest, context: Context
    ) -> pb.TestWebhookResponse:
        _check_id(request.webhook_id)
        delivery = await self._room.test(caller(context), request.webhook_id)
        return pb.TestWebhookResponse(delivery=_delivery(delivery))

    async def ListDeliveries(
        self, request: pb.ListDeliveriesRequest, _context: Context
    ) -> pb.ListDeliveriesResponse:
        with Checks() as checks:
            checks.text("webhook_id", request.webhook_id, 1, 100)
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        found = await self._room.deliveries(request.webhook_id, before=before, limit=size + 1)
        response = pb.ListDeliveriesResponse(deliveries=[_delivery(each) for each in found[:size]])
        if len(found) > size:
            last = found[size - 1]
            response.next_page_token = to_page_token(last.created_at_us, last.delivery_id)
        return response


def _check_id(webhook_id: str) -> None:
    with Checks() as checks:
        checks.text("webhook_id", webhook_id, 1, 100)


def _check_events(checks: Checks, events: Sequence[str]) -> None:
    if unknown := sorted(set(events) - set(EVENT_TYPES)):
        checks.add("events", f"holds {unknown[0][:100]!r}; there are {', '.join(EVENT_TYPES)}")


def _check_secret(checks: Checks, secret: str) -> None:
    if secret and secret_key(secret) is None:
        checks.add(
            "secret", f"must be whsec_ and {LEAST_BYTES} to {MOST_BYTES} bytes in base64, or empty"
        )


def _to_proto(shown: Shown) -> pb.Webhook:
    webhook = shown.webhook
    return pb.Webhook(
        id=webhook.webhook_id,
        url=webhook.url,
        events=webhook.events,
        description=webhook.description,
        enabled=webhook.enabled,
        disabled_reason=webhook.disabled_reason,
        created_at=timestamp(webhook.created_at_us),
        updated_at=timestamp(webhook.updated_at_us),
        pending_count=shown.pending_count,
        secret=shown.secret,
    )


def _delivery(delivery: Delivery) -> pb.Delivery:
    return pb.Delivery(
        id=delivery.delivery_id,
        event_type=delivery.event_type,
        sequence=delivery.lsn,
        status=STATUSES[delivery.status],
        attempts=delivery.attempts,
        created_at=timestamp(delivery.created_at_us),
        next_attempt_at=(
            timestamp(delivery.next_attempt_at_us) if delivery.status == PENDING else None
        ),
        delivered_at=timestamp(delivery.delivered_at_us),
        last_status_code=delivery.last_status_code,
        last_error=delivery.last_error,
    )
