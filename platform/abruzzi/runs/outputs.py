"""Rows as the API's resources: progress, ETA, headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from abruzzi.contracts.resources import AttemptOut, RankOut, RunOut, RunSummary, StageOut
from abruzzi.contracts.states import AttemptState, Cause, StageKind, StageState
from abruzzi.runs import shown
from abruzzi.runs.models import AttemptRow, RankRow, RunRow, StageRow


def rank_out(row: RankRow) -> RankOut:
    return RankOut(
        rank=row.rank,
        step=row.step,
        total_steps=row.total_steps,
        phase=row.phase,
        progress=row.progress,
        message=row.message,
        heartbeat_at=row.heartbeat_at,
    )


def attempt_out(row: AttemptRow, ranks: Sequence[RankRow]) -> AttemptOut:
    return AttemptOut(
        id=row.id,
        run_id=row.run_id,
        stage_id=row.stage_id,
        number=row.number,
        epoch=row.epoch,
        state=AttemptState(row.state),
        cause=Cause(row.cause) if row.cause else None,
        exit_code=row.exit_code,
        reason=row.reason,
        failed_rank=row.failed_rank,
        resumed_from=row.resumed_from,
        world_size=row.world_size,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        ranks=[rank_out(r) for r in ranks],
    )


def stage_out(
    row: StageRow, attempts: Sequence[AttemptRow], ranks: Mapping[str, Sequence[RankRow]], now: datetime
) -> StageOut:
    current = ranks.get(attempts[-1].id, ()) if attempts else ()
    return StageOut(
        id=row.id,
        run_id=row.run_id,
        kind=StageKind(row.kind),
        state=shown.stage_state(row, attempts[-1] if attempts else None),
        reason=row.reason,
        needs=list(row.needs),
        gate=row.gate,
        config=row.config,
        progress=stage_progress(row, current),
        eta_seconds=stage_eta(row, current, now),
        started_at=row.started_at,
        ended_at=row.ended_at,
        not_before=row.not_before,
        attempts=[attempt_out(a, ranks.get(a.id, ())) for a in attempts],
    )


def stage_progress(row: StageRow, ranks: Sequence[RankRow]) -> float | None:
    """The slowest rank's share of its steps; None while nothing is known."""
    if row.state == StageState.SUCCEEDED:
        return 1.0
    shares = [share for rank in ranks if (share := _share(rank)) is not None]
    return min(shares) if shares else None


def stage_eta(row: StageRow, ranks: Sequence[RankRow], now: datetime) -> float | None:
    """Seconds left at the pace of the current phase, from its first heartbeat to its last; None before there is a pace."""
    if row.state != StageState.RUNNING or not ranks:
        return None
    slowest = min(ranks, key=lambda r: _share(r) or 0.0)
    steps, seconds = slowest.step - slowest.first_step, (slowest.heartbeat_at - slowest.first_at).total_seconds()
    if slowest.total_steps is None or steps <= 0 or seconds <= 0:
        return None
    left = (slowest.total_steps - slowest.step) * seconds / steps
    return max(0.0, left - (now - slowest.heartbeat_at).total_seconds())


def run_progress(stages: Sequence[StageRow], ranks_by_stage: Mapping[str, Sequence[RankRow]]) -> float | None:
    """Mean over stages."""
    if not stages:
        return None
    return sum(stage_progress(s, ranks_by_stage.get(s.id, ())) or 0.0 for s in stages) / len(stages)


def run_eta(stages: Sequence[StageRow], ranks_by_stage: Mapping[str, Sequence[RankRow]], now: datetime) -> float | None:
    """Seconds left for the running stage that needs longest."""
    known = [eta for s in stages if (eta := stage_eta(s, ranks_by_stage.get(s.id, ()), now)) is not None]
    return max(known, default=None)


def run_summary(
    run: RunRow,
    stages: Sequence[StageRow],
    newest: Mapping[str, AttemptRow],
    ranks_by_stage: Mapping[str, Sequence[RankRow]],
    now: datetime,
) -> RunSummary:
    """`newest`: the newest attempt of each stage that has one."""
    return RunSummary(**_summary_fields(run, stages, newest, ranks_by_stage, now))  # type: ignore[arg-type]


def run_out(
    run: RunRow,
    stages: Sequence[StageRow],
    attempts: Mapping[str, Sequence[AttemptRow]],
    ranks: Mapping[str, Sequence[RankRow]],
    now: datetime,
) -> RunOut:
    """`attempts` by stage id, `ranks` by attempt id."""
    newest = {s.id: attempts[s.id][-1] for s in stages if attempts.get(s.id)}
    current = {stage_id: ranks.get(attempt.id, ()) for stage_id, attempt in newest.items()}
    return RunOut(
        **_summary_fields(run, stages, newest, current, now),  # type: ignore[arg-type]
        version=run.version,
        recipe=run.recipe,
        recipe_toml=run.recipe_toml,
        detail=[stage_out(s, attempts.get(s.id, ()), ranks, now) for s in stages],
        parent_artifact_id=run.parent_artifact_id,
    )


def _summary_fields(
    run: RunRow,
    stages: Sequence[StageRow],
    newest: Mapping[str, AttemptRow],
    ranks_by_stage: Mapping[str, Sequence[RankRow]],
    now: datetime,
) -> dict[str, object]:
    states = [shown.stage_state(s, newest.get(s.id)) for s in stages]
    return {
        "id": run.id,
        "project_id": run.project_id,
        "name": run.name,
        "recipe_name": run.recipe_name,
        "state": shown.run_state(run, stages, states),
        "reason": run.reason,
        "parent_run_id": run.parent_run_id,
        "stages": [{"id": s.id, "kind": s.kind, "state": told} for s, told in zip(stages, states, strict=True)],
        "progress": run_progress(stages, ranks_by_stage),
        "eta_seconds": run_eta(stages, ranks_by_stage, now),
        "headline": run.headline,
        "created_by": run.created_by,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


def _share(rank: RankRow) -> float | None:
    if rank.progress is not None:
        return rank.progress
    return min(1.0, rank.step / rank.total_steps) if rank.total_steps else None
