"""The shipped environments, and those that a project's stages name beside them, with what its newest stages tell of each.

shipped.json is what `abruzzi environments list --json` prints where nothing is installed beside: the registry is in the jobs, which this tier does not
import (a test holds the two together).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from importlib.resources import files
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.environment import EnvironmentKind, EnvironmentList, EnvironmentOut, EnvironmentPlay, metric_name
from abruzzi.contracts.states import StageKind
from abruzzi.metrics import service as metrics

MOST_STAGES = 40
"""That are told of, the newest."""
_STAGES = text("""
    SELECT s.run_id, s.id, s.state, s.config->'rl'->'environments' AS environments, r.name, r.created_at
    FROM stages s JOIN runs r ON r.id = s.run_id
    WHERE s.project_id = :project AND s.kind = :kind
    ORDER BY r.created_at DESC, s.run_id, s.position LIMIT :most
""")
_KEYS = ("rl/environment/%", "time/environment", "rollout/held_sessions")


async def listed(session: AsyncSession, project_id: str) -> EnvironmentList:
    """In order of their names; several stages' own versions under one name apart."""
    found = {kind.environment: (kind, True) for kind in shipped()}
    named = {reference.partition("@")[0]: reference for reference in found}  # the newest version comes last
    plays: dict[str, list[EnvironmentPlay]] = defaultdict(list)
    values = {"project": project_id, "kind": StageKind.RL, "most": MOST_STAGES}
    stages = (await session.execute(_STAGES, values)).all()
    told = await metrics.newest(session, sorted({stage.run_id for stage in stages}), like=_KEYS)
    for stage in stages:
        mine = told.get((stage.run_id, stage.id), {})
        tables = stage.environments or ()
        times = Counter(metric_name(table["name"]) for table in tables)
        for table in tables:
            reference = named.get(table["name"], table["name"])
            found.setdefault(reference, (_own(reference), False))
            plays[reference].append(_play(stage, table, mine, is_alone=times[metric_name(table["name"])] == 1))
    return EnvironmentList(
        items=tuple(
            EnvironmentOut(**dict(kind), is_shipped=is_shipped, plays=tuple(plays[reference]))
            for reference, (kind, is_shipped) in sorted(found.items())
        )
    )


@cache
def shipped() -> tuple[EnvironmentKind, ...]:
    content = files("abruzzi.environments").joinpath("shipped.json").read_bytes()
    return TypeAdapter(tuple[EnvironmentKind, ...]).validate_json(content)


def _own(reference: str) -> EnvironmentKind:
    return EnvironmentKind(environment=reference, summary="", families=(), roles=(), replays=True, options=())


def _play(
    stage: Any, played: dict[str, Any], told: dict[str, tuple[int, float | None]], *, is_alone: bool
) -> EnvironmentPlay:
    """`played`: as the stage's table has it, which may be of an older platform's form. `is_alone`: no other table of the stage is told of under the same name."""

    def last(key: str) -> float | None:
        return told[key][1] if key in told else None

    def mine(what: str) -> float | None:
        return last(f"{name}/{what}") if is_alone else None

    name = "rl/environment/" + metric_name(played["name"])
    return EnvironmentPlay(
        run_id=stage.run_id,
        run_name=stage.name,
        stage_id=stage.id,
        state=stage.state,
        families=played.get("families", ()),
        options=played.get("options", {}),
        reward=played.get("reward", "environment"),
        weight=played.get("weight", 1.0),
        iterations=told[f"{name}/trajectories"][0] if f"{name}/trajectories" in told else None,
        mean_reward=mine("reward"),
        trajectories=mine("trajectories"),
        steps=mine("steps"),
        seconds=last("time/environment"),
        open_sessions=last("rollout/held_sessions"),
        at=stage.created_at,
    )
