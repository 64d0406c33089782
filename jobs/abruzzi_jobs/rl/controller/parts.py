"""What the controller drives, as it sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from abruzzi.contracts.rollout import Group, Outcome, Task
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.train.feed import Rows


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
    async def collect(self, version: int, on_end: Callable[[Played], None]) -> Collected:
        """Plays until groups enough are whole; what was played of this version before is taken, not played again. Raises Interrupted (rl/rollout/collect.py)."""
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

    def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        """`lessons`: of the critic, for each minibatch."""
        ...

    def step(self, version: int, number: int) -> Mapping[str, float]:
        """Minibatch `number` of the anchored groups."""
        ...

    def register(self, version: int) -> Mapping[str, Any]:
        """The new weights are ready to be taken; facts for the journal, a checksum of all weights among them."""
        ...

    async def to_inference(self) -> None: ...

    async def update(self, version: int) -> Mapping[str, float]: ...

    async def verify(self, version: int) -> Mapping[str, float]: ...
