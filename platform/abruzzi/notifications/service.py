"""Subscriptions and deliveries in Postgres."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.notification import Channel, DeliveryOut, DeliveryState, SubscriptionOut, Topic
from abruzzi.events.outbox import Message
from abruzzi.kit.backoff import delay_seconds
from abruzzi.kit.ids import new_id
from abruzzi.kit.settings import Settings
from abruzzi.notifications import mail
from abruzzi.notifications.models import DeliveryRow, SubscriptionRow
from abruzzi.notifications.outbound import Outbound, check_url

MAX_SUBSCRIPTIONS = 50
"""Of a project."""
MAX_TRIES = 8
CLAIM_SECONDS = 30.0
"""Longer than a try may take (10 s): so long a delivery waits whose worker was killed."""
FIRST_DELAY_SECONDS, MOST_DELAY_SECONDS = 5.0, 3600.0
TEST_TOPIC = "test"
_ERROR_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in the hands of one worker, with where it goes."""

    id: str
    subscription_id: str
    channel: Channel
    target: str
    topic: str
    body: str
    tries: int


def outbound(settings: Settings) -> Outbound:
    return Outbound(settings.webhook_schemes, settings.webhook_ports, tuple(settings.webhook_networks))


async def subscribe(
    session: AsyncSession,
    *,
    project_id: str,
    channel: Channel,
    target: str,
    topics: Sequence[Topic],
    settings: Settings,
    actor: str,
    now: datetime,
) -> SubscriptionOut:
    """Raises BadTarget, or Conflict when there are too many."""
    if channel is Channel.WEBHOOK:
        check_url(target, outbound(settings))
    else:
        mail.check_address(target, settings)
    if not topics:
        raise AbruzziError("no_topics", "A subscription names at least one topic.", status=422, hint=f"Topics: {', '.join(Topic)}.")  # fmt: skip
    count = await session.execute(select(func.count()).select_from(SubscriptionRow).where(SubscriptionRow.removed_at.is_(None)))  # fmt: skip
    if count.scalar_one() >= MAX_SUBSCRIPTIONS:
        raise Conflict(f"A project has {MAX_SUBSCRIPTIONS} subscriptions at most.", code="too_many", hint="Remove one that is not needed.")  # fmt: skip
    row = SubscriptionRow(
        id=new_id(), project_id=project_id, channel=channel, target=target, topics=sorted(set(topics)), created_by=actor, created_at=now
    )  # fmt: skip
    session.add(row)
    await session.flush()
    return _subscription(row)


async def unsubscribe(session: AsyncSession, subscription_id: str, *, now: datetime) -> None:
    """What was not sent yet is cancelled. Raises NotFound."""
    row = await _living(session, subscription_id)
    row.removed_at = now
    pending = (DeliveryRow.subscription_id == subscription_id, DeliveryRow.state == DeliveryState.PENDING)
    await session.execute(update(DeliveryRow).where(*pending).values(state=DeliveryState.CANCELLED))


async def list_subscriptions(
    session: AsyncSession, *, after: tuple[datetime, str] | None = None, limit: int = 100
) -> list[SubscriptionOut]:
    """Newest first."""
    query = (
        select(SubscriptionRow)
        .where(SubscriptionRow.removed_at.is_(None))
        .order_by(SubscriptionRow.created_at.desc(), SubscriptionRow.id.desc())
        .limit(limit)
    )
    if after:
        query = query.where(tuple_(SubscriptionRow.created_at, SubscriptionRow.id) < after)
    return [_subscription(row) for row in (await session.execute(query)).scalars()]


async def send_test(session: AsyncSession, subscription_id: str, *, actor: str, now: datetime) -> DeliveryOut:
    """Something to receive at once. Raises NotFound."""
    subscription = await _living(session, subscription_id)
    data = {"summary": "A test of this subscription", "project": subscription.project_id, "asked_by": actor}
    row = _delivery_row(subscription, None, TEST_TOPIC, _body(TEST_TOPIC, now, data), now)
    session.add(row)
    await session.flush()
    return _delivery(row)


async def fan_out(
    session: AsyncSession, message: Message, topics: Sequence[Topic], data: dict[str, Any], *, now: datetime
) -> int:
    """A delivery for each subscription to one of `topics`, whichever it names first in `topics`. Repeating it adds nothing. Returns how many are new."""
    wanted = (
        SubscriptionRow.project_id == message.project_id,
        SubscriptionRow.removed_at.is_(None),
        SubscriptionRow.topics.overlap(list(topics)),
    )
    made = 0
    for subscription in (await session.execute(select(SubscriptionRow).where(*wanted))).scalars():
        topic = next(t for t in topics if t in subscription.topics)
        row = _delivery_row(subscription, message.id, topic, _body(topic, message.created_at, data), now)
        values = {column.key: getattr(row, column.key) for column in DeliveryRow.__table__.columns}
        statement = insert(DeliveryRow).values(values).on_conflict_do_nothing().returning(DeliveryRow.id)
        made += (await session.execute(statement)).first() is not None
    return made


