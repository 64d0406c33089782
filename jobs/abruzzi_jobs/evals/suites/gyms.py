"""Held-out tasks of the environments that a policy is trained in, as suites: what a checkpoint can do before and after, on problems that no training saw."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field, StrictInt, ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, ItemStatus, SuiteSettings, Verdict
from abruzzi.contracts.rollout import Task
from abruzzi.contracts.training import Strict
from abruzzi_jobs.chat.request import Message
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.answers import as_user
from abruzzi_jobs.rl.environments.single_turn import QuestionGym


class GymOptions(Strict):
    gym: str
    """`name@version` of an environment of one question and one answer, such as arithmetic or mathematics."""
    items: StrictInt = Field(default=100, gt=0)
    seed: StrictInt = 0


class GymSuite(QuestionSuite):
    name = "gym"
    summary = "Held-out tasks of an environment of one question and one answer (options.gym), scored by its own reward."
    licence = "as the environment's"
    source = "abruzzi environments list"
    defaults = SuiteSettings(max_tokens=512, options={"gym": "arithmetic"})

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options`, and what an environment raises that is not ready here."""
        super().__init__(settings)
        try:
            self._options = GymOptions.model_validate(dict(settings.options))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, ("options", *first["loc"])))
            raise AbruzziError(
                "bad_options",
                f"suite {self.name}: {where}: {first['msg']}.",
                hint="Its options are gym, items and seed.",
            ) from error
        found = gym(self._options.gym)
        if not isinstance(found, QuestionGym):
            raise AbruzziError(
                "bad_options",
                f"The environment {self._options.gym!r} is played in several turns or with tools.",
                hint="Suites of gyms have one question and one answer: arithmetic, mathematics, reasoning, …",
            )
        self._gym = found

    def items(self) -> Iterator[Item]:
        """In the order in which the environment draws them; the same problem is asked once."""
        for task in self._gym.tasks(self._options.seed, self._options.items, split="held_out"):
            yield Item(
                id=task.id,
                prompt=task.data["prompt"],
                gold=task.data.get("answer"),
                subtask=task.family,
                meta=task.model_dump(mode="json"),
            )

    def messages(self, item: Item) -> list[Message]:
        return list(as_user(item.prompt, system=item.meta["data"].get("system", "")))

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        outcome = self._gym.judge(Task.model_validate(item.meta), transcript.answer)
        if outcome.reward is None:
            return Verdict(score=None, status=ItemStatus.INFRASTRUCTURE, reason=outcome.detail)
        return Verdict(score=min(1.0, max(0.0, outcome.reward)), reason=outcome.detail)

    def gold_answer(self, item: Item) -> str | None:
        return None if item.gold is None else str(item.gold)

    def perturbed_answer(self, item: Item) -> str | None:
        return f"Answer: {item.gold}1"


class Demo(GymSuite):
    name = "demo"
    summary = "60 sums and comparisons of one-digit numbers that the arithmetic environment keeps from training: a minute for the smallest models."
    licence = "Apache-2.0"
    source = "ours: held-out tasks of the environment arithmetic"
    defaults = SuiteSettings(max_tokens=32, options={"gym": "arithmetic@1", "items": 60})
