"""Stage `pretrain`: trains the model on a tokenized dataset with MuonClip; resumes bit for bit from the checkpoint that the platform picks."""

from __future__ import annotations

import logging
import os
import time

import torch

from abruzzi.client.stage import LocalArtifact, Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import PretrainStage
from abruzzi_jobs.checkpoint import Checkpointer, TrainingState, load_checkpoint
from abruzzi_jobs.distributed import Ranks, start_ranks, stop_ranks
from abruzzi_jobs.entrypoints.main import Preempted
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Feed
from abruzzi_jobs.train.metrics import optimizer_metrics, step_metrics
from abruzzi_jobs.train.schedule import Schedule, build_schedule
from abruzzi_jobs.train.trainer import StepResult, Trainer

logger = logging.getLogger(__name__)
_LINE_SECONDS = 5.0
_HELD_OUT_SEQUENCES = 16
_HELD_OUT_LOOKS = 12
_RATE_MEMORY = 0.9


def run(context: StageContext, reporter: Reporter) -> None:
    stage = PretrainStage.model_validate(context.spec.config)
    torch.set_num_threads(stage.resources.threads or int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.manual_seed(context.spec.seed)
    ranks = start_ranks()
    try:
        Pretraining(context, reporter, stage, ranks).run()
    finally:
        stop_ranks()


class Pretraining:
    """The loop and what surrounds it; the arithmetic is in train/trainer.py."""

    def __init__(self, context: StageContext, reporter: Reporter, stage: PretrainStage, ranks: Ranks) -> None:
        self.context, self.reporter, self.stage, self.ranks = context, reporter, stage, ranks
        try:
            policy = MemoryPolicy.from_dict(stage.memory.model_dump())
            model_config = ModelConfig.from_dict(stage.model.model_dump())
            self.model = KimiK2(model_config, device=ranks.device, dtype=policy.compute_dtype, seed=context.spec.seed)
            optimizer_config = OptimizerConfig.from_dict(stage.optimizer.model_dump())
            self.optimizer = build_optimizer(self.model.named_parameters(), optimizer_config, model=model_config)
        except ValueError as error:
            raise AbruzziError("invalid_config", str(error)) from error
        self.schedule: Schedule = build_schedule(stage.schedule, stage.batch, world_size=ranks.world_size)
        dataset = context.input("dataset")
        self.feed = Feed(
            dataset.folder, self.schedule, seed=context.spec.seed, rank=ranks.rank, world_size=ranks.world_size
        )
        if self.feed.vocab_size > stage.model.vocab_size:
            raise AbruzziError(
                "bad_data",
                f"The dataset has {self.feed.vocab_size} tokens in its vocabulary, the model {stage.model.vocab_size}.",
                hint="Set model.vocab_size to the tokenizer's.",
            )
        self.watch = DivergenceWatch()
        self.trainer = Trainer(self.model, self.optimizer, ranks, stage.batch, watch=self.watch)
        self.checkpointer = Checkpointer(context, stage.checkpoint) if ranks.rank == 0 else None
        self.step = self.tokens = 0
        self.rate = 0.0
        self._loss = float("nan")
        self._line_at = 0.0

    def run(self) -> None:
        statistics = self.optimizer.statistics()
        logger.info(
            "model: %.2f M parameters; Muon owns %d matrices (%.2f M parameters), AdamW %.2f M; %d steps; %d threads on %s, rank %d of %d",
            (statistics.muon_parameters + statistics.adamw_parameters) / 1e6, statistics.muon_matrices, statistics.muon_parameters / 1e6,
            statistics.adamw_parameters / 1e6, self.schedule.total_steps, torch.get_num_threads(), self.ranks.device, self.ranks.rank, self.ranks.world_size,
        )  # fmt: skip
        self._resume()
        held_out = self.feed.held_out(_HELD_OUT_SEQUENCES) if self.ranks.rank == 0 else None
        look_every = max(1, self.schedule.total_steps // _HELD_OUT_LOOKS)
        total = self.schedule.total_steps
        while self.step < total:
            began = time.monotonic()
            phase, tokens_BL, segments_BL = self.feed.next(self.step)
            self._beat(phase.name)
            every = self.stage.telemetry.spectral_every_steps
            measure = every > 0 and self.step % every == 0
            lr_scale = self.schedule.lr_scale(self.step)
            result = self.trainer.step(
                self.step, tokens_BL, segments_BL, sequences=phase.sequences, lr_scale=lr_scale, measure=measure
            )
            self.step += 1
            step_tokens = phase.sequences * phase.sequence_length
            self.tokens += step_tokens
            self._report(result, time.monotonic() - began, step_tokens, lr_scale, measure)
            if held_out is not None and (self.step % look_every == 0 or self.step == total):
                self.reporter.log({"valid/loss": self.trainer.held_out_loss(*held_out)}, step=self.step)
            self._save_or_stop(total)
        self._finish()

    def _resume(self) -> None:
        artifact = self.context.resume()
        if artifact is None:
            logger.info("starting from fresh weights")
            return
        self.reporter.heartbeat(artifact.manifest.step or 0, "load", total_steps=self.schedule.total_steps)
        state = load_checkpoint(artifact, self.model, self.optimizer)
        self.step, self.tokens = int(state["step"]), int(state["tokens"])
        self.watch.load_state_dict(state["divergence"])
        self._restore_feed(artifact, state["loader"])
        if self.ranks.rank > 0:
            torch.manual_seed(self.context.spec.seed + 7919 * self.ranks.rank + self.step)
        logger.info(
            "resumed from %s of attempt %s at step %d", artifact.manifest.name, artifact.manifest.attempt_id, self.step
        )

    def _restore_feed(self, artifact: LocalArtifact, loader: dict[str, object]) -> None:
        try:
            self.feed.load_state_dict(loader)
        except AbruzziError:
            if artifact.manifest.run_id == self.context.spec.run_id:
                raise
            # A branch may change the seed, the length or the data: it goes on with these weights, on an order of its own.
            logger.info("branched with another data order: reading from its beginning")
            self.feed = Feed(
                self.context.input("dataset").folder,
                self.schedule,
                seed=self.context.spec.seed,
                rank=self.ranks.rank,
                world_size=self.ranks.world_size,
            )

    def _report(self, result: StepResult, seconds: float, tokens: int, lr_scale: float, measure: bool) -> None:
        now_rate = tokens / seconds
        self.rate = now_rate if self.rate == 0 else _RATE_MEMORY * self.rate + (1 - _RATE_MEMORY) * now_rate
        if self.ranks.rank > 0:
            return
        lr = self.stage.optimizer.peak_lr * lr_scale
        found = step_metrics(result, lr=lr, tokens=self.tokens, seconds=seconds, tokens_per_second=now_rate)
        if self.checkpointer is not None and self.checkpointer.stored_bytes:
            found["train/checkpoint_bytes"] = float(self.checkpointer.stored_bytes)
        self.reporter.log(found, step=self.step)
        if measure:
            self.reporter.log(optimizer_metrics(self.optimizer), step=self.step)
        if time.monotonic() - self._line_at >= _LINE_SECONDS or self.step == self.schedule.total_steps:
            self._line_at = time.monotonic()
            left = (self.schedule.total_steps - self.step) * seconds
            logger.info(
                "step %d/%d  loss %.4f  lr %.2e  grad %.2f  max logit %.1f  clipped %d  %.0f tokens/s  ETA %.0f s",
                self.step, self.schedule.total_steps, result.loss, lr, result.grad_norm, float(result.max_logit_YH.max()), result.clip.clipped_heads,
                self.rate, left,
            )  # fmt: skip
        self._loss = result.loss

    def _beat(self, phase: str) -> None:
        message = f"loss {self._loss:.3f}, {self.rate:,.0f} tokens/s" if self.rate else ""
        self.reporter.heartbeat(self.step, phase, total_steps=self.schedule.total_steps, message=message)

    def _save_or_stop(self, total: int) -> None:
        """Rank 0 knows when a checkpoint is due, any rank may have been told to stop: all agree, at the same step."""
        stop = self.ranks.any(self.context.stop_requested.is_set())
        if stop and self.step < total:
            self._save(wait=True)
            raise Preempted(f"Told to stop: saved step {self.step} of {total}.")
        if self.checkpointer is not None and self.step < total and self.checkpointer.is_due(self.step):
            stall = self._save(wait=False)
            self.reporter.log({"train/checkpoint_stall_seconds": stall}, step=self.step)

    def _save(self, *, wait: bool) -> float:
        if self.checkpointer is None:
            return 0.0
        self.reporter.heartbeat(self.step, "save", total_steps=self.schedule.total_steps)
        state = TrainingState(
            step=self.step,
            tokens=self.tokens,
            loader=self.feed.state_dict(),
            divergence=self.watch.state_dict(),
            config=self.context.spec.config,
        )
        return self.checkpointer.save(self.model, self.optimizer, state, wait=wait)

    def _finish(self) -> None:
        if self.checkpointer is not None and not self._is_saved():
            self._save(wait=True)
        self.ranks.barrier()
        self.reporter.heartbeat(self.step, "done", total_steps=self.schedule.total_steps, progress=1.0)
        logger.info("done: %d steps, %s tokens", self.step, f"{self.tokens:,}")

    def _is_saved(self) -> bool:
        """This step is committed already: it is where the attempt resumed, in this very run."""
        resume = self.context.resume()
        return (
            resume is not None
            and resume.manifest.run_id == self.context.spec.run_id
            and resume.manifest.step == self.step
        )
