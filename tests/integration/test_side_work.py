"""Messages, deliveries and chores over a real Postgres: nothing is lost, nothing has its effect twice, what cannot be handled is kept and shown."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from smtp_sink import SmtpSink
from sqlalchemy import select, text
from webhook_receiver import WebhookReceiver

from abruzzi.contracts.notification import Channel, DeliveryState, Topic
from abruzzi.events import outbox
from abruzzi.events import service as events
from abruzzi.events.models import OutboxRow
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.kit.settings import Settings
from abruzzi.notifications import service, webhook
from abruzzi.notifications import tasks as notifications
from abruzzi.notifications.models import DeliveryRow
from abruzzi.store import DirectoryStore
from abruzzi.workers import chores, steps
from abruzzi.workers.registry import Chore

ALWAYS = 1e9
KEY = "a key for tests"
RUN = """INSERT INTO runs (id, project_id, name, recipe_name, recipe, recipe_toml, state, created_by, headline)
         VALUES (:id, :project, 'tiny', 'r', '{}', '', 'succeeded', 'me', CAST('{"train/loss" : 2.5}' AS jsonb))"""


class Clock:
    """Goes on with the real one, and can be turned."""

    ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def turn(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ground(sessions, store_root, clock: Clock) -> Ground:  # type: ignore[no-untyped-def]
    settings = Settings(
        signing_key=SecretStr(KEY), public_url="https://abruzzi.example.org", smtp_security="none", webhook_schemes=frozenset({"http"}),
        webhook_ports=frozenset(range(1024, 65536)), webhook_networks=(ipaddress.ip_network("127.0.0.0/8"),),
    )  # fmt: skip
    return Ground(sessions, DirectoryStore(store_root), settings, clock, random=lambda: 1.0)


async def enqueue(ground: Ground, *bodies: dict[str, Any], kind: str = "run.ended", project: str = "default") -> None:
    async with transaction(ground.sessions) as session:
        for body in bodies:
            events.enqueue(session, project, kind, body)
            await session.flush()


async def ended_run(ground: Ground, run_id: str = "a000000000", project: str = "default") -> None:
    async with transaction(ground.sessions) as session:
        named = {"id": run_id, "project": project}
        await session.execute(
            text("INSERT INTO projects (id, name) VALUES (:project, 'x') ON CONFLICT DO NOTHING"), named
        )
        await session.execute(text(RUN), named)
    await enqueue(ground, {"run_id": run_id, "state": "succeeded"}, project=project)


async def subscribe(
    ground: Ground, target: str, *topics: Topic, channel: Channel = Channel.WEBHOOK, project: str = "default"
) -> str:
    async with transaction(ground.sessions, [project]) as session:
        made = await service.subscribe(
            session, project_id=project, channel=channel, target=target, topics=topics or [Topic.RUN_ENDED],
            settings=ground.settings, actor="me", now=ground.clock.now(),
        )  # fmt: skip
    return made.id


async def work(ground: Ground) -> Outcome:
    await steps.handle_messages(ground, Budget(ALWAYS))
    return await notifications.deliver(ground, Budget(ALWAYS))


async def rows(ground: Ground, model: Any) -> Sequence[Any]:
    async with transaction(ground.sessions) as session:
        return (await session.execute(select(model).order_by(model.id))).scalars().all()


async def test_two_workers_never_handle_the_same_message(ground: Ground) -> None:
    await enqueue(ground, *({"n": n} for n in range(20)))
    handled: list[int] = []

    async def consumer(ground: Ground, session: Any, message: outbox.Message) -> None:
        await asyncio.sleep(0)
        handled.append(message.body["n"])

    await asyncio.gather(*(steps.handle_messages(ground, Budget(ALWAYS), {"run.ended": consumer}) for _ in range(4)))
    assert sorted(handled) == list(range(20))
    assert all(row.sent_at is not None for row in await rows(ground, OutboxRow))


async def test_a_message_whose_worker_died_is_handled_when_its_claim_has_run_out(ground: Ground, clock: Clock) -> None:
    await enqueue(ground, {"n": 1})
    handled: list[int] = []

    async def consumer(ground: Ground, session: Any, message: outbox.Message) -> None:
        handled.append(message.tries)

    async with transaction(ground.sessions) as session:
        assert await outbox.claim(session, now=clock.now()) is not None  # and dies
    await steps.handle_messages(ground, Budget(ALWAYS), {"run.ended": consumer})
    assert handled == []
    clock.turn(outbox.CLAIM_SECONDS + 1)
    await steps.handle_messages(ground, Budget(ALWAYS), {"run.ended": consumer})
    assert handled == [2]


async def test_a_worker_that_comes_back_after_its_claim_commits_nothing(ground: Ground, clock: Clock) -> None:
    """Stopped for longer than its claim: another worker has taken the message, so its effect must not be there twice."""
    await ended_run(ground)
    await subscribe(ground, "http://127.0.0.1:1234/")

    async def slow(ground: Ground, session: Any, message: outbox.Message) -> None:
        await notifications.announce_run(ground, session, message)
        clock.turn(outbox.CLAIM_SECONDS + 1)
        async with transaction(ground.sessions) as other:
            assert await outbox.claim(other, now=clock.now()) is not None

    await steps.handle_messages(ground, Budget(ALWAYS), {"run.ended": slow})
    assert await rows(ground, DeliveryRow) == []


async def test_a_message_that_fails_is_tried_again_and_then_quarantined_in_nobodys_way(
    ground: Ground, clock: Clock
) -> None:
    await enqueue(ground, {"n": "poison"}, {"n": "good"})
    handled: list[str] = []

    async def consumer(ground: Ground, session: Any, message: outbox.Message) -> None:
        if message.body["n"] == "poison":
            raise ValueError("cannot make sense of this")
        handled.append(message.body["n"])

    for _ in range(outbox.MAX_TRIES):
        await steps.handle_messages(ground, Budget(ALWAYS), {"run.ended": consumer})
        assert handled == ["good"]
        clock.turn(outbox.MOST_DELAY_SECONDS + 1)
    assert (await steps.look(ground)).messages == 0
    async with transaction(ground.sessions, ["default"]) as session:
        [shown] = await outbox.list_quarantined(session)
        assert (shown.tries, shown.error) == (outbox.MAX_TRIES, "ValueError: cannot make sense of this")
        await outbox.retry_quarantined(session, int(shown.id), now=clock.now())
    assert (await steps.look(ground)).messages == 1


async def test_a_message_that_kills_its_worker_each_time_is_quarantined(ground: Ground, clock: Clock) -> None:
    await enqueue(ground, {})
    for _ in range(outbox.MAX_TRIES):
        async with transaction(ground.sessions) as session:
            assert await outbox.claim(session, now=clock.now()) is not None  # and is killed
        clock.turn(outbox.CLAIM_SECONDS + 1)
    async with transaction(ground.sessions) as session:
        assert await outbox.claim(session, now=clock.now()) is None
        [shown] = await outbox.list_quarantined(session)
    assert shown.error == f"Its worker died {outbox.MAX_TRIES} times while it handled this message."


async def test_a_message_of_an_unknown_kind_is_kept_with_a_sentence(ground: Ground) -> None:
    await enqueue(ground, {}, kind="from.the.future")
    await steps.handle_messages(ground, Budget(ALWAYS))
    [row] = await rows(ground, OutboxRow)
    assert "'from.the.future'" in row.last_error
    assert row.sent_at is None


async def test_a_run_that_ended_is_told_to_its_subscribers_signed_and_once(ground: Ground) -> None:
    await ended_run(ground)
    await ended_run(ground, "b000000000", "other")
    with WebhookReceiver() as receiver:
        subscription = await subscribe(ground, receiver.url)
        await subscribe(ground, receiver.url, Topic.RUN_FAILED)
        await subscribe(ground, receiver.url, project="other", channel=Channel.WEBHOOK)
        receiver.secret = webhook.secret(KEY, subscription)
        await work(ground)
        await work(ground)
    [(delivery_id, body)] = receiver.requests
    assert receiver.refused == ["signature"], "the other project's subscription has another secret"
    assert body["type"] == "run.ended"
    assert body["data"]["run_id"] == "a000000000"
    assert body["data"]["summary"] == "Run tiny (a000000000) has succeeded"
    assert body["data"]["headline"] == {"train/loss": 2.5}
    assert body["data"]["url"] == "https://abruzzi.example.org/runs/a000000000"
    [sent] = [row for row in await rows(ground, DeliveryRow) if row.id == delivery_id]
    assert (sent.state, sent.tries, sent.topic) == (DeliveryState.SENT, 1, "run.ended")


async def test_a_repeated_fan_out_adds_nothing(ground: Ground, clock: Clock) -> None:
    await ended_run(ground)
    await subscribe(ground, "http://127.0.0.1:1234/")
    for _ in range(3):
        await steps.handle_messages(ground, Budget(ALWAYS))
        async with transaction(ground.sessions) as session:
            await session.execute(text("UPDATE outbox SET sent_at = NULL, not_before = now()"))
    assert len(await rows(ground, DeliveryRow)) == 1


async def test_a_failed_delivery_is_tried_again_with_pauses_and_the_same_id(ground: Ground, clock: Clock) -> None:
    await ended_run(ground)
    with WebhookReceiver(status=lambda number: 503 if number < 3 else 200) as receiver:
        receiver.secret = webhook.secret(KEY, await subscribe(ground, receiver.url))
        for expected in (1, 1, 2):  # the second look comes too early
            await work(ground)
            assert len(receiver.requests) == expected
            clock.turn(service.FIRST_DELAY_SECONDS * (expected - 0.5))
        [row] = await rows(ground, DeliveryRow)
        assert row.last_error.endswith("answered 503.")
        clock.turn(60)
        await work(ground)
    assert len({delivery_id for delivery_id, _ in receiver.requests}) == 1
    assert len(receiver.effects) == len(receiver.answered) == 1
    [row] = await rows(ground, DeliveryRow)
    assert (row.state, row.tries, row.last_error) == (DeliveryState.SENT, 3, None)


async def test_a_delivery_whose_worker_died_after_sending_is_sent_again_under_the_same_id(
    ground: Ground, clock: Clock
) -> None:
    await ended_run(ground)
    with WebhookReceiver() as receiver:
        receiver.secret = webhook.secret(KEY, await subscribe(ground, receiver.url))
        await steps.handle_messages(ground, Budget(ALWAYS))
        async with transaction(ground.sessions) as session:
            claimed = await service.claim(session, now=clock.now())
        assert claimed is not None
        assert await notifications._try(ground, claimed) is None  # and dies before it can say so
        clock.turn(service.CLAIM_SECONDS + 1)
        await work(ground)
    assert [delivery_id for delivery_id, _ in receiver.requests] == [claimed.id, claimed.id]
    assert len(receiver.effects) == 1


async def test_a_receiver_that_never_answers_well_is_quarantined_and_a_person_may_try_again(
    ground: Ground, clock: Clock
) -> None:
    await ended_run(ground)
    always = lambda number: 500 if number <= service.MAX_TRIES else 200  # noqa: E731
    with WebhookReceiver(status=always, now=lambda: clock.now().timestamp()) as receiver:
        receiver.secret = webhook.secret(KEY, await subscribe(ground, receiver.url))
        for _ in range(service.MAX_TRIES + 2):
            await work(ground)
            clock.turn(service.MOST_DELAY_SECONDS + 1)
        assert len(receiver.requests) == service.MAX_TRIES
        async with transaction(ground.sessions, ["default"]) as session:
            [shown] = await service.list_deliveries(session, state=DeliveryState.QUARANTINED)
            assert shown.error is not None
            await service.retry(session, shown.id, now=clock.now())
        await work(ground)
    assert receiver.answered == [shown.id]


async def test_nothing_is_sent_for_a_subscription_that_was_removed(ground: Ground, clock: Clock) -> None:
    await ended_run(ground)
    with WebhookReceiver() as receiver:
        subscription = await subscribe(ground, receiver.url)
        await steps.handle_messages(ground, Budget(ALWAYS))
        async with transaction(ground.sessions, ["default"]) as session:
            await service.unsubscribe(session, subscription, now=clock.now())
        await work(ground)
        assert receiver.requests == []
    [row] = await rows(ground, DeliveryRow)
    assert row.state == DeliveryState.CANCELLED


async def test_a_receiver_inside_is_refused_at_sending_too(ground: Ground) -> None:
    """The name was public when the subscription was made; the operator's list is shorter now."""
    await ended_run(ground)
    with WebhookReceiver() as receiver:
        await subscribe(ground, receiver.url)
        strict = ground.settings.model_copy(update={"webhook_networks": ()})
        await work(Ground(ground.sessions, ground.objects, strict, ground.clock))
        assert receiver.requests == receiver.refused == []
    [row] = await rows(ground, DeliveryRow)
    assert "not a public address" in row.last_error


