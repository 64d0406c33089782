"""Gates of a run: what each condition has come to, and whether somebody may let it pass. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from abruzzi.contracts.errors import Conflict
from abruzzi.contracts.gate import clauses, judge, parse_gate
from abruzzi.contracts.resources import Resource
from abruzzi.contracts.states import RunState, StageState
from abruzzi.runs.models import RunRow, StageRow


class GateOverride(Resource):
    by: str
    reason: str
    at: datetime


class GateClause(Resource):
    """One of the conditions that `and` joins."""

    stage_id: str
    """Whose number is looked at."""
    fact: str
    comparison: str
    bound: float
    value: float | None
    """None: the stage made no such number (yet)."""
    holds: bool
    short_by: float | None
    """How far the number is from the bound, where it does not hold."""


class GateOut(Resource):
    stage_id: str
    gate: str
    holds: bool
    sentence: str
    clauses: list[GateClause]
    override: GateOverride | None
    """Who let the stage start although it does not hold."""
    stops: bool
    """It was judged and does not hold, nobody has let it pass, and a maintainer could."""


def gates_of(run: RunRow, stages: Sequence[StageRow]) -> list[GateOut]:
    """Of the stages that have one, judged on what is known now."""
    facts = {stage.id: stage.facts for stage in stages}
    return [_gate_out(run, stage, stage.gate, stages, facts) for stage in stages if stage.gate]


def _gate_out(
    run: RunRow, stage: StageRow, gate: str, stages: Sequence[StageRow], facts: dict[str, dict[str, float]]
) -> GateOut:
    verdict = judge(gate, facts)
    return GateOut(
        stage_id=stage.id,
        gate=gate,
        holds=verdict.holds,
        sentence=verdict.sentence,
        clauses=[
            GateClause(
                stage_id=clause.gate.stage_id,
                fact=clause.gate.fact,
                comparison=clause.gate.comparison,
                bound=clause.gate.bound,
                value=clause.value,
                holds=clause.holds,
                short_by=clause.short_by,
            )
            for clause in clauses(gate, facts)
        ],
        override=GateOverride.model_validate(stage.gate_override) if stage.gate_override else None,
        stops=stage.gate_override is None and refusal(run, stage, gate, stages) is None,
    )


def refusal(run: RunRow, stage: StageRow, gate: str, stages: Sequence[StageRow]) -> Conflict | None:
    """Why nobody may override the stage's gate now. None: a maintainer may."""
    if stage.state not in (StageState.WAITING, StageState.SKIPPED):
        return Conflict(f"Stage {stage.id!r} is {stage.state}: its gate is behind it.", code="gate_passed")
    if judge(gate, {s.id: s.facts for s in stages}).holds:
        return Conflict(f"The gate of stage {stage.id!r} holds; there is nothing to override.", code="gate_holds")
    if run.state in (RunState.SUCCEEDED, RunState.CANCELLED, RunState.CANCELLING):
        return Conflict(f"Run {run.id} is {run.state}.", code="run_ended", hint="Retry it first, or branch.")
    judged_by = {*stage.needs, *(one.stage_id for one in parse_gate(gate) or ())}
    if unfinished := [s for s in stages if s.id in judged_by and s.state != StageState.SUCCEEDED]:
        told = ", ".join(f"{s.id!r} is {s.state}" for s in unfinished)
        return Conflict(
            f"The gate of stage {stage.id!r} has not been judged yet: stage {told}.",
            code="gate_not_judged",
            hint="Override it when it has stopped the run; retry a run whose stages have failed.",
        )
    return None
