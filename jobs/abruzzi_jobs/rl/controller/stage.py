"""Stage `rl`, assembled in one process: trainer, engine, rollouts, rewards and checkpoint engine, and the loop that drives them."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.checkpoint import load_weights
from abruzzi_jobs.checkpoint.table import model_table
from abruzzi_jobs.data.tokenizer import load_tokenizer
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.rl.controller.controller import Controller
from abruzzi_jobs.rl.controller.host import StageHost
from abruzzi_jobs.rl.controller.journal import Journal
from abruzzi_jobs.rl.controller.ledger import MemoryLedger, TimeLedger
from abruzzi_jobs.rl.controller.playing import StagePlayer
from abruzzi_jobs.rl.controller.policy import ColocatedPolicy
from abruzzi_jobs.rl.controller.ptx import PtxFeed
from abruzzi_jobs.rl.controller.rollouts import write_rollouts
from abruzzi_jobs.rl.controller.scoring import PoolScorer
from abruzzi_jobs.rl.controller.screening import Screening
from abruzzi_jobs.rl.controller.tasks import Curriculum
from abruzzi_jobs.rl.critic.asking import PolicyCritic
from abruzzi_jobs.rl.critic.rubrics import settled_rubrics
from abruzzi_jobs.rl.critic.self_critique import SelfCritique
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.rl.rewards import RewardPool
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.store import RolloutStore
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.transport import InProcess
from abruzzi_jobs.rl.weights.worker import CheckpointWorker
from abruzzi_jobs.sft.markers import read_markers
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.divergence import DivergenceWatch, note_divergence
from abruzzi_jobs.train.training import model_of, optimizer_of

logger = logging.getLogger(__name__)

_LINE_SEEDS = 1_000_003
"""Between the seeds of two lines."""


class Reinforcement:
    """`run` raises Preempted when it was told to stop, AbruzziError `divergence`, `disk_full` and what else ends a stage."""

    def __init__(self, context: StageContext, reporter: Reporter, stage: RlStage, ranks: Ranks) -> None:
        self._context, self._reporter, self._stage, self._ranks = context, reporter, stage, ranks
        source, tokenizer = context.input("checkpoint"), context.input("tokenizer")
        self._tokenizer = tokenizer.folder
        table = model_table(source.folder, tokenizer.folder)
        vocab_size = int(table["vocab_size"]) if stage.rl.enforce_calls else None
        self._dialogue, self._template = _dialogue(tokenizer.folder, enforced_vocabulary=vocab_size)
        self._model = model_of(stage.id, stage.memory, ranks, table, seed=None)
        load_weights(source.folder, self._model, name=f"{source.manifest.name} of stage {source.manifest.stage_id!r}")
        self._positions = int(table["max_position"])
        optimizer = optimizer_of(stage.id, stage.optimizer, self._model)
        watch = DivergenceWatch()
        self._learner = Learner(
            self._model, optimizer, ranks, stage.rl.objective, watch=watch, micro_tokens=stage.rl.micro_tokens
        )
        self._host = StageHost(
            context, reporter, stage, ranks, model=self._model, optimizer=optimizer, learner=self._learner, watch=watch,
            table={**context.spec.config, "model": table},
        )  # fmt: skip

    async def run(self) -> None:
        iterations, line = self._host.resume()
        seed = self._context.spec.seed + line * _LINE_SEEDS
        prefix = f"{self._context.spec.output_prefix}rl/line-{line:06d}/"
        store = RolloutStore(self._context.store, prefix)
        curriculum = Curriculum(self._stage.rl.environments, seed=seed)
        rl = self._stage.rl
        # The engine's weights are its own: an update is there as a whole, or not at all.
        engine = TorchEngine(copy.deepcopy(self._model), version=iterations, max_running=rl.concurrency)
        worker = CheckpointWorker(Group.alone(), InProcess(), sink=engine)
        async with (
            AsyncEngine(engine) as front,
            RewardPool(workers=rl.reward.workers, deadline_seconds=rl.reward.deadline) as pool,
        ):
            player = StagePlayer(
                rl, curriculum, engine=front, dialogue=self._dialogue, positions=self._positions, seed=seed, store=store
            )
            journal = Journal(self._context.store, prefix)
            controller = Controller(
                rl,
                journal=journal,
                policy=ColocatedPolicy(self._learner, front, worker, rl, ptx=self._ptx(seed)),
                player=player,
                scorer=PoolScorer(pool, rl),
                critic=self._critic(front, curriculum, journal, seed=seed),
                host=self._host,
                time=TimeLedger(),
                memory=MemoryLedger(self._ranks.device),
                screening=self._screening(curriculum, player, PoolScorer(pool, rl)),
            )
            try:
                await controller.run(iterations)
            except BaseException as error:
                self._host.close()
                if isinstance(error, AbruzziError) and error.code == "divergence":
                    at = controller.iteration
                    note_divergence(self._context, error, step=at, data_step=max(at, line) + 1)
                raise
            finally:
                await player.close()
        self._commit(store, journal)

    def _screening(self, curriculum: Curriculum, player: StagePlayer, scorer: PoolScorer) -> Screening | None:
        band = self._stage.rl.difficulty
        if band is None:
            return None
        spec = self._context.spec
        candidates = Curriculum(self._stage.rl.environments, seed=spec.seed).candidates(band.candidates)
        return Screening(
            band, candidates, keep=curriculum.keep, store=self._context.store, prefix=f"{spec.output_prefix}rl/",
            sampler=player, scorer=scorer,
        )  # fmt: skip

    def _ptx(self, seed: int) -> PtxFeed | None:
        rl = self._stage.rl
        if not rl.ptx_sequences:
            return None
        dataset = self._context.input("dataset").folder
        feed = PtxFeed(dataset, sequences=rl.ptx_sequences, length=rl.ptx_length, seed=seed)
        if feed.vocab_size > self._model.config.vocab_size:
            raise AbruzziError(
                "bad_data",
                f"The dataset has {feed.vocab_size} tokens in its vocabulary, the model {self._model.config.vocab_size}.",
                hint="Give the stage the dataset that its checkpoint was trained on.",
            )
        return feed

    def _critic(
        self, front: AsyncEngine, curriculum: Curriculum, journal: Journal, *, seed: int
    ) -> SelfCritique | None:
        config = self._stage.rl.critic
        if config is None:
            return None
        rubrics = settled_rubrics(self._context, config.rubrics, self._ranks)
        logger.info(
            "answers are compared by the rubrics %s: %s", rubrics.reference, ", ".join(r.name for r in rubrics.rubrics)
        )
        return SelfCritique(
            config,
            critic=PolicyCritic(front, self._template, rubrics, config.form, positions=self._positions),
            rubrics=rubrics,
            is_compared=curriculum.is_compared,
            journal=journal,
            template=self._template,
            positions=self._positions,
            minibatches=self._stage.rl.minibatches,
            seed=seed,
        )

    def _commit(self, store: RolloutStore, journal: Journal) -> None:
        """What later stages are given, beside the checkpoint."""
        self._reporter.heartbeat(self._stage.rl.iterations, "commit", total_steps=self._stage.rl.iterations)
        folder = fresh_folder(self._context.scratch / "rollouts")
        described = write_rollouts(store, journal, self._template, folder)
        self._context.commit(ArtifactKind.ROLLOUTS, "rollouts", files_of(folder), _meta(described))
        vocabulary = {"vocab_size": self._template.tokenizer.get_vocab_size()}
        self._context.commit(ArtifactKind.TOKENIZER, "tokenizer", files_of(self._tokenizer), vocabulary)
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