async def test_a_worker_without_the_signing_key_says_so_and_goes_on(ground: Ground) -> None:
    await ended_run(ground)
    await subscribe(ground, "http://127.0.0.1:1234/")
    without = ground.settings.model_copy(update={"signing_key": None})
    await work(Ground(ground.sessions, ground.objects, without, ground.clock))
    [row] = await rows(ground, DeliveryRow)
    assert "ABRUZZI_SIGNING_KEY is not set" in row.last_error


async def test_a_mail_is_sent_to_the_configured_server(ground: Ground) -> None:
    await ended_run(ground)
    with SmtpSink() as sink:
        settings = ground.settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_port": sink.port})
        with_mail = Ground(ground.sessions, ground.objects, settings, ground.clock)
        await subscribe(with_mail, "team@example.org", channel=Channel.EMAIL)
        await work(with_mail)
    [(receivers, message)] = sink.messages
    assert receivers == ["team@example.org"]
    assert message["Subject"] == "[Abruzzi] Run tiny (a000000000) has succeeded"


async def test_a_mail_that_the_server_refuses_is_a_failed_try(ground: Ground) -> None:
    await ended_run(ground)
    with SmtpSink(refuse=True) as sink:
        settings = ground.settings.model_copy(update={"smtp_host": "127.0.0.1", "smtp_port": sink.port})
        with_mail = Ground(ground.sessions, ground.objects, settings, ground.clock)
        await subscribe(with_mail, "team@example.org", channel=Channel.EMAIL)
        await work(with_mail)
        assert sink.messages == []
    [row] = await rows(ground, DeliveryRow)
    assert "did not take the message" in row.last_error


