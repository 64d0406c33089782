"""Environments and rewards in processes beside the stage's: sessions that are played again where their process was lost, scores that are asked again."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi_jobs.chat.remote import Asking, remote_roles
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.rl.actors.place import Actor, ActorLost
from abruzzi_jobs.rl.controller.tasks import Curriculum
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.rewards import RewardPool

TRIES = 4
"""Of one call, each in another process."""

logger = logging.getLogger(__name__)


class WorkerActor:
    """Sessions, and a pool of processes that compute rewards."""

    def __init__(self, stage: RlStage, seed: int, reward_workers: int, asking: Asking | None = None) -> None:
        """`asking`: the stage's roles, for sessions that ask somebody."""
        self._stage, self._seed, self._asking = stage, seed, asking
        self._roles = AsyncExitStack()
        self._curriculum: Curriculum | None = None
        self._pool = RewardPool(workers=reward_workers, deadline_seconds=stage.rl.reward.deadline)
        self._sessions: dict[str, Environment] = {}

    async def open(self) -> None:
        roles: Mapping[str, ChatBackend] = {}
        if self._asking is not None:
            roles = await self._roles.enter_async_context(remote_roles(self._asking))
        services = Services(backends=roles)
        self._curriculum = Curriculum(self._stage.rl.environments, seed=self._seed, services=services)
        await self._pool.__aenter__()

    async def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        return await self._pool.score(trajectory, messages, state)

    async def reset(self, session: str, task: Task, seed: int) -> Observation:
        assert self._curriculum is not None, "open comes first"
        self._sessions[session] = self._curriculum.session(task)
        return await self._sessions[session].reset(task, seed)

    async def step(self, session: str, action: Message) -> StepResult:
        return await self._sessions[session].step(action)

    async def state(self, session: str) -> dict[str, Any]:
        return await self._sessions[session].state()

    async def close(self, session: str) -> None:
        await self._sessions.pop(session).close()


class Crew:
    """Workers in their places; one that is lost is replaced when it is needed."""

    def __init__(self, make: Callable[[int], Awaitable[Actor]], count: int) -> None:
        self._make = make
        self._actors: list[Actor | None] = [None] * count
        self._busy = [0] * count
        self._locks = [asyncio.Lock() for _ in range(count)]
        self.replaced = 0

    async def start(self) -> None:
        await asyncio.gather(*(self.actor(number) for number in range(len(self._actors))))

    async def close(self) -> None:
        await asyncio.gather(*(actor.end() for actor in self._actors if actor is not None))

    def choose(self) -> int:
        """The place with the fewest that are busy there."""
        return min(range(len(self._busy)), key=lambda number: (self._busy[number], number))

    def count(self, number: int, more: int) -> None:
        self._busy[number] += more

    async def actor(self, number: int) -> Actor:
        async with self._locks[number]:
            found = self._actors[number]
            if found is None:
                found = self._actors[number] = await self._make(number)
            return found

    async def lose(self, number: int, actor: Actor, lost: ActorLost) -> None:
        if self._actors[number] is actor:
            logger.warning("worker %d for environments and rewards is gone (%s); another takes its place", number, lost)
            self._actors[number] = None
            self.replaced += 1
            await actor.end()

    async def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """As RewardPool.score."""
        gone = ""
        for _ in range(TRIES):
            number = self.choose()
            self.count(number, 1)
            actor: Actor | None = None
            try:
                actor = await self.actor(number)
                return await actor.call("score", trajectory, messages, state)
            except ActorLost as lost:
                gone = str(lost)
                if actor is not None:
                    await self.lose(number, actor, lost)
            finally:
                self.count(number, -1)
        return Outcome(
            status=Status.REWARD_ERROR,
            version=trajectory.task.environment,
            detail=f"its process was lost {TRIES} times: {gone}",
        )

    def session(self, task: Task) -> RemoteSession:
        return RemoteSession(self, task)


class RemoteSession:
    """A session in a worker. Where that is lost, another is opened in the next one, and what was done is done again: the same, or it is an error of the
    environment, as for a trajectory that goes on in another process."""

    def __init__(self, crew: Crew, task: Task) -> None:
        self._crew, self._task = crew, task
        self._id = uuid.uuid4().hex
        self._place: int | None = None
        self._actor: Actor | None = None
        self._seed = 0
        self._first: Observation | None = None
        self._done: list[tuple[Message, StepResult]] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        self._seed = seed
        self._first = await self._persistently(lambda actor: actor.call("reset", self._id, task, seed), is_open=False)
        return self._first

    async def step(self, action: Message) -> StepResult:
        result = await self._persistently(lambda actor: actor.call("step", self._id, action))
        self._done.append((action, result))
        return result

    async def state(self) -> dict[str, Any]:
        return await self._persistently(lambda actor: actor.call("state", self._id))

    async def close(self) -> None:
        if self._place is not None:
            self._crew.count(self._place, -1)
        if self._actor is not None:
            try:
                await self._actor.call("close", self._id)
            except ActorLost:
                return  # and the session with it

    async def _persistently(self, act: Callable[[Actor], Awaitable[Any]], *, is_open: bool = True) -> Any:
        for left in reversed(range(TRIES)):
            actor = self._actor
            try:
                if actor is None:
                    actor = await self._move()
                    if is_open:
                        await self._again(actor)
                    self._actor = actor
                return await act(actor)
            except ActorLost as lost:
                self._actor = None
                if actor is not None and self._place is not None:
                    await self._crew.lose(self._place, actor, lost)
                if not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _move(self) -> Actor:
        if self._place is not None:
            self._crew.count(self._place, -1)
        self._place = self._crew.choose()
        self._crew.count(self._place, 1)
        return await self._crew.actor(self._place)

    async def _again(self, actor: Actor) -> None:
        first = await actor.call("reset", self._id, self._task, self._seed)
        found = [first, *[await actor.call("step", self._id, action) for action, _ in self._done]]
        if found != [self._first, *(result for _, result in self._done)]:
            raise RuntimeError(
                f"{self._task.environment} was lost with its process, and played again it answered something else: "
                "let the task's seed decide all that it does"
            )
