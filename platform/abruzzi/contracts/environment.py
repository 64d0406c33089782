"""Environments as the API tells of them: what there is to train in, and who has."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime

from abruzzi.contracts.states import StageState
from abruzzi.contracts.training import Strict


class EnvironmentKind(Strict):
    """One version of an environment, as the registry of the jobs knows it."""

    environment: str
    """`name@version`; by its path, package.module:Class, where it is somebody's own."""
    summary: str
    families: tuple[str, ...]
    """Of tasks."""
    roles: tuple[str, ...]
    """That its sessions ask where a stage's [stage.roles] has them."""
    replays: bool
    """Whether the same actions in a new session give the same observations."""
    options: tuple[str, ...]


class EnvironmentPlay(Strict):
    """A stage that has played it, or is to."""

    run_id: str
    run_name: str
    stage_id: str
    state: StageState
    families: tuple[str, ...]
    """Those that the recipe chose; empty: all."""
    options: dict[str, Any]
    reward: str
    """`environment`: its own; `rubric`: a critic's comparison."""
    weight: float
    iterations: int | None
    """That have told of it."""
    mean_reward: float | None
    """Of the newest iteration, whatever rewards are there. None, as are trajectories and steps, where the stage plays the environment twice: it is told of both together."""
    trajectories: float | None
    """Of the newest iteration, that count."""
    steps: float | None
    """Turns of the policy in these, which are the environment's steps."""
    seconds: float | None
    """That the newest iteration waited for environments while the engine had nothing to compute."""
    open_sessions: float | None
    """Held at the iteration's end, of all environments of the stage: of trajectories that go on in the next one."""
    at: AwareDatetime
    """When the run was submitted."""


class EnvironmentOut(EnvironmentKind):
    is_shipped: bool
    plays: tuple[EnvironmentPlay, ...]
    """Newest first, of the project's newest stages that reinforce."""


class EnvironmentList(Strict):
    items: tuple[EnvironmentOut, ...]


def metric_name(environment: str) -> str:
    """Of an environment by its reference, for keys of metrics: `rl/environment/<this>/reward`. Options and versions of one name are told together."""
    name = environment.partition("@")[0].lower()
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)
