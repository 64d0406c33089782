"""What reinforcement learning passes between its parts: segments, trajectories, groups, outcomes. Frozen, serialisable, and the only thing that is passed.

A trajectory is a list of segments, never parallel arrays: a mask, a log-probability or a version cannot be of another token than its own
(reference/rl.md 7.3).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenSource(StrEnum):
    PROMPT = "prompt"
    """Before the policy's first token: system prompt, tools, task."""
    POLICY = "policy"
    ENVIRONMENT = "environment"
    """Observations after the first turn, and the markers that frame them: read by the policy, never trained on."""


class Ending(StrEnum):
    """Why a segment of the policy's ends."""

    STOP = "stop"
    """It produced an end of turn or text, which is the segment's last token."""
    LENGTH = "length"
    """Cut at the request's limit; no end token is appended."""
    PAUSED = "paused"
    """Cut between two tokens to go on later, maybe with newer weights (partial rollout, paper 3.3.4)."""
    ABORTED = "aborted"


class Status(StrEnum):
    """Of a trajectory or an outcome. What is not `counted` never enters a mean reward (reference/rl.md 8, invariant 8)."""

    OK = "ok"
    BUDGET = "budget"
    """The task family's token budget was used up: a reward all the same, the penalty (paper 3.2.3)."""
    CONTEXT = "context"
    """The model's last position was reached before the budget."""
    TURNS = "turns"
    """The environment's limit of turns."""
    PARTIAL = "partial"
    """Paused, not ended."""
    STALE = "stale"
    """Dropped: it spans more policy versions than are allowed."""
    CANCELLED = "cancelled"
    """Not needed any more: more groups than needed had been begun."""
    ENVIRONMENT_TIMEOUT = "environment_timeout"
    ENVIRONMENT_ERROR = "environment_error"
    ENGINE_ERROR = "engine_error"
    REWARD_TIMEOUT = "reward_timeout"
    REWARD_ERROR = "reward_error"
    REWARD_FROZEN = "reward_frozen"
    """Its critic is not trusted at present."""

    @property
    def counted(self) -> bool:
        """Whether it has a reward that means something of the policy."""
        return self in (Status.OK, Status.BUDGET, Status.TURNS)


class Segment(Frozen):
    """Tokens of one source; the policy's were all drawn from one version at one temperature."""

    source: TokenSource
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] = ()
    """Of the policy's tokens, natural logarithm, under the distribution that they were drawn from (its temperature included); one a token."""
    policy_version: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(default=None, ge=0)
    ending: Ending | None = None

    @model_validator(mode="after")
    def _whole(self) -> Segment:
        drawn = self.source is TokenSource.POLICY
        if len(self.logprobs) != (len(self.tokens) if drawn else 0):
            raise ValueError(
                f"logprobs: {len(self.logprobs)} for {len(self.tokens)} tokens of source {self.source.value}"
            )
        if drawn and None in (self.policy_version, self.temperature, self.ending):
            raise ValueError("policy_version, temperature and ending: the policy's tokens have all three")
        return self


class Outcome(Frozen):
    """What a trajectory was worth. A status that is not counted has no reward: an error is never a zero."""

    status: Status
    reward: float | None = None
    components: dict[str, float] = Field(default_factory=dict)
    """By name, before weights: `correct`, `format`, `budget_penalty`, a rubric's clauses."""
    version: str = ""
    """Of the reward's code and data."""
    detail: str = ""
    """For people: what failed."""

    @model_validator(mode="after")
    def _counted(self) -> Outcome:
        if (self.reward is None) == self.status.counted:
            raise ValueError(
                f"reward: {self.reward} with status {self.status.value}; those that count have one, no others"
            )
        return self


class Task(Frozen):
    """One problem of an environment: what a group's members all begin with."""

    id: str
    """Unique in its environment and stable between runs."""
    family: str
    """Budget, temperature and difficulty are set by it: `math`, `instructions`, `tools`, …"""
    environment: str
    """`name@version` in the registry."""
    seed: int = 0
    data: dict[str, Any] = Field(default_factory=dict)
    """What the environment needs to begin; JSON."""


class Trajectory(Frozen):
    """One member of a group: a dialogue of the policy with an environment, as tokens."""

    id: str
    """`<group>/<member>`."""
    group: str
    member: int = Field(ge=0)
    task: Task
    segments: tuple[Segment, ...]
    status: Status
    outcome: Outcome | None = None
    """Once it is scored."""
    turns: int = Field(default=0, ge=0)
    """Messages of the policy that ended."""

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for segment in self.segments for token in segment.tokens)

    @property
    def policy_tokens(self) -> int:
        """What a token budget counts: resumed segments too, the environment's not (reference/rl.md 7.4)."""
        return sum(len(s.tokens) for s in self.segments if s.source is TokenSource.POLICY)

    @property
    def versions(self) -> tuple[int, ...]:
        """Of the policy, in order, each once."""
        return tuple(dict.fromkeys(s.policy_version for s in self.segments if s.policy_version is not None))


class Group(Frozen):
    """K trajectories of one task, compared with each other."""

    id: str
    task: Task
    trajectories: tuple[Trajectory, ...]

    @model_validator(mode="after")
    def _own(self) -> Group:
        if strange := [t.id for t in self.trajectories if t.group != self.id]:
            raise ValueError(f"trajectories: {strange[0]} is of another group than {self.id}")
        return self

    @property
    def counted(self) -> tuple[Trajectory, ...]:
        """Members with a reward."""
        return tuple(t for t in self.trajectories if t.outcome is not None and t.outcome.reward is not None)

    @property
    def mean_reward(self) -> float | None:
        """r̄ of paper 3.2.3, over the members that count, itself included; None without any."""
        rewards = [t.outcome.reward for t in self.counted if t.outcome is not None and t.outcome.reward is not None]
        return sum(rewards) / len(rewards) if rewards else None
