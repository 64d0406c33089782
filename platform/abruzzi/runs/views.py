"""Rows as the engine sees them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.view import AttemptView, Desired, Elastic, RankBeat, RunView, StageView
from abruzzi.kit.clock import to_unix
from abruzzi.runs.models import AttemptRow, RankRow, RunRow, StageRow


def run_view(
    run: RunRow, stages: Sequence[StageRow], attempts: Mapping[str, Sequence[AttemptRow]], ranks: Sequence[RankRow]
) -> RunView:
    by_attempt: dict[str, list[RankRow]] = defaultdict(list)
    for rank in ranks:
        by_attempt[rank.attempt_id].append(rank)
    return RunView(
        id=run.id,
        state=RunState(run.state),
        desired=Desired(run.desired),
        version=run.version,
        stages=tuple(_stage_view(s, attempts.get(s.id, ()), by_attempt) for s in stages),
        last_epoch=run.last_epoch,
    )


def overridden(override: Mapping[str, str] | None) -> str | None:
    return f"The gate was overridden by {override['by']}: {override['reason']}" if override else None


def _stage_view(stage: StageRow, attempts: Sequence[AttemptRow], ranks: Mapping[str, Sequence[RankRow]]) -> StageView:
    return StageView(
        id=stage.id,
        state=StageState(stage.state),
        needs=tuple(stage.needs),
        gate=stage.gate,
        gate_override=overridden(stage.gate_override),
        max_attempts=stage.max_attempts,
        world_size=stage.world_size,
        elastic=_elastic(stage.elastic) if stage.elastic else None,
        not_before=to_unix(stage.not_before),
        attempts=tuple(_attempt_view(a, ranks.get(a.id, ())) for a in attempts[stage.attempts_before :]),
        attempts_before=stage.attempts_before,
        facts=stage.facts,
        phase_seconds=phase_quantiles([r for a in attempts for r in ranks.get(a.id, ())]),
        hang_seconds=stage.hang_seconds,
    )


def _elastic(said: Mapping[str, Any]) -> Elastic:
    return Elastic(tuple(said["widths"]), narrow_after=said["narrow_after"], widen_after=said["widen_after"])


def _attempt_view(attempt: AttemptRow, ranks: Sequence[RankRow]) -> AttemptView:
    created = to_unix(attempt.created_at)
    assert created is not None
    return AttemptView(
        id=attempt.id,
        number=attempt.number,
        epoch=attempt.epoch,
        state=AttemptState(attempt.state),
        created_at=created,
        cause=Cause(attempt.cause) if attempt.cause else None,
        exit_code=attempt.exit_code,
        reason=attempt.reason,
        started_at=to_unix(attempt.started_at),
        ended_at=to_unix(attempt.ended_at),
        stop_requested_at=to_unix(attempt.stop_requested_at),
        stop_cause=Cause(attempt.stop_cause) if attempt.stop_cause else None,
        stacks_requested_at=to_unix(attempt.stacks_requested_at),
        node=attempt.node,
        workload_removed=attempt.workload_removed,
        beats={r.rank: RankBeat(r.step, r.phase, r.heartbeat_at.timestamp()) for r in ranks},
        resume_step=attempt.resume_step,
        world_size=attempt.world_size,
        resize_to=attempt.resize_to,
        held_at=to_unix(attempt.held_at),
        waits_for=Reason(attempt.waits_for) if attempt.waits_for else None,
    )


def phase_quantiles(ranks: Sequence[RankRow]) -> dict[str, float]:
    """p99 of the seconds between two steps, by phase, over all ranks."""
    samples: dict[str, list[float]] = defaultdict(list)
    for rank in ranks:
        for phase, seconds in rank.phase_seconds.items():
            samples[phase] += seconds
    return {
        phase: sorted(found)[min(len(found) - 1, int(0.99 * len(found)))] for phase, found in samples.items() if found
    }
