"""Stage `rl` on actors: a trainer beside this process, an inference replica and a worker for each rank, spread over the nodes that there are."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import RlStage
from abruzzi.store import prefix_of, read_manifest
from abruzzi_jobs.chat.remote import Asking, serve_roles
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS_FILE
from abruzzi_jobs.data.ray_session import ENV_ADDRESS, ray_here
from abruzzi_jobs.rl.actors.crew import Crew, WorkerActor
from abruzzi_jobs.rl.actors.fleet import Fleet
from abruzzi_jobs.rl.actors.place import Actor, ActorLost, Place
from abruzzi_jobs.rl.actors.policy import ActorsPolicy
from abruzzi_jobs.rl.actors.ray_place import RayPlace
from abruzzi_jobs.rl.actors.replica import EngineReplica, Source
from abruzzi_jobs.rl.actors.trainer_actor import TrainerActor
from abruzzi_jobs.rl.controller.parts import TrainerLost
from abruzzi_jobs.rl.controller.scoring import PoolScorer
from abruzzi_jobs.rl.controller.stage import Reinforcement
from abruzzi_jobs.rl.controller.trainer import Begun, seed_of_line

logger = logging.getLogger(__name__)

STARTS = 4
"""Of one actor."""


class ReinforcementOnActors(Reinforcement):
    """On Ray: the cluster that this process is a job of, or one of this machine."""

    async def run(self) -> None:
        cpus = len(os.sched_getaffinity(0))
        with ray_here(self._context.attempt_dir, cpus) as ray:
            host = ray.util.get_node_ip_address() if ENV_ADDRESS in os.environ else "127.0.0.1"
            await self.run_on(RayPlace(ray), host=host)

    async def run_on(self, place: Place, *, host: str = "127.0.0.1") -> None:
        """`host`: of this process, where workers ask the stage's roles."""
        async with contextlib.AsyncExitStack() as serving:
            roles = await serving.enter_async_context(self._asked())
            asking = await serving.enter_async_context(serve_roles(roles, host)) if roles else None
            await self._run_on(place, roles, asking)

    async def _run_on(self, place: Place, roles: Roles, asking: Asking | None) -> None:
        self._tell_loading()
        parts = ActorParts(place, self._context, self._stage, self._table, asking)
        try:
            policy, begun = await parts.start()
            await self._play(
                begun, policy, engine=parts.fleet, scorer=PoolScorer(parts.crew, self._stage.rl), roles=roles,
                session=parts.crew.session, recover=parts.recover,
            )  # fmt: skip
        except BaseException:
            try:
                await parts.close()
            except Exception:
                logger.exception("The stage ends for another reason, and its actors could not be ended cleanly:")
            raise
        await parts.close()


