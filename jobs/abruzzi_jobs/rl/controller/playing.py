"""Rollouts as the recipe wants them: environments, budgets, temperatures, held-out tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from abruzzi.contracts.rl import RlConfig
from abruzzi.contracts.rollout import Task
from abruzzi_jobs.rl.controller.tasks import Curriculum
from abruzzi_jobs.rl.environments import Environment
from abruzzi_jobs.rl.objective.temperature import temperature_at
from abruzzi_jobs.rl.rollout.collect import Collected, RolloutEngine, Rollouts
from abruzzi_jobs.rl.rollout.concurrency import ConcurrencyPolicy
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.rl.rollout.player import Limits, Terms
from abruzzi_jobs.rl.rollout.scheduler import SchedulerPolicy
from abruzzi_jobs.rl.rollout.store import RolloutStore


class StagePlayer:
    def __init__(
        self,
        config: RlConfig,
        curriculum: Curriculum,
        *,
        engine: RolloutEngine,
        dialogue: Dialogue,
        positions: int,
        seed: int,
        store: RolloutStore,
        session: Callable[[Task], Environment] | None = None,
    ) -> None:
        """`positions`: of the model. `session`: another way to open one than in this process."""
        self._config, self._curriculum, self._positions = config, curriculum, positions
        self._on_end: Callable[[Played], None] = lambda played: None
        self._rollouts = Rollouts(
            SchedulerPolicy(
                groups=config.groups_per_iteration,
                members=config.group_size,
                ahead=config.over_provision - 1,
                max_span=config.max_span,
                staleness=config.staleness,
                concurrency=ConcurrencyPolicy(most=config.concurrency),
            ),
            engine=engine,
            dialogue=dialogue,
            make=session or curriculum.session,
            task_of=curriculum.task,
            limits=self._limits,
            terms=self._terms,
            seed=seed,
            store=store,
            on_end=lambda played: self._on_end(played),
        )

    async def collect(self, version: int, on_end: Callable[[Played], None], *, served: int | None = None) -> Collected:
        self._on_end = on_end
        return await self._rollouts.collect(version, served=served)

    async def renew(self, version: int, update: Callable[[], Awaitable[Mapping[str, float]]]) -> Mapping[str, float]:
        return await self._rollouts.renew(version, update)

    def interrupt(self) -> None:
        self._rollouts.interrupt()

    async def answer(self, version: int, count: int) -> Sequence[Played]:
        self._on_end = lambda played: None
        tasks = self._curriculum.held_out(count)
        at_once = self._config.concurrency
        return await self._rollouts.play_all(tasks, Terms(temperature=0.0), name=f"h{version:06d}", at_once=at_once)

    async def sample(self, tasks: Sequence[Task], attempts: int, *, name: str) -> Sequence[Sequence[Played]]:
        """As in the first iteration, but each to its end."""
        found: dict[int, list[Played]] = {}
        by_family: dict[str, list[int]] = {}
        for place, task in enumerate(tasks):
            by_family.setdefault(task.family, []).append(place)
        for family, places in by_family.items():
            terms = Terms(temperature=temperature_at(self._config.temperature_of(family), 0))
            drawn = [tasks[place] for place in places for _ in range(attempts)]
            played = await self._rollouts.play_all(
                drawn, terms, name=f"{name}-{family}", at_once=self._config.concurrency
            )
            found |= {place: played[n * attempts : (n + 1) * attempts] for n, place in enumerate(places)}
        return [found[place] for place in range(len(tasks))]

    async def close(self) -> None:
        await self._rollouts.close()

    def _limits(self, family: str) -> Limits:
        return Limits(
            budget_tokens=self._config.budget_of(family).tokens,
            positions=self._positions,
            turns=self._curriculum.max_turns(family),
        )

    def _terms(self, family: str, version: int) -> Terms:
        temperature = temperature_at(self._config.temperature_of(family), version)
        return Terms(temperature=temperature, cap_tokens=self._config.iteration_tokens)
