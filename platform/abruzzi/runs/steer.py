"""Steering runs: cancel, retry, override a gate, interrupt and continue. Each only says what is wanted; the controller makes it so."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.gate import parse_gate
from abruzzi.contracts.states import RunState, StageState
from abruzzi.events import service as events
from abruzzi.runs import query
from abruzzi.runs.gates import refusal
from abruzzi.runs.models import RunRow, StageRow

_TERMINAL = [s for s in RunState if s.is_terminal]


async def cancel(session: AsyncSession, run_id: str, *, expected_version: int | None = None, now: datetime) -> None:
    """Ask for the end. Asking again changes nothing. Raises Conflict when the run has ended otherwise."""
    run = await _lock(session, run_id, expected_version)
    if run.state == RunState.CANCELLED or run.desired == "cancel":
        return
    if RunState(run.state).is_terminal:
        raise Conflict(f"Run {run.id} has {run.state}; there is nothing to cancel.", code="run_ended")
    await _want(session, run, "cancel", now)
    if run.state != RunState.CANCELLING:
        run.state = RunState.CANCELLING
        events.append(session, run.project_id, run.id, "run.state", {"state": run.state})


async def retry(
    session: AsyncSession, run_id: str, stage_id: str | None, *, expected_version: int | None = None, now: datetime
) -> None:
    """Open the next revision of an ended run: `stage_id` and what needs it, and everything that did not succeed, run again.

    Facts stay until new ones replace them, as the artifacts do that they speak of.
    """
    run = await _lock(session, run_id, expected_version)
    if run.state not in (RunState.FAILED, RunState.CANCELLED):
        verb = "is still " + run.state if not RunState(run.state).is_terminal else "has succeeded"
        raise Conflict(
            f"Run {run.id} {verb}; only a failed or cancelled run can be retried.",
            code="run_not_ended",
            hint="To go on from a checkpoint of it, branch.",
        )
    stages = await query.stage_rows(session, run.id)
    if stage_id is not None and stage_id not in {s.id for s in stages}:
        raise NotFound("stage", stage_id, hint=f"Its stages: {', '.join(s.id for s in stages)}.")
    again = {s.id for s in stages if s.state != StageState.SUCCEEDED}
    again |= {stage_id} if stage_id else set()
    while more := {s.id for s in stages if s.id not in again and again & set(s.needs)}:
        again |= more
    await _reopen(session, run, stages, again, now)


async def override_gate(
    session: AsyncSession,
    run_id: str,
    stage_id: str,
    *,
    by: str,
    reason: str,
    expected_version: int | None = None,
    now: datetime,
) -> None:
    """Let a stage start although its gate does not hold; a run that its gate has ended goes on. Holds until what the gate looks at is made again.

    Raises NotFound, and Conflict where the stage has no gate, has started already, its gate holds, or has not been judged: nobody lets pass
    what nobody has seen.
    """
    run = await _lock(session, run_id, expected_version)
    stages = await query.stage_rows(session, run.id)
    stage = next((s for s in stages if s.id == stage_id), None)
    if stage is None or stage.gate is None:
        gated = ", ".join(s.id for s in stages if s.gate) or "none"
        raise NotFound("gate", stage_id, hint=f"Stages of the run that have one: {gated}.")
    if (refused := refusal(run, stage, stage.gate, stages)) is not None:
        raise refused
    stage.gate_override = {"by": by, "reason": reason, "at": now.isoformat()}
    events.append(
        session,
        run.project_id,
        run.id,
        "gate.overridden",
        {"stage": stage_id, "by": by, "reason": reason, "gate": stage.gate},
    )
    again = {s.id for s in stages if s.state == StageState.SKIPPED}
    if run.state == RunState.FAILED:
        again |= {s.id for s in stages if s.state != StageState.SUCCEEDED}
    await _reopen(session, run, stages, again, now)


async def _reopen(
    session: AsyncSession, run: RunRow, stages: Sequence[StageRow], again: Collection[str], now: datetime
) -> None:
    """These stages wait again. What was said of a gate is forgotten where what it looks at is made again."""
    attempts = await query.attempt_rows(session, run.id)
    for stage in stages:
        if stage.id in again:
            stage.revision += 1
            stage.state, stage.reason, stage.not_before = StageState.WAITING, None, None
            stage.started_at = stage.ended_at = None
            stage.attempts_before = len(attempts.get(stage.id, ()))
            if stage.gate_override and any(gate.stage_id in again for gate in parse_gate(stage.gate or "") or ()):
                stage.gate_override = None
            events.append(session, run.project_id, run.id, "stage.state", {"stage": stage.id, "state": stage.state})
    if RunState(run.state).is_terminal:
        run.revision += 1
        run.state, run.reason, run.ended_at = RunState.PENDING, None, None
        events.append(session, run.project_id, run.id, "run.state", {"state": run.state, "retry": sorted(again)})
    await _want(session, run, "run", now)


async def interrupt_all(session: AsyncSession, *, now: datetime) -> int:
    """The embedded platform goes down: running stages save and stop. Returns how many runs are concerned."""
    rows = (
        (
            await session.execute(
                select(RunRow).where(RunRow.state.not_in(_TERMINAL), RunRow.desired == "run").with_for_update()
            )
        )
        .scalars()
        .all()
    )
    for run in rows:
        await _want(session, run, "interrupt", now)
    return len(rows)


async def resume_interrupted(session: AsyncSession, *, now: datetime) -> int:
    """The platform is up again: interrupted runs go on, free of charge."""
    rows = (
        (await session.execute(select(RunRow).where(RunRow.desired == "interrupt").with_for_update())).scalars().all()
    )
    for run in rows:
        await _want(session, run, "run", now)
    return len(rows)


async def unsettled(session: AsyncSession) -> int:
    """Runs that were asked to stop for an interruption and have not yet."""
    query_ = select(RunRow.id).where(
        RunRow.desired == "interrupt", RunRow.state.in_([RunState.PENDING, RunState.RUNNING])
    )
    return len((await session.execute(query_)).all())


async def _lock(session: AsyncSession, run_id: str, expected_version: int | None) -> RunRow:
    run = await query.row(session, run_id, lock=True)
    if expected_version is not None and run.version != expected_version:
        raise AbruzziError(
            "version_conflict",
            f"Run {run.id} changed meanwhile (version {run.version}).",
            status=412,
            hint="Look at it again, then repeat.",
        )
    return run


async def _want(session: AsyncSession, run: RunRow, desired: str, now: datetime) -> None:
    run.desired = desired
    run.version += 1
    run.wake_at = now
    events.ring_all(session, run.id)