class ActorParts:
    """All parts of one attempt but its loop."""

    def __init__(
        self,
        place: Place,
        context: StageContext,
        stage: RlStage,
        table: dict[str, Any],
        asking: Asking | None = None,
    ) -> None:
        """`asking`: where sessions ask the stage's roles."""
        self._place, self._context, self._stage, self._table, self._asking = place, context, stage, table, asking
        self._threads = stage.resources.threads or max(1, len(os.sched_getaffinity(0)) // (1 + stage.resources.ranks))
        count = stage.resources.ranks
        self._addresses: dict[str, str] = {}
        """Of nodes, those that are gone as well."""
        self.fleet = Fleet(self._replica, count, host_of=self._host_of)
        self.crew = Crew(self._worker, count)
        self._seed = context.spec.seed
        self.policy: ActorsPolicy | None = None
        self.begun: Begun | None = None
        self._training: Actor | None = None
        """The newest trainer."""

    async def start(self) -> tuple[ActorsPolicy, Begun]:
        trainer = await self._come_up()
        await self.fleet.start(trainer)
        self.policy = policy = ActorsPolicy(
            trainer, self.fleet, self._committed, is_beside=self._stage.rl.staleness > 0
        )
        try:
            begun = await self._begin_together(trainer)
            await self._ready(policy, trainer, begun)
        except TrainerLost as lost:
            logger.warning("%s Another one begins.", lost)
            begun = await self.recover()
        self.begun = begun
        self._seed = seed_of_line(self._context.spec.seed, begun.line)
        await self.crew.start()
        logger.info(
            "%d inference replicas on %d nodes, the trainer beside the first",
            self._stage.resources.ranks,
            len(self._addresses),
        )
        return policy, begun

    async def recover(self) -> Begun:
        """Another trainer, from the newest checkpoint."""
        assert self.policy is not None, "start comes first"
        for left in reversed(range(STARTS)):
            try:
                trainer = await self._trainer()
                self.fleet.take_trainer(trainer)
                self.begun = begun = await self._called(trainer, again=True, source=None)
                await self._ready(self.policy, trainer, begun)
                return begun
            except TrainerLost as lost:
                if not left:
                    raise
                logger.warning("%s Again.", lost)
        raise AssertionError("the last try returns or raises")

    async def close(self) -> None:
        """All of them, whatever one raises. A save in flight is of good weights and still worth having."""
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self.crew.close)
            closing.push_async_callback(self.fleet.close)
            if self._training is not None:
                closing.push_async_callback(self._training.end)
            if self.policy is not None and self.begun is not None:
                try:
                    await self.policy.close()
                except TrainerLost as lost:
                    logger.warning("%s What it was saving is not there.", lost)

    async def _come_up(self) -> Actor:
        for left in reversed(range(STARTS)):
            try:
                return await self._trainer()
            except TrainerLost as lost:
                if not left:
                    raise
                logger.warning("%s Again.", lost)
        raise AssertionError("the last try returns or raises")

    async def _begin_together(self, trainer: Actor) -> Begun:
        """With the replicas, where nothing was trained yet: each reads a part."""
        found: list[Begun] = []
        source = self._source() if self._context.spec.resume is None else None
        if source is not None:

            async def begin() -> None:
                found.append(await self._called(trainer, again=False, source=source))

            await self.fleet.start_from(source, begin)
        return found[0] if found else await self._called(trainer, again=False, source=None)

    async def _ready(self, policy: ActorsPolicy, trainer: Actor, begun: Begun) -> None:
        """Those that have no weights yet, or older ones, get the trainer's."""
        policy.begin(trainer, begun.iterations)
        await policy.register(begun.iterations)
        await policy.update(begun.iterations)

    async def _called(self, trainer: Actor, **named: Any) -> Begun:
        try:
            return await trainer.call("begin", **named)
        except ActorLost as lost:
            raise TrainerLost(str(lost)) from lost

    def _source(self) -> Source | None:
        """None where the ranks of a layout have saved their parts each: the trainer joins them, and the replicas get its weights."""
        reference = self._context.spec.inputs["checkpoint"]
        manifest = read_manifest(self._context.store, reference.manifest_key)
        if not any(entry.path == WEIGHTS_FILE for entry in manifest.files):
            return None
        return Source(self._context.spec.store, manifest, prefix_of(reference.manifest_key))

    def _committed(self, key: str, manifest: Manifest) -> None:
        for tell in self._context.on_commit:
            tell(key, manifest)

    # Actors

    async def _trainer(self) -> Actor:
        """The one before is ended first, as it may live where it cannot be reached. Raises TrainerLost where this one does not come up."""
        if self._training is not None:
            await self._training.end()
        node = next(iter(await self._nodes()))
        arguments = (self._context.spec, self._context.attempt_dir, self._threads)
        try:
            self._training = await self._made(TrainerActor, *arguments, node=node)
        except ActorLost as lost:
            raise TrainerLost(str(lost)) from lost
        return self._training

    async def _replica(self, number: int) -> Actor:
        return await self._opened(number, EngineReplica, self._stage, self._table, self._threads)

    async def _worker(self, number: int) -> Actor:
        workers = -(-self._stage.rl.reward.workers // self._stage.resources.ranks)
        return await self._opened(number, WorkerActor, self._stage, self._seed, workers, self._asking)

    async def _opened(self, number: int, kind: type, *arguments: Any) -> Actor:
        """On the node of this number, of those that live now."""
        for left in reversed(range(STARTS)):
            nodes = list(await self._nodes())
            try:
                actor = await self._made(kind, *arguments, node=nodes[number % len(nodes)])
                try:
                    await actor.call("open")
                except BaseException:
                    await actor.end()
                    raise
                return actor
            except ActorLost as lost:
                if not left:
                    raise
                logger.warning("%s did not come up (%s); again", kind.__name__, lost)
        raise AssertionError("the last try returns or raises")

    async def _nodes(self) -> dict[str, str]:
        found = await self._place.nodes()
        self._addresses |= found
        return found

    def _host_of(self, node: str) -> str | None:
        """None: there is one node, whose processes share memory."""
        return self._addresses[node] if len(self._addresses) > 1 else None

    async def _made(self, kind: type, *arguments: Any, node: str) -> Actor:
        return await self._place.start(kind, *arguments, node=node)
