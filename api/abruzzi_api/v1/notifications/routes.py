"""Notifications: subscriptions of a project, what was sent, and what could not be handled."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query, Request

from abruzzi.contracts.notification import (
    DeliveryOut,
    DeliveryState,
    QuarantinedOut,
    SubscriptionCreated,
    SubscriptionOut,
)
from abruzzi.contracts.resources import SHOWN_ONCE, Page
from abruzzi.events import outbox
from abruzzi.identity.policy import Action
from abruzzi.notifications import service, webhook
from abruzzi.workers import chores
from abruzzi_api.pagination import Cursor, Limit, decode_moment, decode_number, page
from abruzzi_api.v1.notifications.schemas import Chores, SubscriptionIn
from abruzzi_api.work import Router, Work, permit

router = Router(prefix="/notifications", tags=["notifications"])
Manage = Annotated[Work, permit(Action.MANAGE_NOTIFICATIONS)]
SubscriptionId = Annotated[str, Path(max_length=32)]


@router.get("", operation_id="notifications_list")
async def list_subscriptions(work: Manage, limit: Limit = 100, cursor: Cursor = None) -> Page[SubscriptionOut]:
    """Newest first."""
    found = await service.list_subscriptions(work.session, after=decode_moment(cursor), limit=limit + 1)
    return Page[SubscriptionOut].model_validate(page(found, limit, lambda s: (s.created_at.isoformat(), s.id)))


@router.post("", operation_id="notifications_subscribe", status_code=201, response_model=SubscriptionCreated)
async def subscribe(body: SubscriptionIn, work: Manage, request: Request) -> Any:
    """The secret of a webhook is in this answer only; a replay says that it was made."""
    settings = request.app.state.settings
    made = await service.subscribe(
        work.session,
        project_id=work.project_id,
        channel=body.channel,
        target=body.target,
        topics=body.topics,
        settings=settings,
        actor=work.identity.actor,
        now=work.clock.now(),
    )
    secret = webhook.secret(settings.require("signing_key"), made.id) if body.channel == "webhook" else None
    created = SubscriptionCreated(**made.model_dump(), secret=secret)
    work.keep_instead(created.model_copy(update={"secret": secret and SHOWN_ONCE}))
    return created


@router.get("/deliveries", operation_id="notifications_deliveries")
async def list_deliveries(
    work: Manage,
    subscription: Annotated[str | None, Query(max_length=32)] = None,
    state: DeliveryState | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[DeliveryOut]:
    """Newest first, with the last error of each."""
    after = decode_moment(cursor)
    found = await service.list_deliveries(
        work.session, subscription_id=subscription, state=state, after=after, limit=limit + 1
    )
    return Page[DeliveryOut].model_validate(page(found, limit, lambda d: (d.created_at.isoformat(), d.id)))


@router.post("/deliveries/{delivery_id}/retry", operation_id="notifications_retry", response_model=DeliveryOut)
async def retry_delivery(delivery_id: Annotated[str, Path(max_length=32)], work: Manage) -> Any:
    """Try a quarantined delivery again, under the same id."""
    return work.reply(await service.retry(work.session, delivery_id, now=work.clock.now()))


@router.get("/quarantine", operation_id="notifications_quarantine")
async def list_quarantined(work: Manage, limit: Limit = 100, cursor: Cursor = None) -> Page[QuarantinedOut]:
    """Messages of the platform to itself that could not be handled, newest first, with their errors."""
    found = await outbox.list_quarantined(work.session, after=decode_number(cursor), limit=limit + 1)
    return Page[QuarantinedOut].model_validate(page(found, limit, lambda m: (m.id,)))


@router.post("/quarantine/{message_id}/retry", operation_id="notifications_release", response_model=QuarantinedOut)
async def retry_message(message_id: Annotated[int, Path(ge=0, lt=2**63)], work: Manage) -> Any:
    """Handle a quarantined message again."""
    return work.reply(await outbox.retry_quarantined(work.session, message_id, now=work.clock.now()))


@router.get("/chores", operation_id="notifications_chores")
async def list_chores(work: Manage) -> Chores:
    """Side work that comes round, of the whole platform: when it last went well, and what hinders it."""
    return Chores(items=await chores.list_chores(work.session))


@router.post("/{subscription_id}/test", operation_id="notifications_test", status_code=202, response_model=DeliveryOut)
async def send_test(subscription_id: SubscriptionId, work: Manage) -> Any:
    """Send something now, to see that it arrives."""
    made = await service.send_test(work.session, subscription_id, actor=work.identity.actor, now=work.clock.now())
    return work.reply(made, 202)


@router.delete("/{subscription_id}", operation_id="notifications_unsubscribe", status_code=204)
async def unsubscribe(subscription_id: SubscriptionId, work: Manage) -> None:
    """What was not sent yet is cancelled."""
    await service.unsubscribe(work.session, subscription_id, now=work.clock.now())
