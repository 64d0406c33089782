"""The colocated loop (paper 3.3.1): effects of the phases that cycle.py orders, with everything that cannot be computed again in the journal.

What an iteration trains on is what the rollout store and the journal hold, and the weights depend on the checkpoint and that alone; so an attempt that
follows one which was killed at any point loses no trajectory, trains on none twice, and comes to the same bits.
"""

from __future__ import annotations

import asyncio
import logging
import time as clocks
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

from abruzzi.client.stage import Preempted
from abruzzi.contracts.rl import RlConfig
from abruzzi.contracts.rollout import Group, Outcome
from abruzzi_jobs.rl.controller.ahead import Ahead
from abruzzi_jobs.rl.controller.cycle import Phase, Position, next_position
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.controller.ledger import Cause, MemoryLedger, TimeLedger
from abruzzi_jobs.rl.controller.parts import Collected, Critic, Player, Policy, Scorer, TrainerLost
from abruzzi_jobs.rl.controller.screening import Screening
from abruzzi_jobs.rl.rollout.collect import Interrupted
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.train.feed import Rows

logger = logging.getLogger(__name__)

STOP_LOOK_SECONDS = 0.2
"""How often a rollout looks whether it was told to stop."""

_CAUSES = {
    Phase.ROLLOUT: Cause.INFER,
    Phase.COLLECT: Cause.SAVE,
    Phase.SCORE: Cause.SCORE,
    Phase.STEP: Cause.TRAIN,
}
"""All others are of switching."""
_COUNTS = (
    "train/clipped_heads", "rl/learned_tokens", "rl/learned_sequences", "rl/rejected", "rl/zero_variance_groups",
)  # fmt: skip
"""Metrics of steps that are added up over an iteration."""
_INTERRUPTIBLE = (Phase.ROLLOUT, Phase.SCORE, Phase.TO_TRAINING)
"""Before these, whoever is told to stop stops; once weights change, the iteration is brought to its end."""


class Host(Protocol):
    """The stage around the loop."""

    def is_stopping(self) -> bool: ...

    def tell(self, position: Position, message: str, share: float) -> None:
        """`share` of the iteration that is done."""
        ...

    def report(self, metrics: Mapping[str, float], iterations: int) -> None:
        """Of the policy after so many of them."""
        ...

    def end(self, metrics: Mapping[str, float], iterations: int) -> None:
        """One has ended; these are its numbers."""
        ...

    async def save(self, iterations: int, *, now: bool) -> None:
        """A checkpoint of the weights after so many iterations: `now`, or where one is due."""
        ...


