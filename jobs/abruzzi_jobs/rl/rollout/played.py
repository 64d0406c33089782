"""What rollouts hand on: a trajectory with what its reward needs beside the tokens."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from abruzzi.contracts.rollout import Frozen, Group, Trajectory


class Played(Frozen):
    trajectory: Trajectory
    messages: tuple[dict[str, Any], ...] = ()
    """The dialogue as messages, the environment's last ones too, which the policy never read."""
    state: dict[str, Any] = Field(default_factory=dict)
    """The environment's, at the end; of what was cut short by an error there is none."""


class PlayedGroup(Frozen):
    """Whole: all members have ended."""

    members: tuple[Played, ...]

    @property
    def id(self) -> str:
        return self.members[0].trajectory.group

    def group(self) -> Group:
        """As the learner takes it, with outcomes as far as they are known."""
        trajectories = tuple(played.trajectory for played in self.members)
        return Group(id=self.id, task=trajectories[0].task, trajectories=trajectories)
