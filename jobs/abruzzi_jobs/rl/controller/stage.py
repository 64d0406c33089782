"""Stage `rl`, assembled in one process: trainer, engine, rollouts, rewards and checkpoint engine, and the loop that drives them."""

from __future__ import annotations

import copy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from abruzzi.client.stage import Preempted, Reporter, StageContext
from abruzzi.contracts.endpoint import ChatRole
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Task
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.chat.roles import Roles
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.checkpoint.state import STATE_FILE
from abruzzi_jobs.checkpoint.table import model_table
from abruzzi_jobs.data.tokenizer import load_tokenizer
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.rl.controller.controller import Controller
from abruzzi_jobs.rl.controller.host import Saver, StageHost
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.controller.ledger import MemoryLedger, TimeLedger
from abruzzi_jobs.rl.controller.parts import Policy, Scorer, TrainerLost
from abruzzi_jobs.rl.controller.playing import StagePlayer
from abruzzi_jobs.rl.controller.policy import ColocatedPolicy
from abruzzi_jobs.rl.controller.rollouts import write_rollouts
from abruzzi_jobs.rl.controller.scoring import PoolScorer
from abruzzi_jobs.rl.controller.screening import Screening
from abruzzi_jobs.rl.controller.tasks import Curriculum
from abruzzi_jobs.rl.controller.trainer import Begun, Trainer, seed_of_line
from abruzzi_jobs.rl.critic.asking import Critic, PolicyCritic, RoleCritic
from abruzzi_jobs.rl.critic.rubrics import settled_rubrics
from abruzzi_jobs.rl.critic.self_critique import SelfCritique
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.environments import Environment, Services
from abruzzi_jobs.rl.rewards import RewardPool
from abruzzi_jobs.rl.rollout.collect import RolloutEngine
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.store import RolloutStore
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.transport import InProcess
from abruzzi_jobs.rl.weights.worker import CheckpointWorker
from abruzzi_jobs.sft.markers import read_markers
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.divergence import note_divergence

logger = logging.getLogger(__name__)

TRAINER_LOSSES = 3
"""Of the trainer's process in one iteration, beyond which it is no accident."""


class StagePolicy(Policy, Saver, Protocol):
    """Weights that can be saved."""


