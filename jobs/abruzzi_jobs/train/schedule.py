"""Learning rate and sequence length by step: warm-up, stable, cosine decay (WSD), then annealing phases (paper section 2.5). Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from abruzzi.contracts.recipe import SftScheduleConfig
from abruzzi.contracts.training import BatchConfig, ScheduleConfig
from abruzzi_jobs.models.config import YarnConfig


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps [first_step, first_step + steps) with one sequence length."""

    name: str
    first_step: int
    steps: int
    sequence_length: int
    sequences: int
    """A step, over all ranks."""
    yarn: YarnConfig | None = None
    """Of the phase; None: as the model has it."""

    @property
    def end_step(self) -> int:
        return self.first_step + self.steps


@dataclass(frozen=True, slots=True)
class Schedule:
    phases: tuple[Phase, ...]
    warmup_steps: int
    decay_steps: int
    decay_lr_ratio: float
    anneal_ends: tuple[float, ...]
    """lr ratio at the end of each annealing phase."""

    @property
    def total_steps(self) -> int:
        return self.phases[-1].end_step

    def phase_at(self, step: int) -> tuple[int, Phase]:
        """(index, phase) of step `step`, from 0."""
        for index, phase in enumerate(self.phases):
            if step < phase.end_step:
                return index, phase
        return len(self.phases) - 1, self.phases[-1]

    def lr_scale(self, step: int) -> float:
        """Share of the peak rate at step `step`, from 0: linear warm-up, 1, cosine to decay_lr_ratio, then linear to each annealing end."""
        index, phase = self.phase_at(step)
        if index == 0:
            if step < self.warmup_steps:
                return (step + 1) / self.warmup_steps
            into = step - (phase.steps - self.decay_steps)
            if into < 0 or self.decay_steps == 0:
                return 1.0
            share = (into + 1) / self.decay_steps
            return self.decay_lr_ratio + (1 - self.decay_lr_ratio) * 0.5 * (1 + math.cos(math.pi * share))
        start = self.anneal_ends[index - 2] if index > 1 else self.decay_lr_ratio if self.decay_steps else 1.0
        share = (min(step, phase.end_step - 1) - phase.first_step + 1) / phase.steps
        return start + (self.anneal_ends[index - 1] - start) * share


def build_schedule(schedule: ScheduleConfig, batch: BatchConfig, *, world_size: int) -> Schedule:
    """Whole steps: a remainder of tokens that fills no step is left out; each phase has one step at least."""
    tokens_step = batch.sequences * batch.sequence_length
    steps = max(1, schedule.tokens // tokens_step)
    phases = [Phase("train", 0, steps, batch.sequence_length, batch.sequences)]
    for number, anneal in enumerate(schedule.anneal, 1):
        length = anneal.sequence_length or batch.sequence_length
        sequences = anneal.sequences or max(world_size, tokens_step // length // world_size * world_size)
        yarn = phases[-1].yarn if anneal.yarn is None else YarnConfig.from_dict(anneal.yarn.model_dump())
        first = phases[-1].end_step
        phases.append(
            Phase(f"anneal-{number}", first, max(1, anneal.tokens // (sequences * length)), length, sequences, yarn)
        )
    warmup = min(schedule.warmup_steps, steps)
    decay = min(steps - warmup, round(steps * schedule.decay_fraction))
    return Schedule(
        tuple(phases), warmup, decay, schedule.decay_lr_ratio, tuple(a.end_lr_ratio for a in schedule.anneal)
    )


def schedule_of_epochs(schedule: SftScheduleConfig, batch: BatchConfig, *, rows: int) -> Schedule:
    """As many whole steps as show each of `rows` packed rows `epochs` times, one at least."""
    steps = max(1, math.ceil(schedule.epochs * rows / batch.sequences))
    warmup = min(schedule.warmup_steps, steps)
    decay = min(steps - warmup, round(steps * schedule.decay_fraction))
    phase = Phase("train", 0, steps, batch.sequence_length, batch.sequences)
    return Schedule((phase,), warmup, decay, schedule.decay_lr_ratio, ())
