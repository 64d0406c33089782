"""Why a run is where it is: one sentence with numbers, and what happens next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.resources import AttemptOut, RunOut, StageOut, WhyOut
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.runs import query

ADVICE: dict[Cause, str] = {
    Cause.USER_ERROR: "It is not retried: correct the recipe or the code, then retry from this stage.",
    Cause.BAD_DATA: "It is not retried: correct the input, then retry from this stage.",
    Cause.INFRASTRUCTURE: "Such faults are retried free of charge.",
    Cause.NODE: "It is retried on another node, free of charge.",
    Cause.PREEMPTION: "It goes on from its checkpoint, free of charge.",
    Cause.HANG: "The stacks of the stalled rank are kept beside its log.",
    Cause.OUT_OF_MEMORY: "It is not retried: lower batch.micro_sequences or the model, or give it more memory, then retry.",
    Cause.DIVERGENCE: "It is retried from an earlier checkpoint; a lower peak_lr or qk_clip_threshold helps.",
    Cause.POISON: "The same failure came again and again: look at the log before you retry.",
    Cause.CANCELLED: "Its checkpoints stay and can be branched.",
    Cause.UNKNOWN: "The log's last lines say more.",
}


async def why(session: AsyncSession, run_id: str, *, now: datetime) -> WhyOut:
    run = await query.get(session, run_id, now=now)
    facts = [_facts(stage) for stage in run.detail]
    return WhyOut(state=run.state, sentence=sentence(run, now), facts=facts)


def sentence(run: RunOut, now: datetime) -> str:
    """Pure; golden-tested."""
    failed = [s for s in run.detail if s.state is StageState.FAILED]
    skipped = [s for s in run.detail if s.state is StageState.SKIPPED and s.reason]
    done = sum(s.state is StageState.SUCCEEDED for s in run.detail)
    if run.state is RunState.SUCCEEDED:
        return f"All {len(run.detail)} stages succeeded in {_span(run.started_at, run.ended_at)}."
    if run.state is RunState.FAILED:
        return _failed(failed, skipped, run.reason)
    if run.state is RunState.CANCELLED:
        return f"Somebody cancelled it with {done} of {len(run.detail)} stages done. {ADVICE[Cause.CANCELLED]}"
    if run.state is RunState.CANCELLING:
        return "It is being cancelled: running stages save a checkpoint and stop."
    if run.state is RunState.INTERRUPTED:
        return f"The platform was stopped with {done} of {len(run.detail)} stages done; it goes on when the platform is started again."
    active = [s for s in run.detail if s.state is StageState.RUNNING]
    pending = [s for s in run.detail if s.state is StageState.PENDING]
    waiting = [s for s in run.detail if s.state is StageState.WAITING]
    if active or pending:
        told = [_running(s, now) for s in active] + [_pending(s, now) for s in pending]
        return " ".join(told + _waiting(waiting, {s.id: s for s in run.detail}))
    return "It was accepted and waits for a controller, which looks at least every few seconds. If this stays: is the controller running?"


def _failed(failed: Sequence[StageOut], skipped: Sequence[StageOut], reason: str | None) -> str:
    if failed:
        stage = failed[0]
        last = stage.attempts[-1] if stage.attempts else None
        tries = f" after {len(stage.attempts)} attempts" if len(stage.attempts) > 1 else ""
        said = (stage.reason or (last.reason if last else None) or "").rstrip(".")
        advice = ADVICE.get(last.cause, "") if last and last.cause else ""
        code = f", exit code {last.exit_code}" if last and last.exit_code is not None else ""
        cause = f" ({last.cause}{code})" if last and last.cause else ""
        return f"Stage {stage.id!r} failed{tries}{cause}: {said or 'it gave no reason'}. {advice}".strip()
    if skipped:
        return f"Stage {skipped[0].id!r} was not started: {skipped[0].reason}"
    return reason or "It failed."


def _running(stage: StageOut, now: datetime) -> str:
    attempt: AttemptOut | None = stage.attempts[-1] if stage.attempts else None
    if attempt and attempt.state is AttemptState.STOPPING:
        said = f" {attempt.reason.rstrip('.')}." if attempt.reason else ""
        return f"Stage {stage.id!r} is being stopped (attempt {attempt.number}): it saves a checkpoint first.{said}"
    parts = [f"Stage {stage.id!r} is running"]
    if attempt and attempt.number > 1:
        parts[0] += f" (attempt {attempt.number})"
    if attempt and attempt.ranks:
        slowest = min(attempt.ranks, key=lambda r: (r.step, r.heartbeat_at))
        total = f" of {slowest.total_steps}" if slowest.total_steps else ""
        silent = max(0.0, (now - min(r.heartbeat_at for r in attempt.ranks)).total_seconds())
        parts.append(f"{slowest.phase}, step {slowest.step}{total}, last heartbeat {silent:.0f} s ago")
    else:
        parts.append("no rank has reported yet")
    if stage.eta_seconds:
        parts.append(f"about {_seconds(stage.eta_seconds)} left")
    return ": ".join([parts[0], ", ".join(parts[1:])]) + "."


def _pending(stage: StageOut, now: datetime) -> str:
    if stage.not_before and stage.not_before > now:
        last = stage.attempts[-1] if stage.attempts else None
        cause = f" after attempt {last.number} ended with {last.cause}" if last and last.cause else ""
        said = f": {last.reason.rstrip('.')}" if last and last.reason else ""
        return f"Stage {stage.id!r} waits {_seconds((stage.not_before - now).total_seconds())} before it tries again{cause}{said}."
    return f"Stage {stage.id!r} is next: its inputs are there and it is being started."


def _waiting(stages: Sequence[StageOut], by_id: Mapping[str, StageOut]) -> list[str]:
    """The next ones only: what they wait for."""
    told = []
    for stage in stages:
        lacking = [n for n in stage.needs if by_id[n].state is not StageState.SUCCEEDED]
        if any(by_id[n].state in (StageState.RUNNING, StageState.PENDING) for n in lacking):
            gate = f" and for its gate {stage.gate!r}" if stage.gate else ""
            told.append(f"Stage {stage.id!r} waits for {', '.join(map(repr, lacking))}{gate}.")
    return told


def _facts(stage: StageOut) -> dict[str, Any]:
    return {
        "stage": stage.id,
        "state": stage.state,
        "reason": stage.reason,
        "attempts": [
            {"number": a.number, "state": a.state, "cause": a.cause, "exit_code": a.exit_code} for a in stage.attempts
        ],
        "not_before": stage.not_before.isoformat() if stage.not_before else None,
        "progress": stage.progress,
        "eta_seconds": stage.eta_seconds,
    }


def _span(start: datetime | None, end: datetime | None) -> str:
    return _seconds((end - start).total_seconds()) if start and end else "no time"


def _seconds(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
