"""What trains and what is saved: model, optimizer, learner, texts against forgetting, checkpoints. In the stage's process, or in one of its own."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from abruzzi.client.stage import StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rl import RlConfig
from abruzzi.contracts.rollout import Group
from abruzzi_jobs.checkpoint import Checkpointer, TrainingState, load_checkpoint, load_weights, open_checkpoint
from abruzzi_jobs.checkpoint.randomness import capture_all
from abruzzi_jobs.checkpoint.state import STATE_FILE
from abruzzi_jobs.checkpoint.table import model_table
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.rl.controller.ptx import PtxFeed
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.rl.learner.metrics import group_metrics
from abruzzi_jobs.rl.learner.packing import Minibatch
from abruzzi_jobs.rl.weights.group import WeightUpdateFailed
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.segment import share_memory
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows
from abruzzi_jobs.train.training import model_of, optimizer_of

logger = logging.getLogger(__name__)

_LINE_SEEDS = 1_000_003
"""Between the seeds of two lines."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Where an attempt goes on."""

    iterations: int
    """Done; the version of the weights."""
    tokens: int
    """Trained on so far."""
    line: int
    """What was played after a checkpoint that training went back to, because it diverged, must not be played again: another line begins, with other
    draws and a folder of its own."""


class Trainer:
    """Blocking; used by one thread at a time. Raises AbruzziError `bad_data` where inputs do not fit together, `divergence`, `disk_full`."""

    def __init__(
        self,
        context: StageContext,
        stage: RlStage,
        ranks: Ranks,
        *,
        read: Callable[[Decoder], None] | None = None,
        shares_memory: bool = False,
    ) -> None:
        """`shares_memory`: engines of other processes of this machine read the weights where they are. `read`: another way to the input's weights than this process alone. Where it fails with WeightUpdateFailed, this process reads them."""
        self._context, self._stage, self._ranks = context, stage, ranks
        described = context.input_part("checkpoint", (STATE_FILE,))
        self._table = model_table(described.folder, context.input("tokenizer").folder)
        self.model = model_of(stage.id, stage.memory, ranks, self._table, seed=None)
        if read is None or not _has_read(read, self.model):
            source = context.input("checkpoint")
            name = f"{source.manifest.name} of stage {source.manifest.stage_id!r}"
            load_weights(source.folder, self.model, name=name)
        if shares_memory:  # before there is an optimizer, whose masters are these very tensors
            share_memory(self.model)
        self._optimizer = optimizer_of(stage.id, stage.optimizer, self.model)
        self._watch = DivergenceWatch()
        self._learner = Learner(
            self.model,
            self._optimizer,
            ranks,
            stage.rl.objective,
            watch=self._watch,
            micro_tokens=stage.rl.micro_tokens,
        )
        self._checkpointer = Checkpointer(context, stage.checkpoint)
        self._minibatches: tuple[Minibatch, ...] = ()
        self._lessons: Sequence[Rows | None] = ()
        self._ptx: PtxFeed | None = None
        self._saved: int | None = None

    @property
    def is_on_gpu(self) -> bool:
        return self._ranks.device.type == "cuda"

    def begin(self) -> Begun:
        """By the checkpoint that the platform picked; zeros without one."""
        opened = open_checkpoint(self._context, self._ranks)
        iterations = tokens = line = 0
        if opened is not None:
            state = load_checkpoint(opened, self.model, self._optimizer, ranks=self._ranks)
            iterations, tokens, line = state.step, state.tokens, int(state.loader["line"])
            self._watch.load_state_dict(dict(state.divergence))
            self._learner.load_state_dict(state.loader["learner"])
            manifest = opened.manifest
            self._saved = iterations if manifest.run_id == self._context.spec.run_id else None
            logger.info(
                "resumed from %s of attempt %s after %d iterations", manifest.name, manifest.attempt_id, iterations
            )
        self._checkpointer.begin(self.model, self._optimizer, resumed_step=self._saved)
        if self._context.spec.data_step is not None:
            line = max(line, self._context.spec.data_step)
            logger.info("an earlier attempt diverged: what it played is passed over (line %d)", line)
        self._ptx = self._ptx_feed(seed_of_line(self._context.spec.seed, line))
        return Begun(iterations, tokens, line)

    def anchor(self, groups: Sequence[Group], version: int, lessons: Sequence[Rows | None] = ()) -> Mapping[str, float]:
        self._lessons = lessons
        minibatches = self._stage.rl.minibatches
        self._minibatches = self._learner.anchor(groups, version=version, minibatches=minibatches)
        return group_metrics(groups, version=version)

    def step(self, version: int, number: int) -> Mapping[str, float]:
        at = version * self._stage.rl.minibatches + number
        step = self._learner.step(
            at,
            self._minibatches[number],
            ptx=None if self._ptx is None else self._ptx.rows(at),
            critic=self._lessons[number] if self._lessons else None,
            critic_weight=0.0 if self._stage.rl.critic is None else self._stage.rl.critic.refinement.weight,
            lr_scale=lr_scale(self._stage.rl, version),
        )
        return step.metrics

    def weights(self) -> Mapping[str, Tensor]:
        """By logical name, as they are now; steps change them. What the last steps held is given back."""
        self._minibatches, self._lessons = (), ()
        return self.model.state_dict()

    def save(self, iterations: int, tokens: int, line: int, *, now: bool) -> list[Mapping[str, float]]:
        """A checkpoint: `now`, and then it is committed when this returns, or where one is due. Metrics of saves that have ended, with their `step`."""
        if (now or self._checkpointer.is_due(iterations)) and self._saved != iterations:
            self._saved = iterations
            self._checkpointer.save(self.model, self._optimizer, self._state(iterations, tokens, line))
        if now:
            self._checkpointer.finish()
        self._checkpointer.raise_failure()
        return [{**report.metrics(), "step": report.step} for report in self._checkpointer.take_reports()]

    def close(self) -> None:
        """The loop has failed: a save in flight is of good weights and still worth having."""
        try:
            self._checkpointer.finish()
        except (AbruzziError, OSError) as error:
            logger.warning("The last save failed too: %s", error)

    def _state(self, iterations: int, tokens: int, line: int) -> TrainingState:
        return TrainingState(
            step=iterations,
            tokens=tokens,
            phase="rl",
            lr_scale=lr_scale(self._stage.rl, max(0, iterations - 1)),
            loader={"learner": self._learner.state_dict(), "line": line},
            divergence=self._watch.state_dict(),
            config={**self._context.spec.config, "model": self._table},
            random=capture_all(self._ranks),
        )

    def _ptx_feed(self, seed: int) -> PtxFeed | None:
        rl = self._stage.rl
        if not rl.ptx_sequences:
            return None
        dataset = self._context.input("dataset").folder
        feed = PtxFeed(dataset, sequences=rl.ptx_sequences, length=rl.ptx_length, seed=seed)
        if feed.vocab_size > self.model.config.vocab_size:
            raise AbruzziError(
                "bad_data",
                f"The dataset has {feed.vocab_size} tokens in its vocabulary, the model {self.model.config.vocab_size}.",
                hint="Give the stage the dataset that its checkpoint was trained on.",
            )
        return feed


def _has_read(read: Callable[[Decoder], None], model: Decoder) -> bool:
    try:
        read(model)
    except WeightUpdateFailed as error:
        logger.warning("%s It is read by this process alone.", error)
        return False
    return True


def seed_of_line(seed: int, line: int) -> int:
    return seed + line * _LINE_SEEDS


def facts_of(registered: Registered) -> dict[str, Any]:
    """For the journal: the version, and one checksum of all weights."""
    told = "".join(f"{name} {registered.sums[name]}\n" for name in sorted(registered.sums))
    return {"version": registered.version, "checksum": hashlib.sha256(told.encode()).hexdigest()[:16]}


def lr_scale(config: RlConfig, iteration: int) -> float:
    """Share of the peak rate in an iteration, from 0: linear warm-up, then constant."""
    return min(1.0, (iteration + 1) / config.warmup_iterations) if config.warmup_iterations else 1.0