async def claim(session: AsyncSession, *, now: datetime) -> Claimed | None:
    """The delivery that has been due for longest, for this caller alone until the claim runs out; its try is counted before it is made."""
    while True:
        query = (
            select(DeliveryRow, SubscriptionRow)
            .join(SubscriptionRow, DeliveryRow.subscription_id == SubscriptionRow.id)
            .where(*_due(now))
            .order_by(DeliveryRow.due_at)
            .limit(1)
            .with_for_update(skip_locked=True, of=DeliveryRow)
        )
        found = (await session.execute(query)).first()
        if found is None:
            return None
        delivery, subscription = found
        if delivery.tries >= MAX_TRIES:
            delivery.state = DeliveryState.QUARANTINED
            delivery.last_error = delivery.last_error or f"Its worker died {delivery.tries} times."
            await session.flush()
            continue
        delivery.tries += 1
        delivery.due_at = now + timedelta(seconds=CLAIM_SECONDS)
        await session.flush()
        return Claimed(
            delivery.id, subscription.id, Channel(subscription.channel), subscription.target, delivery.topic, delivery.body, delivery.tries
        )  # fmt: skip


async def mark_sent(session: AsyncSession, claimed: Claimed, *, now: datetime) -> None:
    values = {"state": DeliveryState.SENT, "sent_at": now, "last_error": None}
    await session.execute(update(DeliveryRow).where(DeliveryRow.id == claimed.id).values(values))


async def mark_failed(
    session: AsyncSession, claimed: Claimed, error: str, *, now: datetime, random: Callable[[], float]
) -> None:
    """Due again after a delay with jitter, or quarantined."""
    delay = delay_seconds(claimed.tries, first=FIRST_DELAY_SECONDS, most=MOST_DELAY_SECONDS, random=random)
    state = DeliveryState.QUARANTINED if claimed.tries >= MAX_TRIES else DeliveryState.PENDING
    statement = (
        update(DeliveryRow)
        .where(
            DeliveryRow.id == claimed.id,
            DeliveryRow.state == DeliveryState.PENDING,
            DeliveryRow.tries == claimed.tries,
        )
        .values(last_error=error[:_ERROR_CHARACTERS], due_at=now + timedelta(seconds=delay), state=state)
    )
    await session.execute(statement)


async def count_due(session: AsyncSession, *, now: datetime) -> int:
    return (await session.execute(select(func.count()).select_from(DeliveryRow).where(*_due(now)))).scalar_one()


async def list_deliveries(
    session: AsyncSession,
    *,
    subscription_id: str | None = None,
    state: DeliveryState | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> list[DeliveryOut]:
    """Newest first."""
    query = select(DeliveryRow).order_by(DeliveryRow.created_at.desc(), DeliveryRow.id.desc()).limit(limit)
    if subscription_id:
        query = query.where(DeliveryRow.subscription_id == subscription_id)
    if state:
        query = query.where(DeliveryRow.state == state)
    if after:
        query = query.where(tuple_(DeliveryRow.created_at, DeliveryRow.id) < after)
    return [_delivery(row) for row in (await session.execute(query)).scalars()]


async def retry(session: AsyncSession, delivery_id: str, *, now: datetime) -> DeliveryOut:
    """A quarantined delivery is due again, with all its tries and the same id. Raises NotFound or Conflict."""
    row = await session.get(DeliveryRow, delivery_id, with_for_update=True)
    if row is None:
        raise NotFound("delivery", delivery_id)
    if row.state != DeliveryState.QUARANTINED:
        raise Conflict(f"The delivery is {row.state}.", hint="Only quarantined deliveries are tried again by hand.")
    await _living(session, row.subscription_id)
    row.state, row.tries, row.due_at = DeliveryState.PENDING, 0, now
    await session.flush()
    return _delivery(row)


async def _living(session: AsyncSession, subscription_id: str) -> SubscriptionRow:
    row = await session.get(SubscriptionRow, subscription_id)
    if row is None or row.removed_at is not None:
        raise NotFound("subscription", subscription_id, hint="`abruzzi notifications list` shows them.")
    return row


def _due(now: datetime):  # type: ignore[no-untyped-def]
    return DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.due_at <= now


def _body(topic: str, at: datetime, data: dict[str, Any]) -> str:
    return json.dumps({"type": topic, "timestamp": at.isoformat(), "data": data}, ensure_ascii=False, sort_keys=True)


def _delivery_row(
    subscription: SubscriptionRow, message_id: int | None, topic: str, body: str, now: datetime
) -> DeliveryRow:
    return DeliveryRow(
        id=f"msg_{new_id(20)}", project_id=subscription.project_id, subscription_id=subscription.id, message_id=message_id, topic=topic,
        body=body, state=DeliveryState.PENDING, tries=0, due_at=now, last_error=None, created_at=now, sent_at=None,
    )  # fmt: skip


def _subscription(row: SubscriptionRow) -> SubscriptionOut:
    return SubscriptionOut(
        id=row.id, project_id=row.project_id, channel=Channel(row.channel), target=row.target, topics=[Topic(t) for t in row.topics],
        created_by=row.created_by, created_at=row.created_at,
    )  # fmt: skip


def _delivery(row: DeliveryRow) -> DeliveryOut:
    return DeliveryOut(
        id=row.id, subscription_id=row.subscription_id, topic=row.topic, state=DeliveryState(row.state), tries=row.tries,
        error=row.last_error, due_at=row.due_at if row.state == DeliveryState.PENDING else None, created_at=row.created_at, sent_at=row.sent_at,
    )  # fmt: skip
