"""Inference replicas as one engine. A request of a replica that dies goes to another one: draws are by seed and position, so its tokens are the same.

A lost replica is replaced at once; the new one takes the weights from those that have them (paper 3.3.3), or joins with the next update.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.rl.actors.place import Actor, ActorLost
from abruzzi_jobs.rl.actors.replica import NOTHING, Source
from abruzzi_jobs.rl.controller.parts import TrainerLost
from abruzzi_jobs.rl.engine.front import EngineFailed
from abruzzi_jobs.rl.engine.protocol import EngineStats, Request

LOSSES = 5
"""Of one replica between two versions, beyond which it is no accident."""
UPDATE_TRIES = 4
"""Each without those that the one before has lost."""
LOOK_SECONDS = 0.5
"""How often replicas say how full they are."""
CLOSE_SECONDS = 5.0
"""That a replica has to leave nothing behind, before it is ended anyhow."""

logger = logging.getLogger(__name__)

Make = Callable[[int], Awaitable[Actor]]
"""A replica (actors/replica.py) in place `number`, without weights."""


@dataclass(eq=False)
class _Replica:
    number: int
    actor: Actor
    running: int = 0
    stats: EngineStats | None = None


class Fleet:
    """A `rollout.collect.RolloutEngine`. It begins paused and asleep, without weights."""

    def __init__(self, make: Make, count: int, *, host_of: Callable[[str], str | None] = lambda node: None) -> None:
        """`host_of`: address of a node for the others; None: all are on one machine."""
        self._make, self._count, self._host_of = make, count, host_of
        self._token = secrets.token_hex(16)
        self._ready: dict[int, _Replica] = {}
        self._healing: dict[int, asyncio.Task[None]] = {}
        self._losses = [0] * count
        self._changed = asyncio.Event()
        self._gate = asyncio.Lock()
        self._group: tuple[Actor, ...] = ()
        self._where: dict[str, _Replica] = {}
        """Of requests."""
        self._groups: dict[str, tuple[_Replica, int]] = {}
        """Replica and requests of each group, which share a prompt."""
        self._trainer: Actor | None = None
        self._registered = NOTHING
        """Version that the trainer gives to who asks."""
        self._trainer_lost: TrainerLost | None = None
        self._starving = 0
        """Places whose weights only a trainer can bring."""
        self._gone: list[Actor] = []
        """Lost: those that cannot be reached may live."""
        self._failure: Exception | None = None
        self._is_paused, self._is_asleep, self._is_aborting = True, True, False
        self._looking: asyncio.Task[None] | None = None
        self._asides: set[asyncio.Future[Any]] = set()
        self.version = NOTHING
        self.replaced = 0

    async def start(self, trainer: Actor) -> None:
        """Comes up beside this trainer."""
        self._trainer = trainer
        made = await asyncio.gather(*(self._make(number) for number in range(self._count)), return_exceptions=True)
        for number, actor in enumerate(made):
            if not isinstance(actor, BaseException):
                self._ready[number] = _Replica(number, actor)
        for failure in made:
            if isinstance(failure, BaseException):
                raise failure
        self._looking = asyncio.create_task(self._look())

    def take_trainer(self, trainer: Actor) -> None:
        """Another one, from now on."""
        self._trainer, self._group = trainer, ()
        self._registered, self._trainer_lost = NOTHING, None
        self._wake_waiting()

    def lose_trainer(self, trainer: Actor, lost: TrainerLost) -> None:
        """Until another is taken there are only the replicas' weights."""
        if self._trainer is trainer:
            self._registered, self._trainer_lost = NOTHING, lost
            self._wake_waiting()

    def has_registered(self, version: int) -> None:
        """The trainer has, and gives it to whoever asks."""
        self._registered = version
        self._wake_waiting()

    async def close(self) -> None:
        self._fail(RuntimeError("it is closed"))
        tasks = [task for task in (self._looking, *self._healing.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        actors = [replica.actor for replica in self._ready.values()]
        self._ready.clear()
        await asyncio.gather(*(_ended(actor) for actor in actors), *(actor.end() for actor in self._gone))

    # As an engine

    async def generate(self, request: Request) -> Segment:
        """Raises EngineFailed where no replica can be had any more."""
        while True:
            if self._is_aborting:
                return _nothing(request, self.version)
            replica = self._choose(request.group)
            if replica is None:
                if self._starving and self._trainer_lost is not None:
                    # Another trainer comes when this iteration has ended, which waits for it.
                    raise EngineFailed(self._trainer_lost)
                await self._wait_for_change()
                continue
            self._begin(request, replica)
            try:
                return await replica.actor.call("generate", request)
            except ActorLost as lost:
                self._lose(replica, lost)
            except AbruzziError as error:
                if error.code != "engine_failed":
                    raise
                self._lose(replica, ActorLost(str(error)))
            except asyncio.CancelledError:
                self._beside(replica, "cancel", request.id)
                raise
            finally:
                self._end(request, replica)

    async def cancel(self, request_id: str) -> None:
        if (replica := self._where.get(request_id)) is not None:
            await self._all("cancel", request_id, of=[replica])

    async def pause(self, mode: Literal["keep", "abort"]) -> None:
        self._is_paused = True
        self._is_aborting = mode == "abort"
        self._wake_waiting()
        async with self._gate:
            await self._all("pause", mode)

    async def resume(self) -> None:
        """Those that sleep wake, with the weights that are served. One that is being replaced comes later, by itself."""
        self._refuse_failed()
        async with self._gate:
            if self._is_asleep:
                for replica in list(self._ready.values()):
                    await self._complete(replica)
                await self._all("wake")
                self._is_asleep = False
            self._is_paused = self._is_aborting = False
            await self._all("resume")

    def stats(self) -> EngineStats:
        """As they last told."""
        known = [replica.stats for replica in self._ready.values() if replica.stats is not None]

        def total(name: str) -> int:
            return sum(getattr(each, name) for each in known)

        return EngineStats(
            version=self.version, running=total("running"), waiting=total("waiting"),
            cache_tokens=total("cache_tokens"), cache_capacity=total("cache_capacity"),
            prompt_tokens=total("prompt_tokens"), shared_tokens=total("shared_tokens"),
            generated_tokens=total("generated_tokens"),
        )  # fmt: skip

    # Around training

    async def sleep(self) -> None:
        self._is_paused = self._is_asleep = True
        self._wake_waiting()
        async with self._gate:
            await self._all("pause", "abort")
            await self._all("sleep")

    async def versions(self) -> list[int]:
        """Of those that live; one that has just come and has no weights yet is not among them."""
        await self._healed()
        return [version for version in await self._all("version") if version != NOTHING]

    async def peak_bytes(self) -> int:
        """Of the largest."""
        return max(await self._all("peak"), default=0)

    # Weights

    async def start_from(self, source: Source, begin: Callable[[], Awaitable[Any]]) -> bool:
        """All read a part each of the weights of version 0, the trainer in what `begin` calls. False: they have none, of whatever reason."""
        members = await self._form()
        if members is None:
            return False
        calls = (self._guarded(replica, "start_from", source, 0) for replica in members)
        trained, *found = await asyncio.gather(begin(), *calls, return_exceptions=True)
        self._group = ()
        failures = [each for each in (trained, *found) if isinstance(each, BaseException)]
        for failure in failures:
            if isinstance(failure, TrainerLost) or not isinstance(failure, (ActorLost, AbruzziError)):
                raise failure
            logger.warning("The checkpoint was not read together: %s", failure)
        if not failures:
            self.version = 0
        return not failures

    async def update(self, version: int) -> dict[str, float]:
        """To what the trainer has registered. Nothing where all serve it, which is so when a step was computed again after the trainer's loss.

        Raises TrainerLost, AbruzziError `weight_update_failed`: all replicas that live then serve the same version, this one or the one before."""
        if version <= self.version:
            return {}
        try:
            metrics = await self._update_persistently(version)
        except AbruzziError:
            await self._settle()
            raise
        self._losses = [0] * self._count
        return metrics

    async def _update_persistently(self, version: int) -> dict[str, float]:
        last: Exception | None = None
        for _ in range(UPDATE_TRIES):
            await self._healed()
            async with self._gate:
                try:
                    metrics = await self._update()
                except (ActorLost, AbruzziError) as error:
                    if isinstance(error, TrainerLost):
                        raise
                    self._group, last = (), error
                    logger.warning("The update to version %d is tried again: %s", version, error)
                    continue
                if metrics is not None:
                    self.version = version
                    return metrics
        raise last or AbruzziError(
            "weight_update_failed", f"Replicas were lost in each of {UPDATE_TRIES} updates.", status=503
        )

    async def _settle(self) -> None:
        """After an update that has failed. Each replica changes its version by itself, once it has heard that all have everything; so some may have changed, or
        all, when the trainer was lost. Those that have not take the weights from those that have, or are replaced."""
        async with self._gate:
            served: dict[_Replica, int] = {}
            for replica in list(self._ready.values()):
                with contextlib.suppress(ActorLost):
                    served[replica] = await self._guarded(replica, "version")
            newest = max(served.values(), default=NOTHING)
            if newest <= self.version:
                return
            self.version = newest
            for replica, has in served.items():
                if has < newest:
                    try:
                        await self._pull(replica)
                    except (ActorLost, AbruzziError) as error:
                        self._lose(replica, ActorLost(f"left behind by an update: {error}"))

    async def _update(self) -> dict[str, float] | None:
        members = await self._form()
        if members is None:
            return None
        calls = [self._of_trainer("update"), *(self._guarded(replica, "update") for replica in members)]
        found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
        for failure in found:
            if isinstance(failure, BaseException):
                self._group = ()
                # The trainer's own loss comes first: nobody else can go on then.
                raise next((each for each in found if isinstance(each, TrainerLost)), failure)
        return dict(found[0])

    async def _form(self) -> Sequence[_Replica] | None:
        """A group of the trainer and all replicas that live; None where one was lost on the way."""
        members = list(self._ready.values())
        assert self._trainer is not None
        wanted = (self._trainer, *(replica.actor for replica in members))
        if not members:
            return None
        if wanted == self._group:
            return members
        host = self._host_of(self._trainer.node)
        meeting = (
            self._of_trainer("meet", host),
            *(self._guarded(replica, "meet", self._host_of(replica.actor.node)) for replica in members),
        )
        addresses = await asyncio.gather(*meeting, return_exceptions=True)
        if not _whole(addresses):
            return None
        joining = (
            self._of_trainer("join", 0, addresses, self._token),
            *(self._guarded(r, "join", rank, addresses, self._token) for rank, r in enumerate(members, start=1)),
        )
        if not _whole(await asyncio.gather(*joining, return_exceptions=True)):
            return None
        self._group = wanted
        return members

    # Losses

    def _lose(self, replica: _Replica, lost: ActorLost) -> None:
        """It is replaced."""
        number = replica.number
        if self._ready.get(number) is not replica:
            return
        logger.warning("inference replica %d is gone (%s); another takes its place", number, lost)
        del self._ready[number]
        self._group = ()
        self._losses[number] += 1
        self.replaced += 1
        if self._losses[number] > LOSSES:
            self._fail(lost)
        self._gone.append(replica.actor)
        if self._failure is None:
            self._healing[number] = asyncio.create_task(self._heal(replica))

    async def _heal(self, gone: _Replica) -> None:
        number = gone.number
        try:
            await gone.actor.end()
            actor = await self._make(number)
            try:
                await self._join_late(_Replica(number, actor))
            except BaseException:
                await actor.end()
                raise
        except ActorLost as lost:
            self._losses[number] += 1
            if self._losses[number] > LOSSES:
                self._fail(lost)
            else:
                logger.warning("inference replica %d did not come up (%s); again", number, lost)
                self._healing[number] = asyncio.create_task(self._heal(gone))
        except Exception as error:
            self._fail(error)

    async def _join_late(self, replica: _Replica) -> None:
        """With the weights that are served, or those that are about to be, and in the state that the others are in."""
        refusals = 0
        while True:
            refusal: AbruzziError | None = None
            if not self._is_asleep and self.version != NOTHING:
                await self._until_weights_can_be_had()
                try:
                    await self._pull(replica)
                except AbruzziError as error:
                    # Who has them may be training on or changing them by now, or is about to be replaced.
                    refusal = error
            async with self._gate:
                has = await replica.actor.call("version")
                # A newer one than is served: of an update that waits for this replica, or of one that others have ended.
                if self._is_asleep or has >= self.version:
                    if not self._is_asleep:
                        await replica.actor.call("wake")
                        if not self._is_paused:
                            await replica.actor.call("resume")
                    self._ready[replica.number] = replica
                    self._healing.pop(replica.number, None)
                    self._wake_waiting()
                    return
            if not isinstance(refusal, TrainerLost):
                refusals += 1
                if refusals > LOSSES:
                    raise refusal or _no_weights(self.version, has)
            await asyncio.sleep(LOOK_SECONDS * max(1, refusals))

    async def _until_weights_can_be_had(self) -> None:
        """From another replica, or from the trainer: once it has come to the version that is served, where it was lost and trains again."""
        if self._ready or self._registered >= self.version:
            return
        self._starving += 1
        self._wake_waiting()
        try:
            while not (self._ready or self._registered >= self.version or self._is_asleep):
                await self._wait_for_change()
        finally:
            self._starving -= 1

    async def _complete(self, replica: _Replica) -> None:
        try:
            if await self._guarded(replica, "version") < self.version:
                await self._pull(replica)
        except ActorLost as lost:
            self._lose(replica, lost)

    async def _pull(self, replica: _Replica) -> None:
        """What is served, or newer. From the others, so that a trainer at work is left alone; from the trainer, where nobody else has them."""
        last: AbruzziError | None = None
        assert self._trainer is not None
        for other in [*(each for each in self._ready.values() if each is not replica), None]:
            try:
                if other is None:
                    source = await self._of_trainer("offer", self._host_of(self._trainer.node), self._token)
                else:
                    source = await self._guarded(other, "offer", self._host_of(other.actor.node), self._token)
                version = await replica.actor.call("pull", [source], self._host_of(replica.actor.node), self._token)
            except ActorLost as lost:
                if other is None or self._ready.get(other.number) is other:
                    raise
                logger.info("it was to give its weights: %s", lost)
            except AbruzziError as error:
                last = error
            else:
                if version >= self.version:
                    logger.info(
                        "inference replica %d has version %d of the weights from another process",
                        replica.number,
                        version,
                    )
                    return
                last = _no_weights(self.version, version)
        assert last is not None
        raise last

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._wake_waiting()

    async def _healed(self) -> None:
        """All places are taken. Raises EngineFailed where one cannot be, TrainerLost where nobody else has weights for it."""
        while self._healing:
            if self._trainer_lost is not None and not self._ready:
                raise self._trainer_lost
            await self._wait_for_change()
        self._refuse_failed()

    async def _wait_for_change(self) -> None:
        self._refuse_failed()
        self._changed.clear()
        await self._changed.wait()
        self._refuse_failed()

    def _refuse_failed(self) -> None:
        if self._failure is not None:
            raise EngineFailed(self._failure)

    def _wake_waiting(self) -> None:
        self._changed.set()

    # Calls

    def _choose(self, group: str) -> _Replica | None:
        """Of one group, the same; of groups, the one with the fewest requests."""
        known = self._groups.get(group)
        if known is not None and self._ready.get(known[0].number) is known[0]:
            return known[0]
        return min(self._ready.values(), key=lambda replica: (replica.running, replica.number), default=None)

    def _begin(self, request: Request, replica: _Replica) -> None:
        replica.running += 1
        self._where[request.id] = replica
        if request.group:
            _, count = self._groups.get(request.group, (replica, 0))
            self._groups[request.group] = (replica, count + 1)

    def _end(self, request: Request, replica: _Replica) -> None:
        replica.running -= 1
        self._where.pop(request.id, None)
        if request.group:
            chosen, count = self._groups[request.group]
            if count == 1:
                del self._groups[request.group]
            else:
                self._groups[request.group] = (chosen, count - 1)

    async def _guarded(self, replica: _Replica, method: str, *arguments: Any) -> Any:
        """As `call`; one that is lost is replaced."""
        try:
            return await replica.actor.call(method, *arguments)
        except ActorLost as lost:
            self._lose(replica, lost)
            raise

    async def _all(self, method: str, *arguments: Any, of: Sequence[_Replica] | None = None) -> list[Any]:
        """Of those that live."""
        chosen = list(self._ready.values()) if of is None else of
        found = await asyncio.gather(*(self._guarded(r, method, *arguments) for r in chosen), return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, ActorLost):
                raise each
        return [each for each in found if not isinstance(each, ActorLost)]

    def _beside(self, replica: _Replica, method: str, *arguments: Any) -> None:
        task = asyncio.ensure_future(self._all(method, *arguments, of=[replica]))
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def _of_trainer(self, method: str, *arguments: Any) -> Any:
        trainer = self._trainer
        assert trainer is not None
        try:
            return await trainer.call(method, *arguments)
        except ActorLost as lost:
            gone = TrainerLost(str(lost))
            self.lose_trainer(trainer, gone)
            raise gone from lost

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for replica in list(self._ready.values()):
                try:
                    replica.stats = await self._guarded(replica, "stats")
                except ActorLost:
                    continue  # it is being replaced


def _nothing(request: Request, version: int) -> Segment:
    """Of a request that was never begun, because all were to stop."""
    return Segment(
        source=TokenSource.POLICY, tokens=(), policy_version=max(0, version), temperature=request.temperature,
        ending=Ending.PAUSED,
    )  # fmt: skip


def _whole(found: Sequence[Any]) -> bool:
    """False where a replica was lost. Raises what else went wrong."""
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, (ActorLost, TimeoutError)):
            raise each
    return not any(isinstance(each, BaseException) for each in found)


async def _ended(actor: Actor) -> None:
    """By itself first, if it can: killed, it leaves its sockets on this machine."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await actor.call("close")
    await actor.end()


def _no_weights(wanted: int, has: int) -> AbruzziError:
    return AbruzziError(
        "no_weights",
        f"An inference replica that came later was given version {has} of the weights; {wanted} is served.",
        status=503,
        hint="See that the process that has them lives; the next attempt goes on from the newest checkpoint.",
    )
