"""Which task a group plays: a pure function of the stage's seed and the group's number, so that no cursor need be kept."""

from __future__ import annotations

import random
from collections.abc import Sequence

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.rl import PlayedGym
from abruzzi.contracts.rollout import Task
from abruzzi_jobs.rl.environments import Environment, Gym, Services, Split, gym


class Curriculum:
    """Raises AbruzziError `unknown_environment`, `bad_options`, `unknown_family`, and what an environment lacks on this machine."""

    def __init__(self, chosen: Sequence[PlayedGym], *, seed: int, services: Services = Services()) -> None:
        """`services`: of its sessions."""
        self._chosen, self._seed, self._services = tuple(chosen), seed, services
        self._gyms = [_ready(each) for each in chosen]
        self._compared = _compared(self._chosen, self._gyms)
        self._by_reference = {each.reference: each for each in self._gyms}
        self._kept: dict[str, list[Task]] = {}
        """By environment; empty: any."""

    def keep(self, tasks: Sequence[Task]) -> None:
        """From now on groups play these alone. Weights hold among the environments that have any."""
        self._kept = {each.reference: [t for t in tasks if t.environment == each.reference] for each in self._gyms}

    def task(self, number: int) -> Task:
        """Of group `number`."""
        if not self._kept:
            return self._drawn(number, "train")
        draw = random.Random(f"{self._seed}/kept/{number}")
        weights = [
            each.weight * bool(self._kept[made.reference]) for each, made in zip(self._chosen, self._gyms, strict=True)
        ]
        place = draw.choices(range(len(self._gyms)), weights)[0]
        return draw.choice(self._kept[self._gyms[place].reference])

    def candidates(self, count: int) -> list[Task]:
        """Different ones that may be trained on, as many as there are up to `count`, by the weights."""
        return self._different("train", count)

    def held_out(self, count: int) -> list[Task]:
        """Different ones, as many as there are up to `count`; the same ones whenever they are asked for."""
        return self._different("held_out", count)

    def _different(self, split: Split, count: int) -> list[Task]:
        found: dict[str, Task] = {}
        for number in range(4 * count):
            task = self._drawn(number, split)
            found.setdefault(task.id, task)
            if len(found) == count:
                break
        return list(found.values())

    def _drawn(self, number: int, split: Split) -> Task:
        draw = random.Random(f"{self._seed}/{split}/{number}")
        place = draw.choices(range(len(self._gyms)), [each.weight for each in self._chosen])[0]
        made, families = self._gyms[place], self._chosen[place].families
        return made.task(self._seed, number, split=split, family=draw.choice(families or made.families))

    def is_compared(self, task: Task) -> bool:
        """Whether its reward is a critic's comparison (`reward = "rubric"`); all others are verifiable."""
        return (task.environment, task.family) in self._compared

    def max_turns(self, family: str) -> int:
        """The most that any environment with this family allows."""
        return max(
            chosen.max_turns for chosen, made in zip(self._chosen, self._gyms, strict=True) if family in made.families
        )

    def session(self, task: Task) -> Environment:
        return self._by_reference[task.environment].session(self._services)


def _compared(chosen: Sequence[PlayedGym], gyms: Sequence[Gym]) -> frozenset[tuple[str, str]]:
    found: dict[tuple[str, str], str] = {}
    for each, made in zip(chosen, gyms, strict=True):
        for family in each.families or made.families:
            if found.setdefault((made.reference, family), each.reward) != each.reward:
                raise AbruzziError(
                    "bad_options",
                    f"The family {family!r} of {each.name} is to be rewarded by the environment and by rubrics.",
                    hint="Name other `families` in one of the two.",
                )
    return frozenset(key for key, reward in found.items() if reward == "rubric")


def _ready(chosen: PlayedGym) -> Gym:
    made = gym(chosen.name, chosen.options)
    for family in chosen.families:
        if family not in made.families:
            raise AbruzziError(
                "unknown_family",
                f"The environment {chosen.name} has no family {family!r}.",
                hint=nearest(family, list(made.families)),
            )
    return made
