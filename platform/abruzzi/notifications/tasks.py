"""Side work of notifications: what an event becomes for each subscriber, and sending it."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.notification import Channel, DeliveryState, Topic
from abruzzi.events.outbox import Message
from abruzzi.kit.db import transaction
from abruzzi.kit.expiry import count_rows, delete_rows
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.notifications import mail, outbound, service, webhook
from abruzzi.notifications.errors import NotDelivered
from abruzzi.notifications.models import DeliveryRow
from abruzzi.runs import query

logger = logging.getLogger(__name__)
LANES = 4


async def announce_run(ground: Ground, session: AsyncSession, message: Message) -> None:
    """Consumer of `run.submitted` and `run.ended`."""
    run = await query.row(session, message.body["run_id"])
    state = str(message.body.get("state", run.state))
    ended = message.kind == "run.ended"
    topics = [Topic(f"run.{state}"), Topic.RUN_ENDED] if ended else [Topic.RUN_SUBMITTED]
    base = ground.settings.public_url or ground.settings.url
    data: dict[str, Any] = {
        "summary": f"Run {run.name} ({run.id}) {'has ' + state if state in ('succeeded', 'failed') else 'was ' + state if ended else 'was submitted'}",
        "run_id": run.id,
        "name": run.name,
        "project": run.project_id,
        "state": state if ended else "pending",
        "reason": run.reason if ended else None,
        "headline": run.headline if ended else {},
        "submitted_by": run.created_by,
        "url": f"{base}/runs/{run.id}" if base else None,
    }
    await service.fan_out(session, message, topics, data, now=ground.clock.now())


async def announce_corrupt(ground: Ground, session: AsyncSession, message: Message) -> None:
    """Consumer of `artifact.corrupt`."""
    data = {"summary": f"Artifact {message.body['artifact_id']} is damaged", **message.body}
    await service.fan_out(session, message, [Topic.ARTIFACT_CORRUPT], data, now=ground.clock.now())


async def deliver(ground: Ground, budget: Budget) -> Outcome:
    """Send what is due until nothing is or the time is up, LANES at a time: a receiver that does not answer keeps the others waiting less."""
    lanes = await asyncio.gather(*(_lane(ground, budget) for _ in range(LANES)))
    facts = {name: sum(lane.facts[name] for lane in lanes) for name in ("sent", "failed")}
    return Outcome(facts, more=any(lane.more for lane in lanes))


async def _lane(ground: Ground, budget: Budget) -> Outcome:
    sent = failed = 0
    while not budget.is_spent:
        async with transaction(ground.sessions) as session:
            claimed = await service.claim(session, now=ground.clock.now())
        if claimed is None:
            return Outcome({"sent": sent, "failed": failed})
        error = await _try(ground, claimed)
        async with transaction(ground.sessions) as session:
            now = ground.clock.now()
            if error is None:
                await service.mark_sent(session, claimed, now=now)
                sent += 1
            else:
                await service.mark_failed(session, claimed, error, now=now, random=ground.random)
                failed += 1
    return Outcome({"sent": sent, "failed": failed}, more=True)


async def _try(ground: Ground, claimed: service.Claimed) -> str | None:
    """None, or what went wrong. Whatever it is, it is this delivery's own trouble: it is kept with it and shown."""
    try:
        if claimed.channel is Channel.WEBHOOK:
            await _post(ground, claimed)
        else:
            message = mail.compose(claimed.body, topic=claimed.topic, to=claimed.target, delivery_id=claimed.id, sender=ground.settings.smtp_from)  # fmt: skip
            await asyncio.to_thread(mail.send, message, ground.settings)
    except (NotDelivered, AbruzziError) as error:
        logger.info("delivery %s, try %d: %s", claimed.id, claimed.tries, error)
        return str(error)
    except Exception as error:
        logger.exception("delivery %s, try %d", claimed.id, claimed.tries)
        return f"{type(error).__name__}: {error}"
    return None


async def _post(ground: Ground, claimed: service.Claimed) -> None:
    body = claimed.body.encode()
    secret = webhook.secret(ground.settings.secret("signing_key"), claimed.subscription_id)
    headers = webhook.headers(body, delivery_id=claimed.id, secret=secret, now=ground.clock.now())
    await outbound.post(claimed.target, body, headers, service.outbound(ground.settings))


async def count_done(session: AsyncSession, before: datetime) -> int:
    return await count_rows(session, DeliveryRow, *_done(before))


async def remove_done(ground: Ground, before: datetime) -> int:
    """Quarantined ones stay until a person has seen to them."""
    async with transaction(ground.sessions) as session:
        return await delete_rows(session, DeliveryRow, *_done(before))


def _done(before: datetime):  # type: ignore[no-untyped-def]
    return DeliveryRow.created_at < before, DeliveryRow.state.in_((DeliveryState.SENT, DeliveryState.CANCELLED))
