"""Batches of the schedule's phases: one reader a phase, whose state is a few integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abruzzi_jobs.data.tokens import TokenDataset
from abruzzi_jobs.train.schedule import Phase, Schedule


class Feed:
    """The next step's rows of this rank. The global order does not depend on the number of ranks."""

    def __init__(self, folder: Path, schedule: Schedule, *, seed: int, rank: int, world_size: int) -> None:
        self._folder, self._schedule, self._seed = folder, schedule, seed
        self._rank, self._world_size = rank, world_size
        self._index = 0
        self._reader = self._open(0)

    @property
    def epoch(self) -> int:
        return self._reader.epoch

    @property
    def vocab_size(self) -> int:
        return self._reader.vocab_size

    def next(self, step: int) -> tuple[Phase, Tensor, Tensor]:
        """(phase, tokens [B, L + 1], segments [B, L + 1]) of step `step`."""
        index, phase = self._schedule.phase_at(step)
        if index != self._index:
            self._index, self._reader = index, self._open(index)
        batch = self._reader.next_batch(phase.sequences, rank=self._rank, world_size=self._world_size)
        return phase, torch.from_numpy(batch.tokens_BL), torch.from_numpy(batch.segments_BL)

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self._index, "reader": self._reader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises AbruzziError bad_data when the state belongs to another dataset, seed or length."""
        self._index = int(state["phase"])
        self._reader = self._open(self._index)
        self._reader.load_state_dict(state["reader"])

    def held_out(self, sequences: int) -> tuple[Tensor, Tensor] | None:
        """A fixed batch of held-out rows, or None when there are too few."""
        info = self._reader.info
        length = self._schedule.phases[0].sequence_length
        if info.tokens("heldout") < 2 * length:
            return None
        reader = TokenDataset(self._folder, sequence_length=length, seed=0, split="heldout")
        batch = reader.next_batch(min(sequences, reader.num_sequences))
        return torch.from_numpy(batch.tokens_BL), torch.from_numpy(batch.segments_BL)

    def _open(self, index: int) -> TokenDataset:
        phase = self._schedule.phases[index]
        return TokenDataset(self._folder, sequence_length=phase.sequence_length, seed=self._seed + 1000 * index)