class Controller:
    def __init__(
        self,
        config: RlConfig,
        *,
        journal: Journal,
        policy: Policy,
        player: Player,
        scorer: Scorer,
        critic: Critic | None = None,
        host: Host,
        time: TimeLedger,
        memory: MemoryLedger,
        screening: Screening | None = None,
    ) -> None:
        self._config, self._journal, self._policy = config, journal, policy
        self._player, self._scorer, self._critic, self._host = player, scorer, critic, host
        self._time, self._memory, self._screening = time, memory, screening
        self._effects: Mapping[Phase, Callable[[Position], Awaitable[Mapping[str, Any]]]] = {
            Phase.ROLLOUT: self._rollout,
            Phase.COLLECT: self._collect,
            Phase.SCORE: self._score,
            Phase.TO_TRAINING: self._to_training,
            Phase.STEP: self._step,
            Phase.REGISTER: self._register,
            Phase.TO_INFERENCE: self._to_inference,
            Phase.UPDATE: self._update,
            Phase.VERIFY: self._verify,
        }
        self._metrics: dict[str, float] = {}
        self._steps: list[Mapping[str, float]] = []
        self._played: tuple[PlayedGroup, ...] = ()
        self._groups: tuple[Group, ...] = ()
        self._lessons: Sequence[Rows | None] = ()
        self._at = Position(0)
        self._ended: Counter[int] = Counter()
        """Trajectories, by the iteration that they were played for."""
        self._beside = 0.0
        self._ahead = Ahead(
            self._play, staleness=config.staleness, last=config.iterations, is_barred=self._looks_at_held_out
        )

    @property
    def iteration(self) -> int:
        """That is being made, from 0."""
        return self._at.iteration

    async def run(self, iteration: int) -> None:
        """From the weights after `iteration` iterations to the last one. Raises Preempted when it was told to stop, and TrainerLost when nothing is under way
        any more: it may be called again then."""
        self._ahead.begin(iteration, iteration)
        try:
            await self._run(iteration)
        except TrainerLost:
            await self._ahead.drain()
            raise

    async def _run(self, iteration: int) -> None:
        total = self._config.iterations
        if self._screening is not None and iteration < total:
            await self._screen(self._screening, iteration)
        while iteration < total:
            await self._iterate(iteration)
            iteration += 1
            if iteration == total:
                await self._look_at_held_out(iteration)
            self._finish(iteration)
            stopping = self._host.is_stopping() and iteration < total
            if stopping:
                await self._stand()
            with self._time.of(Cause.SAVE):
                await self._host.save(iteration, now=stopping or iteration == total)
            if stopping:
                raise Preempted(f"Told to stop: saved after {iteration} of {total} iterations.")

    async def _iterate(self, iteration: int) -> None:
        position = Position(iteration)
        while position.iteration == iteration:
            self._at, phase = position, position.phase
            if phase in _INTERRUPTIBLE and self._host.is_stopping():
                await self._stop(iteration)
            self._host.tell(position, self._words(), position.number / len(Phase))
            with self._time.of(_CAUSES.get(phase, Cause.SWITCH)):
                facts = await self._effects[phase](position)
            self._memory.mark(phase.value)
            with self._time.of(Cause.SAVE):
                self._note(position, facts)
            position = next_position(position, minibatches=self._config.minibatches)

    # Effects

    async def _rollout(self, position: Position) -> Mapping[str, Any]:
        iteration = position.iteration
        if self._looks_at_held_out(iteration):
            await self._look_at_held_out(iteration)
        watch = asyncio.create_task(self._interrupt_when_told())
        try:
            collected = await self._ahead.take(iteration)
        except Interrupted:
            await self._stop(iteration)
        finally:
            watch.cancel()
        if not self._config.staleness:  # otherwise most of them were not waited for
            self._time.move(collected.seconds.get("environment", 0.0), Cause.INFER, Cause.ENVIRONMENT)
            self._time.move(collected.seconds.get("other", 0.0), Cause.INFER, Cause.IDLE)
        self._played = collected.groups
        self._metrics |= collected.metrics
        return {"trajectories": self._ended.pop(iteration, 0), "groups": len(collected.groups)}

    async def _play(self, iteration: int, served: int) -> Collected:
        wanted = self._config.groups_per_iteration * self._config.group_size

        def on_end(_played: Played) -> None:
            self._ended[iteration] += 1
            if self._at == Position(iteration):
                done = self._ended[iteration]
                words = f"{done} of {wanted} trajectories, {self._words()}".removesuffix(", ")
                self._host.tell(self._at, words, min(1.0, done / wanted) / len(Phase))

        return await self._player.collect(iteration, on_end, served=served)

    def _looks_at_held_out(self, iteration: int) -> bool:
        """Before it is played."""
        every = self._config.held_out.every_iterations
        return bool(every) and iteration % every == 0 and self._journal.outcomes(iteration) is None

    async def _interrupt_when_told(self) -> None:
        while not self._host.is_stopping():
            await asyncio.sleep(STOP_LOOK_SECONDS)
        self._player.interrupt()

    async def _collect(self, position: Position) -> Mapping[str, Any]:
        return {"groups": [group.id for group in self._played]}

    async def _score(self, position: Position) -> Mapping[str, Any]:
        outcomes = self._journal.outcomes(position.iteration)
        if outcomes is None:
            played = [one for group in self._played for one in group.members]
            found = await asyncio.gather(*(self._scorer.score(one) for one in played))
            scored: Mapping[str, Outcome]
            scored = {one.trajectory.id: outcome for one, outcome in zip(played, found, strict=True)}
            if self._critic is not None:
                try:
                    scored = await self._critic.judge(position.iteration, self._played, scored)
                except Preempted:
                    await self._stop(position.iteration)
            with self._time.of(Cause.SAVE):
                outcomes = self._journal.score(position.iteration, scored)
        self._groups = tuple(_scored(group.group(), outcomes) for group in self._played)
        if self._critic is not None:
            self._metrics |= self._critic.metrics(position.iteration)
            self._lessons = self._critic.lessons(position.iteration, self._played, outcomes)
        return {"statuses": Counter(outcome.status.value for outcome in outcomes.values())}

    async def _to_training(self, position: Position) -> Mapping[str, Any]:
        await self._policy.to_training()
        return {}

    async def _step(self, position: Position) -> Mapping[str, Any]:
        if position.step == 0:
            self._steps = []
            self._metrics |= await self._policy.anchor(self._groups, version=position.iteration, lessons=self._lessons)
        began = clocks.perf_counter()
        self._steps.append(await self._policy.step(position.iteration, position.step))
        self._beside += self._ahead.seconds_between(began, clocks.perf_counter())
        return {}

    async def _register(self, position: Position) -> Mapping[str, Any]:
        return await self._policy.register(position.iteration + 1)

    async def _to_inference(self, position: Position) -> Mapping[str, Any]:
        await self._policy.to_inference()
        return {}

    async def _update(self, position: Position) -> Mapping[str, Any]:
        version = position.iteration + 1
        self._metrics |= await self._player.renew(version, lambda: self._policy.update(version))
        self._ahead.renewed(version)
        return {}

    async def _verify(self, position: Position) -> Mapping[str, Any]:
        self._metrics |= await self._policy.verify(position.iteration + 1)
        return {}

    # Beside the phases

    async def _screen(self, screening: Screening, iteration: int) -> None:
        def tell(done: int, of: int) -> None:
            self._host.tell(Position(iteration), f"difficulty of tasks: {done} of {of}", 0.0)

        with self._time.of(Cause.EVALUATE):
            found = await screening.settle(self._host.is_stopping, tell)
        if found is None:
            await self._stop(iteration)
        if iteration == 0:
            self._host.report(found, iteration)

    async def _look_at_held_out(self, iteration: int) -> None:
        """Before the first iteration, now and then, and after the last."""
        if not self._config.held_out.every_iterations:
            return
        with self._time.of(Cause.EVALUATE):
            played = await self._player.answer(iteration, self._config.held_out.tasks)
            outcomes = await asyncio.gather(*(self._scorer.score(one) for one in played))
        rewards = [outcome.reward for outcome in outcomes if outcome.reward is not None]
        if rewards:
            found = {"rl/held_out_reward": sum(rewards) / len(rewards)}
            self._host.report(found, iteration)
            logger.info("held-out tasks: mean reward %.3f of %d", found["rl/held_out_reward"], len(rewards))

    def _note(self, position: Position, facts: Mapping[str, Any]) -> None:
        known = self._journal.note(position, facts)
        checksum, before = facts.get("checksum"), known.get("checksum")
        if checksum != before:
            logger.warning(
                "iteration %d was trained again to other bits (checksum %s, before %s): kernels or threads differ from the attempt before",
                position.iteration + 1, checksum, before,
            )  # fmt: skip

    def _finish(self, iterations: int) -> None:
        seconds, wall = self._time.take()
        found = {**self._metrics, **_merged(self._steps)}
        found |= {f"time/{cause.value}": value for cause, value in seconds.items()}
        found["time/iteration"] = wall
        if self._config.staleness:
            found["rollout/seconds_while_training"], self._beside = self._beside, 0.0
        found |= {f"memory/{phase}_bytes": float(size) for phase, size in self._memory.take().items()}
        self._metrics = {key: found[key] for key in ("rl/reward",) if key in found}
        self._host.end(found, iterations)

    def _words(self) -> str:
        reward = self._metrics.get("rl/reward")
        return "" if reward is None else f"reward {reward:.3f}"

    async def _stand(self) -> None:
        """What is played ahead is kept as far as it has come."""
        self._player.interrupt()
        await self._ahead.drain()

    async def _stop(self, iteration: int) -> NoReturn:
        await self._stand()
        with self._time.of(Cause.SAVE):
            await self._host.save(iteration, now=True)
        raise Preempted(
            f"Told to stop in iteration {iteration + 1} of {self._config.iterations}: what was played is kept, also what had not ended."
        )


def _scored(group: Group, outcomes: Mapping[str, Outcome]) -> Group:
    members = (each.model_copy(update={"outcome": outcomes[each.id]}) for each in group.trajectories)
    return group.model_copy(update={"trajectories": tuple(members)})


def _merged(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of an iteration's optimizer steps: of counts the sum, of maxima the largest, else the mean."""
    found: dict[str, float] = {}
    for key in dict.fromkeys(key for step in steps for key in step):
        values = [step[key] for step in steps if key in step]
        if key in _COUNTS:
            found[key] = sum(values)
        else:
            found[key] = max(values) if "max" in key else sum(values) / len(values)
    return found
