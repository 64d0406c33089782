"""`[stage.rl]`: reinforcement learning of a checkpoint in environments (paper 3.2, 3.3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, StringConstraints, model_validator

from abruzzi.contracts.critic import CriticConfig
from abruzzi.contracts.objective import DifficultyBand, ObjectiveConfig, TemperatureSchedule, TokenBudget
from abruzzi.contracts.quantity import Count, Seconds
from abruzzi.contracts.training import Strict

GymName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*(@[0-9]+)?$")]


class GymConfig(Strict):
    """An environment with its tasks and its reward."""

    name: GymName
    """In the registry: `arithmetic`, or `arithmetic@1` for one version of it; one's own by path, `package.module:Class`."""
    families: tuple[str, ...] = ()
    """Of its tasks; absent: all."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of this environment, such as { digits = 2 }."""


class PlayedGym(GymConfig):
    weight: StrictFloat = Field(default=1.0, gt=0)
    """Share of the groups, beside the other environments' weights."""
    max_turns: StrictInt = Field(default=8, ge=1)
    """Messages of the policy in one trajectory."""
    reward: Literal["environment", "rubric"] = "environment"
    """`rubric`: the critic compares the answers of a group; what the environment itself says becomes the component `environment`."""


class TaughtGym(GymConfig):
    """Its tasks with right answers, for `sft`: the form in which an environment wants them."""

    conversations: Count = Field(gt=0)
    form: Literal["answers", "preferences"] = "answers"
    """`preferences`: lessons of a critic, each task's right answer beside one that its own reward finds wrong, in both orders."""


class RewardConfig(Strict):
    workers: StrictInt = Field(default=2, ge=1)
    """Processes that score."""
    deadline: Seconds = Field(default=30.0, gt=0)
    """Of one trajectory; a process that takes longer is killed, and the trajectory has no reward."""


class HeldOutTasksConfig(Strict):
    """Tasks that are never trained on, answered without sampling (temperature 0)."""

    every_iterations: StrictInt = Field(default=10, ge=0)
    """And before the first and after the last iteration; 0: never."""
    tasks: StrictInt = Field(default=64, ge=1)
    """Over all environments, by their weights."""


class RlConfig(Strict):
    environments: tuple[PlayedGym, ...] = Field(min_length=1)
    iterations: StrictInt = Field(default=50, ge=1)
    """Each plays, scores and trains; a checkpoint's step is an iteration."""
    groups_per_iteration: StrictInt = Field(default=16, ge=1)
    group_size: StrictInt = Field(default=8, ge=2)
    """Trajectories of one task, compared with each other; the paper's K."""
    over_provision: StrictFloat = Field(default=1.0, ge=1, le=4)
    """Groups that are begun over those that an iteration needs: what has not ended by then goes on in the next one (partial rollout, paper 3.3.4)."""
    max_span: StrictInt = Field(default=3, ge=1)
    """Versions of the policy that a trajectory may be made of; what would need more is dropped with its group."""
    staleness: StrictInt = Field(default=0, ge=0, le=8)
    """Versions that the weights which are trained may be ahead of those that began a trajectory (η). 0: rollouts and training take turns, as in the
    paper; 1: the next iteration is played while one is trained, and what is under way gets the new weights between two tokens."""
    iteration_tokens: Count | None = Field(default=None, gt=0)
    """Of the policy, that one trajectory may add in one iteration before it is paused; absent: its whole budget."""
    concurrency: StrictInt = Field(default=64, ge=1)
    """Trajectories that are played at a time."""
    enforce_calls: StrictBool = False
    """Calls of tools are drawn so that they follow the template and the tool's JSON Schema (the paper's enforcer); off, the policy has to learn that."""
    minibatches: StrictInt = Field(default=1, ge=1)
    """Optimizer steps of an iteration, each on its share of the groups."""
    micro_tokens: Count = Field(default=8192, gt=0)
    """Of one forward pass of the trainer."""
    warmup_iterations: StrictInt = Field(default=0, ge=0)
    """Until the optimizer's peak_lr is reached."""
    ptx_sequences: StrictInt = Field(default=0, ge=0)
    """Sequences of the input `dataset` in each optimizer step, with weight objective.ptx_weight (paper 3.2.3)."""
    ptx_length: Count = Field(default=256, gt=1)
    """Tokens of such a sequence."""
    difficulty: DifficultyBand | None = None
    """Of the tasks that are played, measured before the first iteration; absent: all are."""
    budget: TokenBudget
    """Of families that have none of their own in `budgets`."""
    budgets: dict[str, TokenBudget] = Field(default_factory=dict)
    """By family of tasks (paper 3.2.3: "depends on the task type")."""
    temperature: TemperatureSchedule = TemperatureSchedule()
    temperatures: dict[str, TemperatureSchedule] = Field(default_factory=dict)
    """By family."""
    objective: ObjectiveConfig = ObjectiveConfig()
    reward: RewardConfig = RewardConfig()
    critic: CriticConfig | None = None
    """Of environments with reward = "rubric"."""
    held_out: HeldOutTasksConfig = HeldOutTasksConfig()

    @model_validator(mode="after")
    def _sizes_agree(self) -> RlConfig:
        if self.minibatches > self.groups_per_iteration:
            raise ValueError(
                f"minibatches: {self.minibatches} steps cannot be made of {self.groups_per_iteration} groups; set groups_per_iteration higher"
            )
        if self.staleness >= self.max_span:
            raise ValueError(
                f"staleness: {self.staleness} versions between rollout and training need max_span of {self.staleness + 1}, not {self.max_span}"
            )
        if self.staleness and self.critic is not None:
            raise ValueError(
                "staleness: a critic that is the policy asks the engine between two rollouts, and beside training there is no such time; leave it at 0"
            )
        if (self.ptx_sequences > 0) != (self.objective.ptx_weight > 0):
            raise ValueError(
                f"ptx_sequences: {self.ptx_sequences} with objective.ptx_weight {self.objective.ptx_weight}; set both, or neither"
            )
        names = [(gym.name, gym.families, gym.options) for gym in self.environments]
        if any(each in names[:number] for number, each in enumerate(names)):
            raise ValueError("environments: one stands there twice; give it the weight of both instead")
        return self

    @model_validator(mode="after")
    def _critic_has_work(self) -> RlConfig:
        rewards = {gym.reward for gym in self.environments}
        if "rubric" in rewards and self.difficulty is not None:
            raise ValueError(
                'difficulty: a critic compares the answers of a group, so that no single try is right or wrong; leave it out beside reward = "rubric"'
            )
        if ("rubric" in rewards) != (self.critic is not None):
            raise ValueError(
                'critic: environments with reward = "rubric" need the table [stage.rl.critic], and only they do'
            )
        asks_for_truth = self.critic is not None and (self.critic.gate.enabled or self.critic.refinement.weight > 0)
        if asks_for_truth and "environment" not in rewards:
            raise ValueError(
                'critic: without an environment of verifiable tasks (reward = "environment") nobody knows whether the critic is right; '
                "add one, or set gate.enabled = false and refinement.weight = 0.0"
            )
        return self

    def budget_of(self, family: str) -> TokenBudget:
        return self.budgets.get(family, self.budget)

    def temperature_of(self, family: str) -> TemperatureSchedule:
        return self.temperatures.get(family, self.temperature)
