"""A run with its stages, attempts and ranks, as the engine's store reads and writes it: in two statements, without what the engine never asks for
(recipes, configurations, specs: most of the bytes)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from abruzzi.contracts.errors import NotFound
from abruzzi.engine.view import RunView
from abruzzi.runs.models import AttemptRow, RankRow, RunRow, StageRow
from abruzzi.runs.views import run_view

_LEFT_OUT = [
    defer(column, raiseload=True)
    for column in (RunRow.recipe, RunRow.recipe_toml, StageRow.config, StageRow.bindings, AttemptRow.spec)
]
_WHOLE = (
    select(RunRow, StageRow, AttemptRow)
    .join(StageRow, StageRow.run_id == RunRow.id)
    .outerjoin(AttemptRow, (AttemptRow.run_id == StageRow.run_id) & (AttemptRow.stage_id == StageRow.id))
    .order_by(StageRow.position, AttemptRow.epoch)
    .options(*_LEFT_OUT)
)


@dataclass
class RunRows:
    run: RunRow
    stages: dict[str, StageRow]
    """In the order of the recipe."""
    attempts: dict[str, AttemptRow]
    """In the order of their epochs within a stage."""
    ranks: Sequence[RankRow]

    @classmethod
    async def read(cls, session: AsyncSession, run_id: str, *, lock: bool = False) -> Self:
        """`lock`: the run's row, which whoever changes a stage or the state of an attempt holds, and raises its version. So what a reader
        who had to wait for the lock sees of the others is either new, or he sees another version than he knew. Raises NotFound."""
        query = _WHOLE.where(RunRow.id == run_id)
        found = (await session.execute(query.with_for_update(of=RunRow) if lock else query)).all()
        if not found:
            raise NotFound("run", run_id, hint="`abruzzi runs list` shows them.")
        attempts = {attempt.id: attempt for _, _, attempt in found if attempt is not None}
        ranks: Sequence[RankRow] = ()
        if attempts:
            ranks = (await session.execute(select(RankRow).where(RankRow.attempt_id.in_(attempts)))).scalars().all()
        return cls(found[0][0], {stage.id: stage for _, stage, _ in found}, attempts, ranks)

    def stage(self, stage_id: str) -> StageRow:
        """Raises NotFound."""
        if (found := self.stages.get(stage_id)) is None:
            raise NotFound("stage", stage_id)
        return found

    def attempt(self, attempt_id: str) -> AttemptRow:
        """Raises NotFound, also for an attempt of another run."""
        if (found := self.attempts.get(attempt_id)) is None:
            raise NotFound("attempt", attempt_id)
        return found

    def view(self) -> RunView:
        by_stage: dict[str, list[AttemptRow]] = {}
        for attempt in self.attempts.values():
            by_stage.setdefault(attempt.stage_id, []).append(attempt)
        return run_view(self.run, list(self.stages.values()), by_stage, self.ranks)
