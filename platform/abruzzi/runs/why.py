"""Why a run is where it is: one sentence with numbers, and what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.pool import Amounts
from abruzzi.contracts.queue import WaitOut
from abruzzi.contracts.reason import ADVICE, Reason, tell
from abruzzi.contracts.resources import AttemptOut, RunOut, StageOut
from abruzzi.contracts.states import PHASE_ENDED, AttemptState, Cause, RunState, StageState
from abruzzi.contracts.why import AttemptFact, StageFact, WhyOut
from abruzzi.engine.policy import RULES
from abruzzi.pools import queue as places
from abruzzi.runs import query
from abruzzi.runs.shown import NOT_RUNNING, waits


async def why(session: AsyncSession, run_id: str, *, now: datetime) -> WhyOut:
    run = await query.get(session, run_id, now=now)
    waits = await _waits_of(session, run, now)
    facts = [_facts(stage, now, waits.get(stage.id)) for stage in run.detail]
    return WhyOut(state=run.state, sentence=sentence(run, now, waits), facts=facts)


async def _waits_of(session: AsyncSession, run: RunOut, now: datetime) -> dict[str, WaitOut]:
    """By stage: of those whose attempt exists and does not run."""
    found: dict[str, WaitOut] = {}
    views: dict[str, places.QueueView] = {}
    for stage in run.detail:
        last = stage.attempts[-1] if stage.attempts else None
        if last is None or last.state not in NOT_RUNNING:
            continue
        row = await query.attempt_row(session, last.id)
        if row.pool is None:
            continue
        if row.pool not in views:
            views[row.pool] = await places.look(session, row.pool, now=now)
        if row.waits_for is None and views[row.pool].spec.quota is None:
            continue  # nothing in the cluster holds it, and there is no queue: it is being started
        found[stage.id] = places.wait_of(
            views[row.pool],
            row.id,
            code=Reason(row.waits_for) if row.waits_for else Reason.STARTING,
            message=row.reason or "",
            since=row.created_at,
            ranks=last.world_size or stage_ranks(stage),
            asked=Amounts(cpus=row.cpus, memory=row.memory, gpus=row.gpus),
        )
    return found


def stage_ranks(stage: StageOut) -> int:
    return int((stage.config.get("resources") or {}).get("ranks", 1))


def sentence(run: RunOut, now: datetime, waits: Mapping[str, WaitOut] = MappingProxyType({})) -> str:
    """Pure; golden-tested."""
    done, total = sum(s.state is StageState.SUCCEEDED for s in run.detail), len(run.detail)
    if run.state is RunState.SUCCEEDED:
        stages = "Its stage" if total == 1 else f"All {total} stages"
        return tell(Reason.SUCCEEDED, stages=stages, time=_span(run.started_at, run.ended_at))
    if run.state is RunState.FAILED:
        return _failed_run(run)
    if run.state is RunState.CANCELLED:
        return tell(Reason.CANCELLED, done=done, total=total)
    if run.state is RunState.CANCELLING:
        return tell(Reason.CANCELLING)
    if run.state is RunState.INTERRUPTED:
        return tell(Reason.INTERRUPTED, done=done, total=total)
    active = [s for s in run.detail if s.state is StageState.RUNNING or _is_queued(s)]
    pending = [s for s in run.detail if s.state is StageState.PENDING and not _is_queued(s)]
    if active or pending:
        told = [_running(s, now, waits.get(s.id)) for s in active] + [_pending(s, now) for s in pending]
        return " ".join(told + _waiting(run.detail))
    return tell(Reason.ACCEPTED)


def reason_of(stage: StageOut, now: datetime, wait: WaitOut | None = None) -> Reason:
    """The public code."""
    last = stage.attempts[-1] if stage.attempts else None
    match stage.state:
        case StageState.WAITING:
            return Reason.WAITS_FOR_GATE if stage.gate else Reason.WAITS_FOR_STAGES
        case StageState.PENDING | StageState.RUNNING if _is_queued(stage):
            return wait.code if wait is not None and wait.code is not Reason.STARTING else Reason.WAITS_FOR_PODS
        case StageState.PENDING:
            return Reason.BACKING_OFF if stage.not_before and stage.not_before > now else Reason.STARTING
        case StageState.RUNNING if last is not None and last.state is AttemptState.STOPPING:
            return Reason.STOPPING
        case StageState.RUNNING:
            return Reason.RUNNING if last is not None and last.ranks else Reason.SILENT
        case StageState.FAILED:
            return Reason.QUARANTINED if _is_quarantined(last) else Reason.FAILED
        case StageState.SKIPPED:
            return Reason.NOT_STARTED
        case StageState.CANCELLED:
            return Reason.STOPPED
        case StageState.SUCCEEDED:
            return Reason.DONE


def _is_queued(stage: StageOut) -> bool:
    """Its newest attempt exists and waits in the cluster. (It has not ended, so neither has its stage.)"""
    last = stage.attempts[-1] if stage.attempts else None
    return last is not None and waits(last.state, last.reason)


def _is_quarantined(last: AttemptOut | None) -> bool:
    """What ended for a free cause is only given up when that would not end."""
    return last is not None and last.cause is not None and RULES[last.cause].free


def _failed_run(run: RunOut) -> str:
    failed = next((s for s in run.detail if s.state is StageState.FAILED), None)
    if failed is not None:
        return _failed(failed)
    skipped = next((s for s in run.detail if s.state is StageState.SKIPPED and s.reason), None)
    if skipped is not None:
        return tell(Reason.NOT_STARTED, stage=skipped.id, reason=skipped.reason)
    return run.reason or "It failed."


def _failed(stage: StageOut) -> str:
    last = stage.attempts[-1] if stage.attempts else None
    said = (stage.reason or (last.reason if last else None) or "").rstrip(".")
    tries = f" after {len(stage.attempts)} attempts" if len(stage.attempts) > 1 else ""
    code = f", exit code {last.exit_code}" if last and last.exit_code is not None else ""
    cause = f" ({last.cause}{code})" if last and last.cause else ""
    quarantined = _is_quarantined(last)
    told = tell(
        Reason.QUARANTINED if quarantined else Reason.FAILED,
        stage=stage.id, tries=tries, cause=cause, reason=said or "it gave no reason",
    )  # fmt: skip
    advice = ADVICE.get(Cause.POISON if quarantined else last.cause, "") if last and last.cause else ""
    return f"{told} {advice}".strip()


def _running(stage: StageOut, now: datetime, wait: WaitOut | None = None) -> str:
    attempt = stage.attempts[-1] if stage.attempts else None
    if attempt and attempt.state is AttemptState.STOPPING:
        said = f" {attempt.reason.rstrip('.')}." if attempt.reason else ""
        return tell(Reason.STOPPING, stage=stage.id, number=attempt.number) + said
    width = f", {attempt.world_size} of {stage_ranks(stage)} ranks" if attempt and attempt.world_size else ""
    again = f" (attempt {attempt.number}{width})" if attempt and attempt.number > 1 else ""
    if attempt and _is_queued(stage):
        said = " ".join(filter(None, (_numbers(wait), attempt.reason, _start_of(wait))))
        return tell(reason_of(stage, now, wait), stage=stage.id, attempt=again, reason=said)
    left = f", about {_seconds(stage.eta_seconds)} left" if stage.eta_seconds else ""
    note = f" {attempt.reason}" if attempt and attempt.reason else ""
    if attempt is None or not attempt.ranks:
        return tell(Reason.SILENT, stage=stage.id, attempt=again) + note
    ranks = [rank for rank in attempt.ranks if rank.phase != PHASE_ENDED] or attempt.ranks
    slowest = min(ranks, key=lambda r: (r.step, r.heartbeat_at))
    total = f" of {slowest.total_steps}" if slowest.total_steps else ""
    silent = max(0.0, (now - min(r.heartbeat_at for r in ranks)).total_seconds())
    progress = f"{slowest.phase}, step {slowest.step}{total}, last heartbeat {silent:.0f} s ago{left}"
    return tell(Reason.RUNNING, stage=stage.id, attempt=again, progress=progress) + note


def _pending(stage: StageOut, now: datetime) -> str:
    if stage.not_before and stage.not_before > now:
        last = stage.attempts[-1] if stage.attempts else None
        cause = f" after attempt {last.number} ended with {last.cause}" if last and last.cause else ""
        said = f": {last.reason.rstrip('.')}" if last and last.reason else ""
        wait = _seconds((stage.not_before - now).total_seconds())
        return tell(Reason.BACKING_OFF, stage=stage.id, time=wait, after=cause + said)
    return tell(Reason.STARTING, stage=stage.id)


def _waiting(stages: Sequence[StageOut]) -> list[str]:
    """The next ones only: what they wait for."""
    by_id: Mapping[str, StageOut] = {s.id: s for s in stages}
    told = []
    for stage in stages:
        lacking = [n for n in stage.needs if by_id[n].state is not StageState.SUCCEEDED]
        near = any(by_id[n].state in (StageState.RUNNING, StageState.PENDING) for n in lacking)
        if stage.state is StageState.WAITING and near:
            reason = Reason.WAITS_FOR_GATE if stage.gate else Reason.WAITS_FOR_STAGES
            told.append(tell(reason, stage=stage.id, stages=", ".join(map(repr, lacking)), gate=stage.gate))
    return told


def _numbers(wait: WaitOut | None) -> str | None:
    """Position, what is asked for, what is free, and until when; None where no queue holds it, or the reason says so itself."""
    if wait is None or wait.position is None or wait.quota is None or wait.free is None:
        return None
    if wait.code is Reason.WAITS_FOR_CPUS:
        return None
    place = (
        f"It is number {wait.position} of {max(wait.queue_length, wait.position)} in the queue of pool {wait.pool!r}"
    )
    field = places.lacking(wait.asked, wait.free) or ("gpus" if wait.asked.gpus else "cpus")
    asked, free, quota = (_amount(field, getattr(amounts, field)) for amounts in (wait.asked, wait.free, wait.quota))
    until = f"about {_seconds(wait.eta_seconds)} to go" if wait.eta_seconds is not None else "no estimate"
    return f"{place}, asks for {asked}, and {free} of {quota} of quota are free ({until}: {wait.eta_basis})."


def _start_of(wait: WaitOut | None) -> str | None:
    """When its turn comes on a machine."""
    if wait is None or wait.code is not Reason.WAITS_FOR_CPUS or wait.eta_seconds is None:
        return None
    return f"It may start in about {_seconds(wait.eta_seconds)}."


def _amount(field: str, amount: float) -> str:
    """With its unit."""
    if field == "memory":
        return f"{amount / (1 << 30):,.4g} GiB"
    return f"{amount:g} {'GPU' if field == 'gpus' else 'CPU'}{'' if amount == 1 else 's'}"


def _facts(stage: StageOut, now: datetime, wait: WaitOut | None) -> StageFact:
    return StageFact(
        stage=stage.id,
        code=reason_of(stage, now, wait),
        state=stage.state,
        reason=stage.reason,
        attempts=[
            AttemptFact(number=a.number, state=a.state, cause=a.cause, exit_code=a.exit_code) for a in stage.attempts
        ],
        not_before=stage.not_before,
        progress=stage.progress,
        eta_seconds=stage.eta_seconds,
        waits_for=wait,
    )


def _span(start: datetime | None, end: datetime | None) -> str:
    return _seconds((end - start).total_seconds()) if start and end else "no time"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