class Reinforcement:
    """`run` raises Preempted when it was told to stop, AbruzziError `divergence`, `disk_full` and what else ends a stage."""

    def __init__(self, context: StageContext, reporter: Reporter, stage: RlStage, ranks: Ranks) -> None:
        self._context, self._reporter, self._stage, self._ranks = context, reporter, stage, ranks
        source, tokenizer = context.input_part("checkpoint", (STATE_FILE,)), context.input("tokenizer")
        self._tokenizer = tokenizer.folder
        self._table = model_table(source.folder, tokenizer.folder)
        vocab_size = int(self._table["vocab_size"]) if stage.rl.enforce_calls else None
        self._dialogue, self._template = _dialogue(tokenizer.folder, enforced_vocabulary=vocab_size)

    async def run(self) -> None:
        async with self._asked() as roles:
            await self._run(roles)

    async def _run(self, roles: Roles) -> None:
        rl = self._stage.rl
        trainer = Trainer(self._context, self._stage, self._ranks)
        self._tell_loading()
        begun = trainer.begin()
        # The engine's weights are its own: an update is there as a whole, or not at all.
        engine = TorchEngine(copy.deepcopy(trainer.model), version=begun.iterations, max_running=rl.concurrency)
        worker = CheckpointWorker(Group.alone(), InProcess(), sink=engine)
        async with (
            AsyncEngine(engine) as front,
            RewardPool(workers=rl.reward.workers, deadline_seconds=rl.reward.deadline) as pool,
        ):
            policy = ColocatedPolicy(trainer, front, worker, is_beside=rl.staleness > 0)
            try:
                await self._play(begun, policy, engine=front, scorer=PoolScorer(pool, rl), roles=roles)
            except BaseException:
                trainer.close()
                raise

    async def _play(
        self,
        begun: Begun,
        policy: StagePolicy,
        *,
        engine: RolloutEngine,
        scorer: Scorer,
        roles: Roles,
        session: Callable[[Task], Environment] | None = None,
        recover: Callable[[], Awaitable[Begun]] | None = None,
    ) -> None:
        """`session`: where environments are not in this process. `recover`: where the trainer is not, another one that goes on."""
        rl, spec = self._stage.rl, self._context.spec
        seed = seed_of_line(spec.seed, begun.line)
        prefix = f"{spec.output_prefix}rl/line-{begun.line:06d}/"
        store, journal = RolloutStore(self._context.store, prefix), Journal(self._context.store, prefix)
        curriculum = Curriculum(rl.environments, seed=seed, services=Services(backends=roles))
        player = StagePlayer(
            rl, curriculum, engine=engine, dialogue=self._dialogue,
            positions=int(self._table["max_position"]), seed=seed, store=store, session=session,
        )  # fmt: skip
        host = StageHost(self._context, self._reporter, self._stage, policy, asked=roles.metrics)
        controller = Controller(
            rl, journal=journal, policy=policy, player=player, scorer=scorer,
            critic=self._critic(engine, roles, curriculum, journal, seed=seed), host=host, time=TimeLedger(),
            memory=MemoryLedger(self._ranks.device), screening=self._screening(curriculum, player, scorer),
        )  # fmt: skip
        try:
            await self._to_the_end(controller, host, begun, recover)
        except AbruzziError as error:
            if error.code == "divergence":
                at = controller.iteration
                note_divergence(self._context, error, step=at, data_step=max(at, begun.line) + 1)
            raise
        finally:
            await player.close()
        await self._commit(store, journal, roles)

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[Roles]:
        """Who plays the stage's roles. They answer on when the stage is told to stop: a session's question that fails would be its trajectory's end."""
        stage = self._stage
        if not stage.roles:
            yield Roles({}, None)
            return
        async with stage_roles(
            self._context, stage.roles, stage.endpoint, seed=stage.seed, ends_when_told=False
        ) as roles:
            yield roles

    def _screening(self, curriculum: Curriculum, player: StagePlayer, scorer: Scorer) -> Screening | None:
        band = self._stage.rl.difficulty
        if band is None:
            return None
        spec = self._context.spec
        candidates = Curriculum(self._stage.rl.environments, seed=spec.seed).candidates(band.candidates)
        return Screening(
            band, candidates, keep=curriculum.keep, store=self._context.store, prefix=f"{spec.output_prefix}rl/",
            sampler=player, scorer=scorer,
        )  # fmt: skip

    async def _to_the_end(
        self,
        controller: Controller,
        host: StageHost,
        begun: Begun,
        recover: Callable[[], Awaitable[Begun]] | None,
    ) -> None:
        """Through losses of the trainer: what was played and scored is found, and trained on again to the same bits."""
        furthest, losses = -1, 0
        while True:
            host.begin(begun)
            try:
                await controller.run(begun.iterations)
                return
            except TrainerLost as lost:
                losses = 1 if controller.iteration > furthest else losses + 1
                furthest = max(furthest, controller.iteration)
                if recover is None or losses > TRAINER_LOSSES:
                    raise
                logger.warning("%s Another one goes on from the newest checkpoint.", lost)
                begun = await recover()

    def _tell_loading(self) -> None:
        self._reporter.heartbeat(0, "load", total_steps=self._stage.rl.iterations)

    def _critic(
        self, engine: RolloutEngine, roles: Roles, curriculum: Curriculum, journal: Journal, *, seed: int
    ) -> SelfCritique | None:
        config = self._stage.rl.critic
        if config is None:
            return None
        rubrics = settled_rubrics(self._context, config.rubrics, self._ranks)
        logger.info(
            "answers are compared by the rubrics %s: %s", rubrics.reference, ", ".join(r.name for r in rubrics.rubrics)
        )
        positions = int(self._table["max_position"])
        critic: Critic = PolicyCritic(engine, self._template, rubrics, config.form, positions=positions)
        if ChatRole.CRITIC in roles:
            critic = RoleCritic(roles[ChatRole.CRITIC], rubrics, go_on=self._unless_told_to_stop)
        return SelfCritique(
            config,
            critic=critic,
            rubrics=rubrics,
            is_compared=curriculum.is_compared,
            journal=journal,
            template=self._template,
            positions=positions,
            minibatches=self._stage.rl.minibatches,
            seed=seed,
        )

    def _unless_told_to_stop(self) -> None:
        if self._context.stop_requested.is_set():
            raise Preempted("Told to stop while answers were compared; verdicts so far are kept.")

    async def _commit(self, store: RolloutStore, journal: Journal, roles: Roles) -> None:
        """What later stages are given, beside the checkpoint."""
        self._reporter.heartbeat(self._stage.rl.iterations, "commit", total_steps=self._stage.rl.iterations)
        folder = fresh_folder(self._context.scratch / "rollouts")
        described = write_rollouts(store, journal, self._template, folder)
        if roles:
            await roles.write_calls(folder)
        self._context.commit(ArtifactKind.ROLLOUTS, "rollouts", files_of(folder), _meta(described))
        vocabulary = {"vocab_size": self._template.tokenizer.get_vocab_size()}
        self._context.commit(ArtifactKind.TOKENIZER, "tokenizer", files_of(self._tokenizer), vocabulary)
        await roles.discard_calls()
        logger.info("%d rollouts written down: %s", described["rows"], described["fates"])


def _dialogue(tokenizer: Path, *, enforced_vocabulary: int | None) -> tuple[Dialogue, ChatTemplate]:
    """`enforced_vocabulary`: tokens that the model has room for, where calls are to follow their schemas. Raises AbruzziError bad_data for a tokenizer
    without a chat template."""
    described = read_markers(tokenizer)
    if described is None:
        raise AbruzziError(
            "bad_data",
            "The tokenizer has no chat template, in which a policy and its environments talk.",
            hint="Give the stage the `tokenizer` and `checkpoint` outputs of an sft stage.",
        )
    markers, style = described
    template = ChatTemplate(load_tokenizer(tokenizer), markers)
    enforcer = None
    if enforced_vocabulary is not None:
        enforcer = Enforcer(
            template.tokenizer, markers, vocab_size=enforced_vocabulary, end_of_text=template.end_of_text
        )
    return Dialogue(template, style, enforcer), template


def _meta(described: dict[str, Any]) -> dict[str, Any]:
    return {key: described[key] for key in ("rows", "fates", "iterations", "reward_first", "reward_last")}
