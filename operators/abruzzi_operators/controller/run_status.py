"""The status of a `Run` object from the run that it stands for: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import RunOut, StageOut
from abruzzi.contracts.states import RunState, StageState
from abruzzi.runs.why import reason_of, sentence
from abruzzi_operators.kubernetes.resources import Object

MESSAGE_CHARACTERS = 32_768
"""Of a condition, by the conventions of Kubernetes."""
REFUSED = "Refused"
_MOVES = ("Pending", "Running", "Cancelling")
"""Phases in which a message holds numbers that grow by the second."""


def mirror(run: RunOut, *, generation: int, before: Mapping[str, Any], url: str | None, now: datetime) -> Object:
    """`before`: the status that is there. A key with None is to be removed."""
    told = sentence(run, now)
    reason = _reason(run, now)
    ended, won = run.state.is_terminal, run.state is RunState.SUCCEEDED
    running = run.state in (RunState.RUNNING, RunState.CANCELLING)
    conditions = [
        ("Accepted", True, "Accepted", f"Run {run.id} of project {run.project_id!r}."),
        ("Running", running, reason, told),
        ("Succeeded", won, reason, told),
        ("Failed", ended and not won, reason, told),
    ]
    at = [stage.id for stage in run.detail if stage.state in (StageState.RUNNING, StageState.PENDING)]
    return {
        "observedGeneration": generation,
        "runId": run.id,
        "project": run.project_id,
        "url": f"{url}/runs/{run.id}" if url else None,
        "phase": run.state.capitalize(),
        "stage": ", ".join(at) or _last(run.detail),
        "progress": _percent(run.progress),
        "message": told[:MESSAGE_CHARACTERS],
        "startedAt": _moment(run.started_at),
        "endedAt": _moment(run.ended_at),
        "stages": [_stage(stage, now) for stage in run.detail],
        "conditions": _conditions(conditions, generation, before, now),
    }


def refusal(error: AbruzziError, *, generation: int, before: Mapping[str, Any], now: datetime) -> Object:
    """Why there is no run, in the words that the API would use."""
    reason, told = camel(error.code), str(error)
    conditions = [(kind, False, reason, told) for kind in ("Accepted", "Running", "Succeeded")]
    return {
        "observedGeneration": generation,
        **dict.fromkeys(("runId", "project", "url", "stage", "progress", "startedAt", "endedAt", "stages")),
        "phase": REFUSED,
        "message": told[:MESSAGE_CHARACTERS],
        "conditions": _conditions([*conditions, ("Failed", True, reason, told)], generation, before, now),
    }


def without_gaps(status: Mapping[str, Any]) -> Object:
    """As the apiserver keeps it."""
    return {key: value for key, value in status.items() if value is not None}


def material(status: Mapping[str, Any]) -> Object:
    """Without what changes all the time while a run goes on: worth a write at once only with something else."""
    kept = {key: value for key, value in without_gaps(status).items() if key not in ("progress", "message")}
    kept["stages"] = [{k: v for k, v in stage.items() if k != "progress"} for stage in kept.get("stages", ())]
    moves = status.get("phase") in _MOVES
    kept["conditions"] = [
        {k: v for k, v in one.items() if k != "message" or not moves} for one in kept.get("conditions", ())
    ]
    return kept


def camel(code: str) -> str:
    """A public code as Kubernetes writes reasons: `waits_for_pods` is WaitsForPods."""
    return "".join(word.capitalize() for word in code.split("_"))


def _reason(run: RunOut, now: datetime) -> str:
    """Of the run's end, or of the first stage that moves."""
    if run.state in (RunState.PENDING, RunState.RUNNING):
        moves = [s for s in run.detail if s.state in (StageState.RUNNING, StageState.PENDING)]
        return camel(reason_of(moves[0], now)) if moves else "Accepted"
    if run.state is RunState.FAILED:
        failed = next((s for s in run.detail if s.state is StageState.FAILED), None)
        return camel(reason_of(failed, now)) if failed else "Failed"
    return run.state.capitalize()


def _last(stages: Sequence[StageOut]) -> str | None:
    """Where it ended: the stage that failed or was stopped, else the last that succeeded."""
    for states in ((StageState.FAILED, StageState.CANCELLED), (StageState.SUCCEEDED,)):
        found = [stage.id for stage in stages if stage.state in states]
        if found:
            return found[-1]
    return None


def _stage(stage: StageOut, now: datetime) -> Object:
    return without_gaps(
        {
            "name": stage.id,
            "kind": str(stage.kind),
            "state": str(stage.state),
            "reason": camel(reason_of(stage, now)),
            "attempts": len(stage.attempts),
            "progress": _percent(stage.progress),
        }
    )


def _conditions(
    wanted: Sequence[tuple[str, bool, str, str]], generation: int, before: Mapping[str, Any], now: datetime
) -> list[Object]:
    """A condition keeps the moment of its last change of status."""
    old = {condition["type"]: condition for condition in before.get("conditions") or ()}
    made = []
    for kind, holds, reason, message in wanted:
        status = "True" if holds else "False"
        same = kind in old and old[kind]["status"] == status
        made.append(
            {
                "type": kind,
                "status": status,
                "observedGeneration": generation,
                "lastTransitionTime": old[kind]["lastTransitionTime"] if same else _moment(now),
                "reason": reason,
                "message": message[:MESSAGE_CHARACTERS],
            }
        )
    return made


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{int(share * 100)}%"


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
