"""The controller's policy where trainer and replicas are actors. The trainer may be lost at any call (TrainerLost); replicas replace each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.rollout import Group
from abruzzi_jobs.rl.actors.fleet import Fleet
from abruzzi_jobs.rl.actors.place import Actor, ActorLost
from abruzzi_jobs.rl.controller.parts import TrainerLost
from abruzzi_jobs.rl.controller.policy import refuse_stale
from abruzzi_jobs.train.feed import Rows


class ActorsPolicy:
    """What is computed again after a loss of the trainer brings no weights: replicas have newer ones, and are left alone until those are reached."""

    def __init__(
        self, trainer: Actor, fleet: Fleet, committed: Callable[[str, Manifest], None], *, is_beside: bool = False
    ) -> None:
        """`committed` is told of each artifact that the trainer has committed. `is_beside`: replicas play while it trains."""
        self.trainer, self._fleet, self._committed = trainer, fleet, committed
        self._is_beside = is_beside
        self._version = 0
        """Of the weights that are trained."""

    async def to_training(self) -> None:
        if self._version >= self._fleet.version and not self._is_beside:
            await self._fleet.sleep()

    async def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        return await self._call("anchor", groups, version, lessons)

    async def step(self, version: int, number: int) -> Mapping[str, float]:
        return await self._call("step", version, number)

    async def register(self, version: int) -> Mapping[str, Any]:
        facts = await self._call("register", version, copy=self._is_beside)
        self._fleet.has_registered(version)
        return facts

    async def to_inference(self) -> None:
        """Replicas wake when they are asked to play, with the weights that the update brings."""

    async def update(self, version: int) -> Mapping[str, float]:
        self._version = version
        return await self._fleet.update(version)

    async def verify(self, version: int) -> Mapping[str, float]:
        """Raises AbruzziError where a replica would not play with the weights that were trained."""
        if version >= self._fleet.version:
            refuse_stale(await self._fleet.versions(), version)
        return {
            "memory/trainer_bytes": float(await self._call("peak")),
            "memory/replica_bytes": float(await self._fleet.peak_bytes()),
            "rl/replicas_replaced": float(self._fleet.replaced),
        }

    async def save(self, iterations: int, tokens: int, line: int, *, now: bool) -> Sequence[Mapping[str, float]]:
        found, committed = await self._call("save", iterations, tokens, line, now=now)
        self._tell(committed)
        return found

    async def close(self) -> None:
        """A save in flight is brought to its end."""
        self._tell(await self._call("close"))

    def begin(self, trainer: Actor, iterations: int) -> None:
        """This one trains from now on."""
        self.trainer, self._version = trainer, iterations

    async def _call(self, method: str, *arguments: Any, **named: Any) -> Any:
        trainer = self.trainer
        try:
            return await trainer.call(method, *arguments, **named)
        except ActorLost as lost:
            gone = TrainerLost(str(lost))
            self._fleet.lose_trainer(trainer, gone)
            raise gone from lost

    def _tell(self, committed: Sequence[tuple[str, Manifest]]) -> None:
        for key, manifest in committed:
            self._committed(key, manifest)
