"""Notifications in the SDK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from abruzzi.client.transport import Transport
from abruzzi.contracts.notification import (
    Channel,
    ChoreOut,
    DeliveryOut,
    DeliveryState,
    QuarantinedOut,
    SubscriptionCreated,
    SubscriptionOut,
    Topic,
)
from abruzzi.contracts.resources import Resource


class _Chores(Resource):
    items: list[ChoreOut]


class Notifications:
    def __init__(self, transport: Transport) -> None:
        self._http = transport

    def list(self) -> Iterator[SubscriptionOut]:
        return self._http.pages(SubscriptionOut, "notifications")

    def subscribe(self, channel: Channel, target: str, topics: Sequence[Topic]) -> SubscriptionCreated:
        """The secret of a webhook is in this answer only."""
        body = {"channel": channel, "target": target, "topics": list(topics)}
        return self._http.post(SubscriptionCreated, "notifications", body)

    def unsubscribe(self, subscription_id: str) -> None:
        self._http.delete(f"notifications/{subscription_id}")

    def test(self, subscription_id: str) -> DeliveryOut:
        return self._http.post(DeliveryOut, f"notifications/{subscription_id}/test")

    def deliveries(
        self, *, subscription_id: str | None = None, state: DeliveryState | None = None
    ) -> Iterator[DeliveryOut]:
        return self._http.pages(DeliveryOut, "notifications/deliveries", subscription=subscription_id, state=state)

    def retry(self, delivery_id: str) -> DeliveryOut:
        return self._http.post(DeliveryOut, f"notifications/deliveries/{delivery_id}/retry")

    def quarantine(self) -> Iterator[QuarantinedOut]:
        return self._http.pages(QuarantinedOut, "notifications/quarantine")

    def release(self, message_id: str) -> QuarantinedOut:
        return self._http.post(QuarantinedOut, f"notifications/quarantine/{message_id}/retry")

    def chores(self) -> Sequence[ChoreOut]:
        return self._http.get(_Chores, "notifications/chores").items
