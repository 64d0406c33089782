"""The training loop and what surrounds it: resume, metrics, held-out looks, checkpoints, stopping. The arithmetic is in trainer.py.

Everything that may change weights depends on the spec, the inputs and the checkpoint alone, so that a run that was killed and resumed ends
with the same bits as one that was not; clocks only decide when to save and what to print.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from abruzzi.client.stage import Preempted, Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import TrainingStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi.contracts.timeline import TIMELINE_FILE
from abruzzi.contracts.training import MemoryConfig
from abruzzi.contracts.training import OptimizerConfig as OptimizerTable
from abruzzi.contracts.training import YarnConfig as YarnTable
from abruzzi_jobs.checkpoint import Checkpointer, Peers, TrainingState, load_checkpoint, open_checkpoint
from abruzzi_jobs.checkpoint.randomness import capture_all
from abruzzi_jobs.checkpoint.seal import Seal, refuse_broken
from abruzzi_jobs.checkpoint.state import resident_of
from abruzzi_jobs.checkpoint.tensor_file import OPTIMIZER, WEIGHTS
from abruzzi_jobs.distributed import Ranks, node_name
from abruzzi_jobs.distributed.whole import WholeModel, WholeOptimizer
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.memory import Ledger, MemoryPolicy
from abruzzi_jobs.models import Decoder, model_from_table
from abruzzi_jobs.optim import MuonClip, OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch, note_divergence
from abruzzi_jobs.train.feed import Feeding
from abruzzi_jobs.train.metrics import rank_metrics, spectral_metrics, step_metrics, update_metrics
from abruzzi_jobs.train.parallel import ParallelTrainer
from abruzzi_jobs.train.progress import Pace, duration
from abruzzi_jobs.train.replicas import compare_replicas
from abruzzi_jobs.train.schedule import Phase, Schedule
from abruzzi_jobs.train.stragglers import Straggler, StragglerWatch
from abruzzi_jobs.train.timeline import gather
from abruzzi_jobs.train.trainer import StepResult, Trainer

logger = logging.getLogger(__name__)

_HELD_OUT_LOOKS = 12
_NODE_ROOM_BYTES = 253
"""Of a node's name: a DNS name's."""
GIVEN = "checkpoint"
"""The input with weights to begin with, where a stage has one."""
_MEASURE_EVERY_STEPS = 10
"""RMS of the updates: a pass more over them, so not at every step."""
_TIMELINE_STEP = 10
"""Of an attempt: the step whose timeline is kept. The first ones allocate and warm up."""


class Training:
    """Of `model` by `stage`'s optimizer on `feed`. `table` is what checkpoints say of it: the stage's resolved table, with
    the model's. `origin`: a sentence for the log, where it does not resume."""

    def __init__(
        self,
        context: StageContext,
        reporter: Reporter,
        stage: TrainingStage,
        ranks: Ranks,
        *,
        model: Decoder | WholeModel,
        schedule: Schedule,
        feed: Feeding,
        table: Mapping[str, Any],
        origin: str,
    ) -> None:
        self.context, self.reporter, self.stage, self.ranks = context, reporter, stage, ranks
        self.model, self.schedule, self.feed = model, schedule, feed
        self._table, self._origin = table, origin
        self.watch = DivergenceWatch()
        self.optimizer: MuonClip | ShardedMuonClip
        self.trainer: Trainer | ParallelTrainer
        micro_sequences = stage.batch.micro_sequences
        if isinstance(model, WholeModel):
            self.optimizer = model.optimizer
            self._saved_optimizer: MuonClip | WholeOptimizer = WholeOptimizer(model.optimizer)
            dtype = MemoryPolicy.from_dict(stage.memory.model_dump()).compute_dtype
            self.trainer = ParallelTrainer(
                model.chunks, model.optimizer, model.optimizer.mesh, dtype=dtype, micro_sequences=micro_sequences,
                watch=self.watch,
            )  # fmt: skip
        else:
            self.optimizer = self._saved_optimizer = optimizer_of(stage.id, stage.optimizer, model)
            self.trainer = Trainer(model, self.optimizer, ranks, micro_sequences=micro_sequences, watch=self.watch)
        self.held_out = feed.held_out(stage.telemetry.held_out_sequences)
        self.checkpointer: Checkpointer | None = None
        """On ranks that save: all of a layout; the first of data-parallel ranks, which have all the same."""
        if isinstance(model, WholeModel):
            self.checkpointer = Checkpointer(context, stage.checkpoint, peers=Peers(ranks))
        elif ranks.rank == 0:
            self.checkpointer = Checkpointer(context, stage.checkpoint)
        self.pace = Pace(schedule.total_steps)
        shares = model.optimizer.mesh.layout.shares if isinstance(model, WholeModel) else [0] * ranks.world_size
        self.stragglers = StragglerWatch(shares)
        self.straggler: Straggler | None = None
        """Of the last steps."""
        self._nodes: list[str] = []
        self.step = self.tokens = 0
        self.valid_loss: float | None = None
        self._seal: Seal | None = None
        """Of weights and optimizer state as the last update left them, in runs that look for silent corruption."""
        self._saved_step: int | None = None
        self._timeline_step = 0
        self._counts = not MemoryPolicy.from_dict(stage.memory.model_dump()).keeps_all
        self._lr_scale = 0.0
        self._loss: float | None = None

    def run(self) -> None:
        """Raises Preempted when it was told to stop, AbruzziError `divergence`, `disk_full` and what else ends a stage."""
        self._introduce()
        self._resume()
        self._seal = self._sealed()
        if self.checkpointer is not None:
            self.checkpointer.begin(self.model, self._saved_optimizer, resumed_step=self._saved_step)
        try:
            self._loop()
        except BaseException as error:
            self._finish_last_save()
            if isinstance(error, AbruzziError) and error.code == "divergence" and self.ranks.rank == 0:
                note_divergence(self.context, error, step=self.step, data_step=self.feed.data_step(self.step) + 1)
            raise
        self.ranks.barrier()  # all end together: the launcher stops what outlives a failed peer
        self._beat("done")
        logger.info("Trained %d steps on %s tokens; final loss %s.", self.step, f"{self.tokens:,}", _number(self._loss))

    def _loop(self) -> None:
        total = self.schedule.total_steps
        self._timeline_step = min(self.step + _TIMELINE_STEP, total)
        self.pace.mark(self.step, self.tokens)
        self._save_or_stop(began=False)
        while self.step < total:
            self._one_step()
            self._look_at_held_out()
            self._save_or_stop(began=True)
        if self._saved_step != self.step:
            self._save()
        if self.checkpointer is not None:
            self.checkpointer.finish()
            self._report_saves()

    def _one_step(self) -> None:
        began = time.perf_counter()
        phase, rows = self.feed.next(self.step)
        self._begin(phase)
        self._beat(phase.name, even_steps=True)
        self._lr_scale = self.schedule.lr_scale(self.step)
        measure = self.step % _MEASURE_EVERY_STEPS == 0
        ledgers = self._ledgers() if self._counts else []
        replays = self.stage.telemetry.replay_every_steps
        replay = replays > 0 and (self.step + 1) % replays == 0
        result = self.trainer.step(
            self.step, rows, sequences=phase.sequences, lr_scale=self._lr_scale, measure=measure, replay=replay,
            before_update=self._refuse_broken_seal,
        )  # fmt: skip
        self._counts = False
        self.step += 1
        self._seal = self._sealed()
        if replay:
            self._compare_replicas()
        self.tokens += phase.sequences * phase.sequence_length
        self._loss = result.loss
        self._note_straggler(result, phase)
        self.pace.mark(self.step, self.tokens)
        seconds = time.perf_counter() - began
        every = self.stage.telemetry.spectral_every_steps
        spectral = {}
        if every and self.step % every == 0 and (self.ranks.rank == 0 or isinstance(self.model, WholeModel)):
            spectral = spectral_metrics(self.optimizer)  # of matrices that several ranks have, all of them know
        if self.step == self._timeline_step:
            self._keep_timeline(seconds)
        if self.ranks.rank == 0:
            self._report(result, phase, seconds, measured=measure, spectral=spectral)
            if ledgers:
                self._report_activations(ledgers)

    def _sealed(self) -> Seal | None:
        if self.stage.telemetry.replay_every_steps == 0:
            return None
        return Seal({WEIGHTS: resident_of(self.model), OPTIMIZER: resident_of(self._saved_optimizer)})

    def _refuse_broken_seal(self) -> None:
        """Raises AbruzziError `corruption`."""
        if self._seal is not None and (now := self._sealed()) is not None:
            what = f"Step {self.step}: changed since the last update, by nothing that trains"
            refuse_broken(self._seal.broken(now), what=what, rank=self.ranks.rank)

    def _compare_replicas(self) -> None:
        """Where they are equal by their bits: copies of the owner's, or made by the same arithmetic. Accelerators may differ in the latter."""
        is_copied = isinstance(self.model, WholeModel)
        if self._seal is not None and self.ranks.world_size > 1 and (is_copied or self.ranks.device.type == "cpu"):
            compare_replicas(self.step, self._seal, self.ranks, self._nodes)

    def _begin(self, phase: Phase) -> None:
        """At each step, so that whoever resumes inside a phase has its positions too."""
        if phase.yarn is not None and phase.yarn != self.model.config.yarn:
            self.model.set_yarn(phase.yarn)
            logger.info("%s: positions turn by YaRN, factor %g", phase.name, phase.yarn.factor)

    def _note_straggler(self, result: StepResult, phase: Phase) -> None:
        work = (phase.sequences, phase.sequence_length)
        before, self.straggler = self.straggler, self.stragglers.note(result.rank_seconds, work=work)
        found = self.straggler
        if found is not None and self.ranks.rank == 0 and (before is None or before.rank != found.rank):
            logger.warning("step %d: %s; all others wait for it", self.step, self._told(found))

    def _told(self, found: Straggler) -> str:
        node = self._nodes[found.rank]
        return f"rank {found.rank} on {node} takes {found.slowdown:.1f} times as long as {found.expected_by} (z-score {found.z_score:.0f})"

    def _report(
        self, result: StepResult, phase: Phase, seconds: float, *, measured: bool, spectral: Mapping[str, float]
    ) -> None:
        lr = self.stage.optimizer.peak_lr * self._lr_scale
        found = step_metrics(
            result,
            lr=lr,
            tokens=self.tokens,
            seconds=seconds,
            tokens_per_second=phase.sequences * phase.sequence_length / seconds,
        )
        if measured:
            found |= update_metrics(self.optimizer)
        found |= rank_metrics(result.rank_seconds)
        found |= spectral
        self.reporter.log(found, step=self.step)
        if self.pace.line_is_due() or self.step == self.schedule.total_steps:
            logger.info(
                "step %d/%d  loss %.4f  lr %.2e  grad %.2f  max logit %.1f  clipped %d  %s tokens/s  ETA %s",
                self.step, self.schedule.total_steps, result.loss, lr, result.grad_norm, found["train/max_logit"],
                result.clip.clipped_heads, f"{self.pace.tokens_per_second:,.0f}", duration(self.pace.seconds_left or 0),
            )  # fmt: skip

    def _keep_timeline(self, seconds: float) -> None:
        """As a file of the stage's; that it cannot be kept ends nothing. All ranks of a pipeline take part."""
        if not isinstance(self.trainer, ParallelTrainer) or self.trainer.mesh.layout.pp == 1:
            return
        found = gather(self.trainer.spans(), self.trainer.mesh, self._nodes, step=self.step, step_seconds=seconds)
        if self.ranks.rank > 0:
            return
        path, name = self.context.scratch / TIMELINE_FILE, f"timeline-{self.step:08d}"
        try:
            path.write_text(json.dumps(found.as_dict()))
            self.context.commit(ArtifactKind.FILES, name, {path.name: path}, found.facts(), self.step)
        except (OSError, AbruzziError) as error:
            logger.warning("the timeline of step %d is not kept: %s", self.step, error)

    def _report_activations(self, ledgers: Sequence[Ledger]) -> None:
        """What one micro-batch keeps between forward and backward, in this rank's layers."""
        device, host, plain = (
            float(sum(getattr(ledger, f"{place}_bytes") for ledger in ledgers)) for place in ("device", "host", "plain")
        )
        logger.info(
            "activations of a micro-batch: %.2f MB on the device, %.2f MB on the host; %.2f MB were all kept",
            device / 1e6, host / 1e6, plain / 1e6,
        )  # fmt: skip
        self.reporter.log(
            {"memory/activations_device_bytes": device, "memory/activations_host_bytes": host, "memory/activations_plain_bytes": plain},
            step=self.step,
        )  # fmt: skip

    def _ledgers(self) -> list[Ledger]:
        decoders = list(self.model.chunks.values()) if isinstance(self.model, WholeModel) else [self.model]
        return [decoder.activations.count(decoder) for decoder in decoders]

    def _look_at_held_out(self) -> None:
        total, every = self.schedule.total_steps, self.stage.telemetry.held_out_every_steps
        if every is None:
            every = max(1, total // _HELD_OUT_LOOKS)
        if self.held_out is None or every == 0 or (self.step % every and self.step != total):
            return
        self._beat("evaluate")
        self.valid_loss, bits = self.trainer.held_out_loss(self.held_out)
        if self.ranks.rank == 0:
            self.reporter.log({"valid/loss": self.valid_loss, "valid/bits_per_byte": bits}, step=self.step)

    def _save_or_stop(self, *, began: bool) -> None:
        """Rank 0 knows when a checkpoint is due, any rank may have been told to stop: all agree, at the same step."""
        is_first = self.ranks.rank == 0
        due = began and is_first and self.checkpointer is not None and self.checkpointer.is_due(self.step)
        votes = torch.tensor([int(self.context.stop_requested.is_set()), int(due)], device=self.ranks.device)
        stop, save = (bool(vote) for vote in self.ranks.max_(votes).tolist())
        total = self.schedule.total_steps
        if self.step >= total:
            return  # the last save follows at once
        if save or (stop and began):
            self._save()
        self._report_saves()
        if stop:
            if self.checkpointer is not None:
                self.checkpointer.finish()
            self.ranks.barrier()
            raise Preempted(
                f"Told to stop: {'saved' if began else 'nothing new to save at'} step {self.step} of {total}."
            )

    def _save(self) -> None:
        """All ranks take part. Nothing is done for a step that is saved already."""
        if self._saved_step == self.step:
            return
        self._beat("save")
        self._compare_replicas()
        random = capture_all(self.ranks)
        self._saved_step = self.step
        if self.checkpointer is None:
            return
        _, phase = self.schedule.phase_at(self.step)
        state = TrainingState(
            step=self.step,
            tokens=self.tokens,
            phase=phase.name,
            lr_scale=self._lr_scale,
            loader=self.feed.state_dict(),
            divergence=self.watch.state_dict(),
            config=self._table_now(),
            random=random,
            loss=self._loss,
            valid_loss=self.valid_loss,
        )
        self.checkpointer.save(self.model, self._saved_optimizer, state, about=self._about(), seal=self._seal)

    def _about(self) -> dict[str, Any]:
        """For who evaluates the checkpoint: tokens of the longest sequences that it has seen, here or before, and the YaRN that they were turned by."""
        seen = [phase.sequence_length for phase in self.schedule.phases if phase.first_step < self.step]
        if GIVEN in self.context.spec.inputs:
            seen.append(int(self.context.input(GIVEN).manifest.meta.get("trained_length") or 0))
        yarn = self.model.config.yarn
        turned = {} if yarn is None else {"yarn": YarnTable.model_validate(asdict(yarn)).said}
        return {"trained_length": max(seen), **turned}

    def _table_now(self) -> Mapping[str, Any]:
        """With the positions that the weights were trained with last: what serves or evaluates the checkpoint turns them so."""
        yarn = self.model.config.yarn
        return {**self._table, "model": {**self._table["model"], "yarn": None if yarn is None else asdict(yarn)}}

    def _report_saves(self) -> None:
        if self.checkpointer is not None:
            self.checkpointer.raise_failure()
            for report in self.checkpointer.take_reports():
                self.reporter.log(report.metrics(), step=report.step)

    def _finish_last_save(self) -> None:
        """The loop has failed: the save in flight is of good weights and still worth having."""
        if self.checkpointer is not None:
            try:
                self.checkpointer.finish()
            except (AbruzziError, OSError, RuntimeError) as error:  # RuntimeError: another rank is gone
                logger.warning("The last save failed too: %s", error)

    def _resume(self) -> None:
        self._load()
        if self.context.spec.data_step is not None:
            passed = self.feed.pass_over(self.step, self.context.spec.data_step)
            if passed:
                logger.info(
                    "an earlier attempt diverged: the data of %d steps, up to step %d, is passed over",
                    passed, self.context.spec.data_step,
                )  # fmt: skip

    def _load(self) -> None:
        self._beat("load")
        opened = open_checkpoint(self.context, self.ranks)
        if opened is None:
            logger.info("%s", self._origin)
            return
        state = load_checkpoint(opened, self.model, self._saved_optimizer, ranks=self.ranks)
        self.step, self.tokens, self.valid_loss = state.step, state.tokens, state.valid_loss
        self._loss, self._lr_scale = state.loss, state.lr_scale
        self.watch.load_state_dict(dict(state.divergence))
        manifest = opened.manifest
        is_own = manifest.run_id == self.context.spec.run_id
        self._saved_step = self.step if is_own else None
        try:
            self.feed.load_state_dict(dict(state.loader))
        except AbruzziError as error:
            if is_own:
                raise
            # A branch may change the seed, the length or the data: it goes on with these weights, on an order of its own.
            logger.info("branched with another order of data (%s): reading from its beginning", error.message)
        logger.info("resumed from %s of attempt %s at step %d", manifest.name, manifest.attempt_id, self.step)

    def _introduce(self) -> None:
        self._nodes = self.ranks.texts(node_name(), room=_NODE_ROOM_BYTES)
        statistics = self.optimizer.statistics()
        logger.info(
            "model: %.2f M parameters; Muon owns %d matrices (%.2f M parameters), AdamW %.2f M",
            (statistics.muon_parameters + statistics.adamw_parameters) / 1e6, statistics.muon_matrices,
            statistics.muon_parameters / 1e6, statistics.adamw_parameters / 1e6,
        )  # fmt: skip
        logger.info(
            "%d steps in %d phases; rank %d of %d on %s, %d threads, %s",
            self.schedule.total_steps, len(self.schedule.phases), self.ranks.rank, self.ranks.world_size,
            self.ranks.device, torch.get_num_threads(), self.stage.memory.dtype,
        )  # fmt: skip

    def _beat(self, phase: str, *, even_steps: bool = False) -> None:
        message = ""
        if self._loss is not None:
            left = self.pace.seconds_left
            message = f"loss {self._loss:.3f}, {self.pace.tokens_per_second:,.0f} tokens/s"
            message += "" if left is None else f", {duration(left)} left"
        if self.straggler is not None:
            message += f"; {self._told(self.straggler)}"
        self.reporter.heartbeat(
            self.step, phase, total_steps=self.schedule.total_steps, message=message, even_steps=even_steps
        )


def build_model(stage: TrainingStage, ranks: Ranks, table: Mapping[str, Any], *, seed: int | None) -> Decoder:
    """Of a `[stage.model]` table, in the stage's precision, whole on every rank. Raises AbruzziError `invalid_config`."""
    refuse_other_ranks(stage, ranks)
    for key in ("pp", "vpp", "ep"):
        value = getattr(stage.parallel, key)
        if value > 1:
            raise AbruzziError(
                "invalid_config",
                f"Stage {stage.id!r}: parallel.{key} = {value} is not executed by stages of kind {stage.kind}, which train on data-parallel ranks.",
                hint=f"Leave parallel.{key} at 1 and set resources.ranks; stages of kind pretrain take any layout.",
            )
    return model_of(stage.id, stage.memory, ranks, table, seed=seed)


def model_of(
    stage_id: str, memory: MemoryConfig, ranks: Ranks, table: Mapping[str, Any], *, seed: int | None
) -> Decoder:
    """`seed` None: weights are loaded later. Raises AbruzziError `invalid_config`."""
    try:
        policy = MemoryPolicy.from_dict(memory.model_dump())
        model = model_from_table(table, device=ranks.device, dtype=policy.compute_dtype, seed=seed)
    except (ValueError, TypeError) as error:
        raise AbruzziError("invalid_config", f"Stage {stage_id!r}: {error}.") from error
    model.activations.policy = policy
    return model


def optimizer_of(stage_id: str, config: OptimizerTable, model: Decoder) -> MuonClip:
    """Over all parameters. Raises AbruzziError `invalid_config`."""
    try:
        return build_optimizer(
            model.named_parameters(), OptimizerConfig.from_dict(config.model_dump()), model=model.config
        )
    except ValueError as error:
        raise AbruzziError("invalid_config", f"Stage {stage_id!r}: {error}.") from error


def refuse_other_ranks(stage: TrainingStage, ranks: Ranks) -> None:
    if stage.resources.ranks != ranks.world_size:
        raise AbruzziError(
            "invalid_config",
            f"Stage {stage.id!r}: resources.ranks is {stage.resources.ranks}, but {ranks.world_size} ranks were started.",
            hint="The launcher starts as many as the spec's world_size says.",
        )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
