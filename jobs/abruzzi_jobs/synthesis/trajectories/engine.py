"""Plays many conversations at a time in one event loop, and judges each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.agent import Task
from abruzzi.contracts.synthesis import SynthesisConfig
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest
from abruzzi_jobs.synthesis.judge import checks, judged, questions, read_judgement
from abruzzi_jobs.synthesis.trajectories.episode import Episode
from abruzzi_jobs.synthesis.trajectories.grounds import Ground
from abruzzi_jobs.synthesis.trajectories.plan import Planned
from abruzzi_jobs.synthesis.trajectories.play import Bounds, User, play
from abruzzi_jobs.synthesis.trajectories.programs import Programs
from abruzzi_jobs.synthesis.trajectories.rows import KEPT, fate_of, row_of
from abruzzi_jobs.synthesis.trajectories.servers import ServerPools
from abruzzi_jobs.synthesis.trajectories.speakers import Agent, agent_of
from abruzzi_jobs.synthesis.user import UserSimulator

Row = dict[str, Any]
Take = Callable[[Row], Awaitable[None]]


@dataclass(kw_only=True)
class Cast:
    """Who plays what. Without a user's backend the user says what its task says, and nothing else."""

    agent: Callable[[Planned], Agent]
    user: Callable[[Task], User]
    user_backend: ChatBackend | None = None
    judge_backend: ChatBackend | None = None


@dataclass(kw_only=True)
class Machine:
    """Where calls of other than synthetic tools are executed."""

    servers: ServerPools | None = None
    programs: Programs | None = None


def cast_of(backends: dict[str, ChatBackend], config: SynthesisConfig) -> Cast:
    """Of a stage's roles; `agent` must be one of them."""
    agent = agent_of(backends["agent"], config.tool_calls)
    user = backends.get("user")
    return Cast(
        agent=lambda _: agent,
        user=lambda task: UserSimulator(task, scripted=user is None),
        user_backend=user,
        judge_backend=backends.get("judge"),
    )


class Engine:
    def __init__(self, cast: Cast, machine: Machine, config: SynthesisConfig) -> None:
        self._cast, self._machine, self._config = cast, machine, config
        self._bounds = Bounds(max_turns=config.max_turns, max_tokens=config.max_tokens, max_calls=config.max_calls)
        self.turns = 0

    async def run(self, work: Iterable[Planned], take: Take) -> None:
        """`take` gets each row when it is done, in whatever order. What is raised (an endpoint that is down, a stop) ends those under way."""
        waiting = iter(work)

        async def player() -> None:
            for planned in waiting:  # an iterator that all players share
                await take(await self.row(planned))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.concurrency):
                    group.create_task(player())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one says it: the others are of the same kind, or its echo

    async def row(self, planned: Planned) -> Row:
        """One conversation, judged."""
        episode = await self.episode(planned)
        verdicts = checks(planned.task, episode)
        judgement = judged(planned.task, verdicts)
        keeps = fate_of(episode, judgement, min_score=self._config.min_score) == KEPT
        if keeps and self._cast.judge_backend is not None:  # a judge only takes away
            asked = questions(planned.task, episode)
            answers = [await self._judge(question, episode) for question in asked]
            verdicts = [*verdicts, *read_judgement(planned.task, answers)]
            judgement = judged(planned.task, verdicts)
        return row_of(planned, episode, verdicts, judgement, min_score=self._config.min_score)

    async def episode(self, planned: Planned) -> Episode:
        ground = Ground(
            planned.task, planned.toolbox.tools, seed=planned.seed, faults=planned.faults, places=self._machine
        )
        cast = self._cast
        episode = await play(
            planned.task,
            planned.agent,
            planned.toolbox,
            agent=cast.agent(planned),
            user=cast.user(planned.task),
            user_backend=cast.user_backend,
            ground=ground,
            bounds=self._bounds,
        )
        self.turns += episode.turns
        return episode

    async def _judge(self, question: ChatRequest, episode: Episode) -> str | None:
        assert self._cast.judge_backend is not None
        try:
            response = await self._cast.judge_backend.complete(question)
        except CallRejected:
            return None
        episode.heard("judge", response)
        return response.text
