"""Limits and webhooks, as resources.py has the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steward.alerts.v1 import alerts_pb2
from steward.alerts.v1.alerts_pb2_grpc import AlertServiceStub
from steward.limits.v1 import limits_pb2
from steward.limits.v1.limits_pb2_grpc import LimitServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.projects import PAGE_SIZE, Usd
from steward_client.client.values import AlertType, Delivery, Limit, Webhook, value_of
from steward_client.money import nanousd


class Limits(Resource[Manner]):
    """What agents may call and spend beside their budgets, by scope.

    A scope is "everyone", "user:<id>" or "agent:<id>".
    """

    @rpc
    def list(self) -> Call[tuple[Limit, ...]]:
        """The limits that concern the caller, and how far they are used."""

        def page(token: str) -> limits_pb2.ListLimitsRequest:
            return limits_pb2.ListLimitsRequest(page_size=PAGE_SIZE, page_token=token)

        return Call(
            LimitServiceStub,
            "ListLimits",
            page(""),
            read=every(lambda answer: [value_of(Limit, each) for each in answer.limits]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def set(
        self,
        scope: str,
        *,
        max_requests_per_minute: int | None = None,
        max_tokens_per_day: int | None = None,
        max_cost_per_month_usd: Usd | None = None,
    ) -> Call[Limit]:
        """Set the limits of a scope in place of those it had; running runtimes are told at once."""
        cost = max_cost_per_month_usd
        return Call(
            LimitServiceStub,
            "SetLimit",
            limits_pb2.SetLimitRequest(
                scope=scope,
                max_requests_per_minute=max_requests_per_minute,
                max_tokens_per_day=max_tokens_per_day,
                max_cost_per_month_nanousd=None if cost is None else nanousd(cost),
            ),
            read=first(lambda answer: value_of(Limit, answer.limit)),
            repeatable=True,
        )

    @rpc
    def remove(self, scope: str) -> Call[None]:
        """Lift all limits of a scope.

        Raises:
            NotFound: it has none.
        """
        return Call(
            LimitServiceStub,
            "DeleteLimit",
            limits_pb2.DeleteLimitRequest(scope=scope),
            read=nothing,
        )


class Webhooks(Resource[Manner]):
    """Where alerts are sent."""

    @rpc
    def create(
        self,
        url: str,
        *,
        events: Sequence[AlertType] = (),
        description: str = "",
        secret: str = "",
    ) -> Call[Webhook]:
        """Create a webhook; no `events` means all. An empty `secret` has one made.

        Raises:
            InvalidRequest: the address leads into a private network, or is none.
        """
        return Call(
            AlertServiceStub,
            "CreateWebhook",
            alerts_pb2.CreateWebhookRequest(
                url=url, events=events, description=description, secret=secret
            ),
            read=first(_webhook),
        )

    @rpc
    def list(self) -> Call[tuple[Webhook, ...]]:
        """All webhooks, newest first."""

        def page(token: str) -> alerts_pb2.ListWebhooksRequest:
            return alerts_pb2.ListWebhooksRequest(page_size=PAGE_SIZE, page_token=token)

        return Call(
            AlertServiceStub,
            "ListWebhooks",
            page(""),
            read=every(lambda answer: [value_of(Webhook, each) for each in answer.webhooks]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def get(self, webhook_id: str) -> Call[Webhook]:
        """One webhook."""
        return Call(
            AlertServiceStub,
            "GetWebhook",
            alerts_pb2.GetWebhookRequest(webhook_id=webhook_id),
            read=first(_webhook),
            repeatable=True,
        )

    @rpc
    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[AlertType] | None = None,
        description: str | None = None,
        enabled: bool | None = None,
    ) -> Call[Webhook]:
        """Change what is given."""
        return Call(
            AlertServiceStub,
            "UpdateWebhook",
            alerts_pb2.UpdateWebhookRequest(
                webhook_id=webhook_id,
                url=url,
                events=None if events is None else alerts_pb2.EventTypes(types=events),
                description=description,
                enabled=enabled,
            ),
            read=first(_webhook),
            repeatable=True,
        )

    @rpc
    def delete(self, webhook_id: str) -> Call[None]:
        """Delete a webhook and what was still to be delivered to it."""
        return Call(
            AlertServiceStub,
            "DeleteWebhook",
            alerts_pb2.DeleteWebhookRequest(webhook_id=webhook_id),
            read=nothing,
        )

    @rpc
    def rotate(self, webhook_id: str, *, secret: str = "") -> Call[Webhook]:
        """Replace its secret; for a day deliveries are signed with both."""
        return Call(
            AlertServiceStub,
            "RotateWebhookSecret",
            alerts_pb2.RotateWebhookSecretRequest(webhook_id=webhook_id, secret=secret),
            read=first(_webhook),
        )

    @rpc
    def test(self, webhook_id: str) -> Call[Delivery]:
        """Queue a delivery that tells of nothing.

        Raises:
            Conflict: the webhook is disabled.
        """
        return Call(
            AlertServiceStub,
            "TestWebhook",
            alerts_pb2.TestWebhookRequest(webhook_id=webhook_id),
            read=first(lambda answer: value_of(Delivery, answer.delivery)),
        )

    @rpc
    def deliveries(self, webhook_id: str) -> Call[tuple[Delivery, ...]]:
        """What was sent or is to be sent, newest first."""

        def page(token: str) -> alerts_pb2.ListDeliveriesRequest:
            return alerts_pb2.ListDeliveriesRequest(
                webhook_id=webhook_id, page_size=PAGE_SIZE, page_token=token
            )

        return Call(
            AlertServiceStub,
            "ListDeliveries",
            page(""),
            read=every(lambda answer: [value_of(Delivery, each) for each in answer.deliveries]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )


def _webhook(answer: Any) -> Webhook:
    return value_of(Webhook, answer.webhook)
