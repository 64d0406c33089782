"""What the controller drives, as it sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Group, Outcome, Task
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.train.feed import Rows


class TrainerLost(AbruzziError):
    """Its process has ended. What it had not saved can be made again."""

    def __init__(self, how: str) -> None:
        super().__init__("trainer_lost", f"The trainer's process is gone: {how}.", status=503)


class Collected(Protocol):
    @property
    def groups(self) -> tuple[PlayedGroup, ...]: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def seconds(self) -> Mapping[str, float]:
        """Of the call: `engine`, while it had a request; `environment`, while these were awaited and it had none; `other`."""
        ...


class Player(Protocol):
    async def collect(self, version: int, on_end: Callable[[Played], None], *, served: int | None = None) -> Collected:
        """`served`: of the engine, where it is an earlier version. Plays until groups enough are whole; what was played of this version before is taken, not played again. Raises Interrupted (rl/rollout/collect.py)."""
        ...

    async def renew(self, version: int, update: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
        """`update` gives the engine this version; what is being played stands meanwhile."""
        ...

    def interrupt(self) -> None:
        """`collect` ends soon; what is on its way is kept for the next attempt."""
        ...

    async def answer(self, version: int, count: int) -> Sequence[Played]:
        """Held-out tasks, one trajectory each, at temperature 0."""
        ...


class Sampler(Protocol):
    """What tries tasks before there are any iterations."""

    async def sample(self, tasks: Sequence[Task], attempts: int, *, name: str) -> Sequence[Sequence[Played]]:
        """So many trajectories of each, not kept."""
        ...


class Scorer(Protocol):
    async def score(self, played: Played) -> Outcome: ...


class Critic(Protocol):
    """Compares answers that nothing verifies (rl/critic)."""

    async def judge(
        self, iteration: int, groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome]
    ) -> Mapping[str, Outcome]: ...

    def metrics(self, iteration: int) -> Mapping[str, float]: ...

    def lessons(
        self, iteration: int, groups: Sequence[PlayedGroup], outcomes: Mapping[str, Outcome]
    ) -> Sequence[Rows | None]: ...


class Policy(Protocol):
    """The weights on both sides: the trainer's, and the engine's copy."""

    async def to_training(self) -> None: ...

    async def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        """`lessons`: of the critic, for each minibatch."""
        ...

    async def step(self, version: int, number: int) -> Mapping[str, float]:
        """Minibatch `number` of the anchored groups."""
        ...

    async def register(self, version: int) -> Mapping[str, Any]:
        """The new weights are ready to be taken; facts for the journal, a checksum of all weights among them."""
        ...

    async def to_inference(self) -> None: ...

    async def update(self, version: int) -> Mapping[str, float]: ...

    async def verify(self, version: int) -> Mapping[str, float]: ...
