"""States as people are told them.

For the engine a stage runs from the moment that its attempt exists. Where that waits in the cluster nothing of it runs yet, and nobody should read
that it does: it is pending, and so is a run of which nothing else runs. The list filters and sorts by the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, exists, select

from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.runs.models import AttemptRow, RunRow, StageRow

NOT_RUNNING = (AttemptState.CREATED, AttemptState.STARTING)


def waits(state: AttemptState, reason: str | None) -> bool:
    """Of an attempt. Without a reason it is only being started, which takes a moment."""
    return state in NOT_RUNNING and bool(reason)


def stage_state(stage: StageRow, last: AttemptRow | None) -> StageState:
    """`last`: its newest attempt."""
    state = StageState(stage.state)
    queued = state is StageState.RUNNING and last is not None and waits(AttemptState(last.state), last.reason)
    return StageState.PENDING if queued else state


def run_state(run: RunRow, stages: Sequence[StageRow], shown: Sequence[StageState]) -> RunState:
    """`shown`: `stage_state` of each."""
    state = RunState(run.state)
    is_queued = any(row.state != told for row, told in zip(stages, shown, strict=True))
    return RunState.PENDING if state is RunState.RUNNING and is_queued and StageState.RUNNING not in shown else state


def run_state_column() -> ColumnElement[Any]:
    """`run_state` of the query's run. (An attempt that has not ended is its stage's newest.)"""
    waiting = AttemptRow.state.in_(NOT_RUNNING) & (AttemptRow.reason != "")
    queued = exists(select(AttemptRow.id).where(AttemptRow.run_id == RunRow.id, waiting))
    of_stage = (AttemptRow.run_id == StageRow.run_id) & (AttemptRow.stage_id == StageRow.id)
    works = (StageRow.state == StageState.RUNNING) & ~exists(select(AttemptRow.id).where(of_stage, waiting))
    at_work = exists(select(StageRow.id).where(StageRow.run_id == RunRow.id, works))
    is_pending = (RunRow.state == RunState.RUNNING) & queued & ~at_work
    return case((is_pending, RunState.PENDING.value), else_=RunRow.__table__.c.state)