async def test_a_chore_is_done_once_when_it_is_due_however_often_it_is_rung_for(ground: Ground, clock: Clock) -> None:
    done: list[datetime] = []

    async def step(ground: Ground, budget: Budget) -> Outcome:
        await asyncio.sleep(0)
        done.append(ground.clock.now())
        return Outcome({"done": len(done)}, more=len(done) == 1)

    known = {"sweep floor": Chore("sweep floor", step, every_seconds=3600.0)}
    async with transaction(ground.sessions) as session:
        assert await chores.due(session, tuple(known), now=clock.now()) == ("sweep floor",)

    async def ring() -> None:
        await asyncio.gather(*(steps.run_chore(ground, "sweep floor", known=known) for _ in range(5)))

    await ring()
    assert len(done) in (1, 2), "there is more to do at once"
    await ring()
    assert len(done) == 2
    await ring()
    assert len(done) == 2
    clock.turn(3601)
    await ring()
    assert len(done) == 3


async def test_a_failing_chore_keeps_its_error_and_is_tried_again_with_growing_pauses(
    ground: Ground, clock: Clock
) -> None:
    async def step(ground: Ground, budget: Budget) -> Outcome:
        raise ConnectionError("nobody there")

    known = {"call": Chore("call", step, every_seconds=3600.0)}
    pauses = []
    async with transaction(ground.sessions) as session:
        await chores.due(session, tuple(known), now=clock.now())
    for failures in (1, 2, 3):
        await steps.run_chore(ground, "call", known=known)
        async with transaction(ground.sessions) as session:
            [shown] = await chores.list_chores(session)
        assert (shown.failures, shown.error) == (failures, "ConnectionError: nobody there")
        pauses.append((shown.due_at - clock.now()).total_seconds())
        clock.turn(pauses[-1] + 1)
    assert pauses == sorted(pauses)
    assert pauses[0] < 15 < pauses[-1]
