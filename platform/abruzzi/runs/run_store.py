"""The engine's door to Postgres: leases, fenced writes, views, specs (engine/ports.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import service as artifacts
from abruzzi.artifacts.models import ArtifactRow
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.pool import LOCAL
from abruzzi.contracts.stage import StageSpec, StoreConfig
from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage, Write
from abruzzi.engine.ports import IllegalWrite, Lease, StaleLease, VersionConflict
from abruzzi.engine.view import RunView
from abruzzi.events import service as events
from abruzzi.identity import service as identity
from abruzzi.kit.clock import Clock, from_unix
from abruzzi.kit.db import Sessions, single_statements, transaction
from abruzzi.pools import service as pools
from abruzzi.runs import query
from abruzzi.runs.facts import numeric_facts
from abruzzi.runs.models import AttemptRow, RunRow, StageRow
from abruzzi.runs.ownership import output_prefix, require_own
from abruzzi.runs.run_rows import RunRows
from abruzzi.runs.specs import SpecBuilder
from abruzzi.store import ObjectStore, Resume, list_manifests, prefix_of, verify_manifest

RUNG_FIRST = timedelta(days=3650)
"""A run that something happened to is due so long before those that are only looked at now and then, however late these are.
What speaks of lateness (gauges/service.py) takes it off again."""
_COPIED = ("exit_code", "reason", "failed_rank", "node", "workload_removed", "waits_for", "resize_to")
_MOMENTS = ("started_at", "ended_at", "stop_requested_at", "stacks_requested_at", "held_at")


class PostgresRunStore:
    """Implements engine.ports.RunStore. `sessions` connect as abruzzi_controller."""

    def __init__(self, sessions: Sessions, objects: ObjectStore, store_config: StoreConfig, clock: Clock) -> None:
        self._sessions = sessions
        self._objects = objects
        self._specs = SpecBuilder(objects, store_config)
        self._clock = clock

    async def lease(self, owner: str, *, limit: int, ttl_seconds: float) -> Sequence[Lease]:
        now = self._clock.now()
        expires = now + timedelta(seconds=ttl_seconds)
        # Due, or leased by a controller that never gave it back.
        free = or_(RunRow.lease_expires_at.is_(None), RunRow.lease_expires_at < now)
        due = or_(RunRow.wake_at <= now, RunRow.lease_owner.is_not(None))
        picked = (
            select(RunRow.id)
            .where(free, due)
            .order_by(RunRow.wake_at.nulls_first())
            .limit(limit)
            .with_for_update(skip_locked=True)
            # Materialised: a plan that ran the subquery twice would lock, and lease, more than the limit.
            .cte("picked")
            .prefix_with("MATERIALIZED")
        )
        statement = (
            update(RunRow)
            .where(RunRow.id == picked.c.id)
            .values(lease_token=RunRow.lease_token + 1, lease_owner=owner, lease_expires_at=expires, wake_at=None)
            .returning(RunRow.id, RunRow.lease_token)
        )
        async with single_statements(self._sessions) as session:
            rows = (await session.execute(statement)).all()
        return [Lease(r.id, r.lease_token, owner, expires.timestamp()) for r in rows]

    async def renew(self, lease: Lease, *, ttl_seconds: float) -> Lease:
        expires = self._clock.now() + timedelta(seconds=ttl_seconds)
        statement = (
            update(RunRow)
            # A lease that was given back is none: a renewal that comes late must not lock the run against everybody.
            .where(RunRow.id == lease.run_id, RunRow.lease_token == lease.token, RunRow.lease_owner.is_not(None))
            .values(lease_expires_at=expires)
            .returning(RunRow.id)
        )
        async with single_statements(self._sessions) as session:
            if (await session.execute(statement)).first() is None:
                raise StaleLease(lease.run_id)
        return Lease(lease.run_id, lease.token, lease.owner, expires.timestamp())

    async def release(self, lease: Lease, *, wake_at: float | None) -> None:
        # LEAST ignores NULL: a ring that came while the run was leased (wake_at = then) is not overwritten by a later date.
        statement = (
            update(RunRow)
            .where(RunRow.id == lease.run_id, RunRow.lease_token == lease.token)
            .values(lease_owner=None, lease_expires_at=None, wake_at=func.least(RunRow.wake_at, from_unix(wake_at)))
        )
        async with single_statements(self._sessions) as session:
            await session.execute(statement)

    async def wake(self, run_ids: Collection[str]) -> None:
        # Locked in one order, so that two controllers that hear the same news do not wait for each other in a circle.
        rung = select(RunRow.id).where(RunRow.id.in_(sorted(run_ids))).order_by(RunRow.id).with_for_update().cte("rung")
        due = func.least(RunRow.wake_at, self._clock.now() - RUNG_FIRST)
        async with single_statements(self._sessions) as session:
            await session.execute(update(RunRow).where(RunRow.id == rung.c.id).values(wake_at=due))

    async def load(self, run_id: str) -> RunView:
        async with single_statements(self._sessions) as session:
            return (await RunRows.read(session, run_id)).view()

    async def apply(self, lease: Lease, expected_version: int, writes: Sequence[Write]) -> RunView:
        try:
            async with transaction(self._sessions) as session:
                rows = await RunRows.read(session, lease.run_id, lock=True)
                _require_held(rows.run, lease)
                if rows.run.version != expected_version:
                    raise VersionConflict(lease.run_id)
                rows.run.version += 1
                for write in writes:
                    await self._write(session, rows, write)
                    # One by one: the triggers must see each state, and events lie in the order of what they tell.
                    await session.flush()
                events.ring(session, events.CHANNEL_EVENTS, rows.run.id)
                return rows.view()
        except IntegrityError as error:
            raise IllegalWrite(str(error.orig).splitlines()[0]) from error

    async def spec(self, attempt_id: str) -> StageSpec:
        while True:
            async with transaction(self._sessions) as session:
                attempt = await query.attempt_row(session, attempt_id)
                if attempt.spec is not None:
                    return StageSpec.model_validate(attempt.spec)
                draft = await self._specs.draft(session, attempt)
            damaged = await asyncio.to_thread(self._specs.damaged_inputs, draft)
            if not damaged:
                break
            # Each is marked and never bound again: the next draft falls back on the one before, or finds none and says so.
            async with transaction(self._sessions) as session:
                await artifacts.mark_damaged_inputs(session, damaged)
        resume = await asyncio.to_thread(self._specs.find_resume, draft)
        data_step = await asyncio.to_thread(self._specs.find_data_step, draft, resume)
        async with transaction(self._sessions) as session:
            attempt = await query.attempt_row(session, attempt_id, lock=True)
            if attempt.spec is None:
                built = self._specs.finish(draft, resume, data_step)
                attempt.spec = built.model_dump(mode="json")
                attempt.reason = draft.note(resume)
                await self._note_resume(session, attempt, resume)
            return StageSpec.model_validate(attempt.spec)

    async def collect_artifacts(self, lease: Lease, attempt_id: str) -> int:
        async with transaction(self._sessions) as session:
            await _held(
                session, lease
            )  # before gigabytes are read for nothing; the lease is checked again where it counts
            attempt = await _attempt_of(session, lease.run_id, attempt_id)
            known = await artifacts.known_keys(session, attempt.run_id, attempt.stage_id)
        found, present, corrupt = await asyncio.to_thread(self._scan, attempt, {k for k, v in known.items() if v})
        # Only what was known before the scan: what was committed during it is not missing.
        missing = known.keys() - present
        if not (found or corrupt or missing):
            return 0
        now = self._clock.now()
        new = 0
        async with transaction(self._sessions) as session:
            run = await _held(session, lease)
            stage = await _stage_of(session, run.id, attempt.stage_id)
            facts: dict[str, float] = dict(stage.facts)
            for key, manifest in found:
                new += await artifacts.record(session, key, manifest, verified_at=now) is not None
                facts |= numeric_facts(manifest.meta)
            await artifacts.mark_corrupt(session, run.project_id, run.id, stage.id, corrupt)
            if facts != stage.facts:
                stage.facts = facts
                run.headline = {
                    **run.headline,
                    **{k: v for k, v in facts.items() if k in ("bits_per_byte", "cloze_accuracy")},
                }
            await artifacts.mark_deleted(session, missing, now=now)
        return new

    def _scan(
        self, attempt: AttemptRow, verified: set[str]
    ) -> tuple[list[tuple[str, Manifest]], set[str], dict[str, str]]:
        """(sound manifests of the attempt's epoch, keys of all of the stage's, sentences about damaged ones), steps in order."""
        prefix = output_prefix(attempt)
        sound: list[tuple[str, Manifest]] = []
        corrupt: dict[str, str] = {}
        mine = f"{prefix}e{attempt.epoch}/"
        present: set[str] = set()

        def unreadable(key: str, error: AbruzziError) -> None:
            present.add(key)
            if key.startswith(mine):
                corrupt[key] = f"{error.message} {error.hint}"

        manifests = list(list_manifests(self._objects, prefix, unreadable=unreadable))
        for key, manifest in manifests:
            if not key.startswith(mine):
                continue
            try:
                require_own(attempt, key, manifest)
                if key not in verified:
                    verify_manifest(self._objects, manifest, prefix_of(key))
                sound.append((key, manifest))
            except AbruzziError as error:
                if error.code not in ("foreign_artifact", "corrupt_artifact"):
                    raise
                corrupt[key] = error.message
        sound.sort(key=lambda found: (found[1].step or 0, found[1].created_at, found[0]))
        return sound, present | {key for key, _ in manifests}, corrupt

    async def _write(self, session: AsyncSession, rows: RunRows, write: Write) -> None:
        now, run = self._clock.now(), rows.run
        match write:
            case CreateAttempt():
                await self._create(session, rows, write)
            case SetAttempt():
                attempt = rows.attempt(write.attempt_id)
                before = attempt.state
                _update_attempt(attempt, write, now)
                if attempt.state != before:
                    body = {
                        "attempt": attempt.id,
                        "stage": attempt.stage_id,
                        "state": attempt.state,
                        "cause": attempt.cause,
                        "reason": attempt.reason,
                    }
                    events.append(session, run.project_id, run.id, "attempt.state", body)
                    if write.state.is_terminal:
                        await identity.retire_attempt_token(session, attempt.id, now=now)
            case SetStage():
                stage = rows.stage(write.stage_id)
                changed = stage.state != write.state
                stage.state, stage.reason, stage.not_before = write.state, write.reason, from_unix(write.not_before)
                if write.state is StageState.RUNNING and stage.started_at is None:
                    stage.started_at = now
                if changed:
                    stage.ended_at = now if write.state.is_terminal else stage.ended_at
                    events.append(
                        session,
                        run.project_id,
                        run.id,
                        "stage.state",
                        {"stage": stage.id, "state": stage.state, "reason": stage.reason},
                    )
            case SetRun():
                changed = run.state != write.state
                run.state, run.reason = write.state, write.reason
                if write.state is RunState.RUNNING and run.started_at is None:
                    run.started_at = now
                if changed and write.state.is_terminal:
                    run.ended_at = now
                    events.enqueue(session, run.project_id, "run.ended", {"run_id": run.id, "state": run.state})
                if changed:
                    events.append(
                        session, run.project_id, run.id, "run.state", {"state": run.state, "reason": run.reason}
                    )

    async def _create(self, session: AsyncSession, rows: RunRows, write: CreateAttempt) -> None:
        run, stage = rows.run, rows.stage(write.stage_id)
        if write.epoch <= run.last_epoch:
            raise IllegalWrite(f"epoch {write.epoch} is not above {run.last_epoch}, the last of run {run.id}")
        made = self._specs.attempt_row(run, write, self._clock.now())
        await _ask(session, made, stage)
        run.last_epoch = write.epoch
        session.add(made)
        rows.attempts[made.id] = made
        await session.flush()
        events.append(
            session,
            run.project_id,
            run.id,
            "attempt.state",
            {
                "attempt": made.id,
                "stage": made.stage_id,
                "state": made.state,
                "world_size": made.world_size or stage.world_size,
            },
        )

    async def _note_resume(self, session: AsyncSession, attempt: AttemptRow, resume: Resume) -> None:
        await artifacts.mark_corrupt(session, attempt.project_id, attempt.run_id, attempt.stage_id, resume.corrupt)
        if resume.key is not None and resume.manifest is not None:
            found = await session.execute(select(ArtifactRow.id).where(ArtifactRow.manifest_key == resume.key))
            attempt.resumed_from, attempt.resume_step = found.scalar_one_or_none(), resume.manifest.step
            if attempt.resumed_from is None:
                now = self._clock.now()
                attempt.resumed_from = await artifacts.record(session, resume.key, resume.manifest, verified_at=now)


async def _held(session: AsyncSession, lease: Lease) -> RunRow:
    """The leased run, locked. Raises StaleLease."""
    run = await query.row(session, lease.run_id, lock=True)
    _require_held(run, lease)
    return run


def _require_held(run: RunRow, lease: Lease) -> None:
    """Raises StaleLease."""
    if run.lease_token != lease.token or run.lease_owner is None:
        raise StaleLease(lease.run_id)


async def _stage_of(session: AsyncSession, run_id: str, stage_id: str) -> StageRow:
    """Locked. Raises NotFound."""
    stage = await session.get(StageRow, (run_id, stage_id), with_for_update=True)
    if stage is None:
        raise NotFound("stage", stage_id)
    return stage


async def _attempt_of(session: AsyncSession, run_id: str, attempt_id: str) -> AttemptRow:
    """Raises NotFound, also for an attempt of another run than the leased one."""
    attempt = await query.attempt_row(session, attempt_id)
    if attempt.run_id != run_id:
        raise NotFound("attempt", attempt_id)
    return attempt


async def _ask(session: AsyncSession, attempt: AttemptRow, stage: StageRow) -> None:
    """What its ranks are to get, by its pool as it is now: a pool that changes later must not change what was used."""
    query = select(StageRow.config["resources"]).where(StageRow.run_id == stage.run_id, StageRow.id == stage.id)
    resources = (await session.execute(query)).scalar_one() or {}
    pool: str = resources.get("pool", LOCAL)
    attempt.pool = pool
    asked = await pools.asked(session, pool, attempt.world_size or stage.world_size, threads=resources.get("threads"))
    if asked is not None:
        attempt.gpus, attempt.cpus, attempt.memory = asked.gpus, asked.cpus, asked.memory


def _update_attempt(attempt: AttemptRow, write: SetAttempt, now: datetime) -> None:
    attempt.state = write.state
    values: Mapping[str, Any] = {name: getattr(write, name) for name in _COPIED} | {
        name: from_unix(getattr(write, name)) for name in _MOMENTS
    }
    for name, value in values.items():
        if value is not None:
            setattr(attempt, name, value if value != "" else None)
    if write.cause is not None:
        attempt.cause = write.cause
    if write.stop_cause is not None:
        attempt.stop_cause = write.stop_cause
    if AttemptState(attempt.state).is_terminal and attempt.ended_at is None:
        attempt.ended_at = now
