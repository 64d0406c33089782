"""The controller's parts, scripted: trajectories out of a counter that no two attempts share, weights that are a hash of what they were trained on.

A `World` outlives attempts, as the object store does; whoever counts down to zero in it is killed on the spot.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from abruzzi.contracts.objective import TokenBudget
from abruzzi.contracts.rl import HeldOutTasksConfig, PlayedGym, RlConfig
from abruzzi.contracts.rollout import Ending, Group, Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi.store import DirectoryStore
from abruzzi_jobs.rl.controller.controller import Controller
from abruzzi_jobs.rl.controller.cycle import Position
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.controller.ledger import MemoryLedger, TimeLedger
from abruzzi_jobs.rl.rollout.collect import Interrupted
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.train.feed import Rows

TASK = Task(id="t", family="addition", environment="arithmetic@1")


def config(**changes: Any) -> RlConfig:
    given: dict[str, Any] = {
        "environments": (PlayedGym(name="arithmetic"),), "iterations": 4, "groups_per_iteration": 2, "group_size": 2,
        "minibatches": 2, "budget": TokenBudget(tokens=8), "held_out": HeldOutTasksConfig(every_iterations=0),
    }  # fmt: skip
    return RlConfig(**given | changes)


class Killed(BaseException):
    pass


@dataclass
class World:
    root: Path
    deaths: list[int] = field(default_factory=list)
    """Calls until the next death."""
    played: dict[int, tuple[PlayedGroup, ...]] = field(default_factory=dict)
    """By version: what the rollout store has."""
    checkpoints: dict[int, str] = field(default_factory=dict)
    """Weights by iterations done."""
    trained: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    """(version, weights before, trajectories) of every optimizer step that was ever made."""
    draws: int = 0
    tells: list[str] = field(default_factory=list)
    reports: dict[int, dict[str, float]] = field(default_factory=dict)
    stop_at: str = ""
    """Told to stop when the loop tells of this position, `2/score`."""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.store = DirectoryStore(self.root)
        self.journal = Journal(self.store, "p/")

    def pulse(self, seconds: float = 0.0) -> None:
        """Every effect passes here, before and after what it does."""
        self.seconds += seconds
        if self.deaths:
            self.deaths[0] -= 1
            if self.deaths[0] < 0:
                self.deaths.pop(0)
                raise Killed


class ScriptedPlayer:
    def __init__(self, world: World, rl: RlConfig) -> None:
        self.world, self.rl = world, rl
        self.is_interrupted = False

    async def collect(self, version: int, on_end: Callable[[Played], None], *, served: int | None = None) -> Any:
        @dataclass
        class Found:
            groups: tuple[PlayedGroup, ...]
            metrics: Mapping[str, float] = field(default_factory=lambda: {"rollout/groups": 2.0})
            seconds: Mapping[str, float] = field(default_factory=lambda: {"environment": 0.5, "other": 0.25})

        self.world.pulse(2.0)
        if version not in self.world.played:
            groups = []
            for number in range(self.rl.groups_per_iteration):
                name = f"g{version * self.rl.groups_per_iteration + number:07d}"
                members = tuple(self._member(name, member, version) for member in range(self.rl.group_size))
                for member in members:
                    self.world.pulse()
                    on_end(member)
                groups.append(PlayedGroup(members=members))
            if self.is_interrupted:
                raise Interrupted
            self.world.played[version] = tuple(groups)
        self.world.pulse()
        return Found(self.world.played[version])

    def interrupt(self) -> None:
        self.is_interrupted = True

    async def renew(self, version: int, update: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
        return await update()

    async def answer(self, version: int, count: int) -> Sequence[Played]:
        return [self._member(f"h{version}-{number}", 0, version) for number in range(count)]

    def _member(self, group: str, member: int, version: int) -> Played:
        self.world.draws += 1  # never the same twice: environments may be of that kind
        drawn = Segment(
            source=TokenSource.POLICY, tokens=(self.world.draws,), logprobs=(-0.5,), policy_version=version,
            temperature=1.0, ending=Ending.STOP,
        )  # fmt: skip
        trajectory = Trajectory(
            id=f"{group}/{member}", group=group, member=member, task=TASK, segments=(drawn,), status=Status.OK, turns=1
        )
        return Played(trajectory=trajectory)


class ScriptedScorer:
    def __init__(self, world: World) -> None:
        self.world = world

    async def score(self, played: Played) -> Outcome:
        self.world.pulse(0.25)
        return Outcome(status=Status.OK, reward=float(played.trajectory.tokens[0] % 3))


class ScriptedPolicy:
    """`weights` are a hash; the engine's copy is another attribute."""

    def __init__(self, world: World, rl: RlConfig, weights: str) -> None:
        self.world, self.rl, self.weights, self.engine = world, rl, weights, weights
        self.groups: Sequence[Group] = ()

    async def to_training(self) -> None:
        self.world.pulse(1.0)

    async def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        self.groups = groups
        rewards = [group.mean_reward or 0.0 for group in groups]
        return {"rl/reward": sum(rewards) / len(rewards)}

    async def step(self, version: int, number: int) -> Mapping[str, float]:
        self.world.pulse(3.0)
        mine = [t for group in self.groups[number :: self.rl.minibatches] for t in group.trajectories]
        self.world.trained.append((version, self.weights, tuple(t.id for t in mine)))
        told = self.weights + "".join(t.model_dump_json() for t in mine)
        self.weights = hashlib.sha256(told.encode()).hexdigest()
        self.world.pulse()
        return {"train/grad_norm": 1.0, "rl/learned_tokens": float(len(mine))}

    async def register(self, version: int) -> Mapping[str, Any]:
        return {"checksum": self.weights}

    async def to_inference(self) -> None:
        self.world.pulse(1.0)

    async def update(self, version: int) -> Mapping[str, float]:
        self.engine = self.weights
        return {"weights/bytes": 1.0}

    async def verify(self, version: int) -> Mapping[str, float]:
        assert self.engine == self.weights
        return {}


class ScriptedHost:
    def __init__(self, world: World, policy: ScriptedPolicy, every: int) -> None:
        self.world, self.policy, self.every = world, policy, every
        self.stopping = False

    def is_stopping(self) -> bool:
        return self.stopping

    def tell(self, position: Position, message: str, share: float) -> None:
        place = f"{position.iteration}/{position.phase.value}"
        self.world.tells.append(place)
        self.stopping = self.stopping or place == self.world.stop_at

    def report(self, metrics: Mapping[str, float], iterations: int) -> None:
        self.world.reports.setdefault(iterations, {}).update(metrics)

    def end(self, metrics: Mapping[str, float], iterations: int) -> None:
        self.report(metrics, iterations)

    async def save(self, iterations: int, *, now: bool) -> None:
        self.world.pulse(0.125)
        if now or iterations % self.every == 0:
            self.world.checkpoints[iterations] = self.policy.weights
        self.world.pulse()


async def attempt(world: World, rl: RlConfig, *, save_every: int = 3) -> str:
    """From the newest checkpoint to the end; the final weights. Raises Killed, Preempted."""
    done = max(world.checkpoints, default=0)
    policy = ScriptedPolicy(world, rl, world.checkpoints.get(done, "w0"))
    controller = Controller(
        rl, journal=world.journal, policy=policy, player=ScriptedPlayer(world, rl), scorer=ScriptedScorer(world),
        host=ScriptedHost(world, policy, save_every), time=TimeLedger(clock=lambda: world.seconds),
        memory=MemoryLedger(torch.device("cpu")),
    )  # fmt: skip
    await controller.run(done)
    return policy.weights
