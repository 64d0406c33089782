"""Batches of the schedule's phases: one reader a phase, whose state is a few integers.

Legend: B rows of this rank, L sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from abruzzi_jobs.data.tokens import Batch, TokenDataset
from abruzzi_jobs.train.schedule import Phase, Schedule


@dataclass(frozen=True, slots=True)
class Rows:
    """Of this rank."""

    tokens_BL: Tensor
    """int64 [B, L + 1]: inputs are [:, :-1], targets [:, 1:]."""
    segments_BL: Tensor
    """int32 [B, L + 1]: attention stays within one document of a row."""
    target_bytes: int
    """UTF-8 bytes that the targets stand for; <|endoftext|> is a target of none."""
    learned_BL: Tensor | None = None
    """bool [B, L + 1]: which tokens count as targets; None: all."""
    global_targets: int | None = None
    """Of the step's rows over all ranks, where not all tokens count."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    rows: Rows
    """This rank's share; maybe none."""
    targets: int
    """Over all ranks."""


class Feeding(Protocol):
    """What a training loop asks of its data."""

    def next(self, step: int) -> tuple[Phase, Rows]: ...

    def data_step(self, step: int) -> int: ...

    def pass_over(self, step: int, data_step: int) -> int: ...

    def held_out(self, sequences: int) -> HeldOut | None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Feed:
    """The next step's rows of this rank. The global order does not depend on the number of ranks."""

    def __init__(self, folder: Path, schedule: Schedule, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self._folder, self._schedule, self._seed = folder, schedule, seed
        self._rank, self._world_size = rank, world_size
        self._index = self._shift = 0
        self._reader = self._open(0)
        self._token_bytes = np.asarray(self._reader.info.token_bytes, dtype=np.int64)

    @property
    def vocab_size(self) -> int:
        return self._reader.vocab_size

    def next(self, step: int) -> tuple[Phase, Rows]:
        """Phase and rows of step `step`, from 0."""
        index, phase = self._schedule.phase_at(step)
        if index != self._index:
            self._index, self._reader = index, self._open(index)
            self._reader.position = self._shift * phase.sequences
        batch = self._reader.next_batch(phase.sequences, rank=self._rank, world_size=self._world_size)
        return phase, self._rows(batch, slice(None))

    def data_step(self, step: int) -> int:
        """Step of an undisturbed run that has the batch which `step` has here."""
        return step + self._shift

    def pass_over(self, step: int, data_step: int) -> int:
        """At `step`, go on with the batch of `data_step` if it is not yet reached. Returns how many batches are passed over.

        The shift holds for all steps that follow, in later phases too, and is a part of the state.
        """
        more = data_step - self.data_step(step)
        if more <= 0:
            return 0
        self._shift += more
        self._reader.position += more * self._schedule.phases[self._index].sequences
        return more

    def state_dict(self) -> dict[str, Any]:
        return {"phase": self._index, "reader": self._reader.state_dict(), "shift": self._shift}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises AbruzziError bad_data when the state belongs to another dataset, seed or length."""
        index = int(state["phase"])
        reader = self._open(min(index, len(self._schedule.phases) - 1))
        reader.load_state_dict(state["reader"])
        self._index, self._reader, self._shift = index, reader, int(state.get("shift", 0))

    def held_out(self, sequences: int) -> HeldOut | None:
        """A fixed set of held-out rows, or None when there is not even one."""
        length = self._schedule.phases[0].sequence_length
        if self._reader.info.tokens("heldout") < length + 1:
            return None
        reader = TokenDataset(self._folder, sequence_length=length, seed=0, split="heldout")
        batch = reader.rows(0, min(sequences, reader.num_sequences))
        mine = self._rows(batch, slice(self._rank, None, self._world_size))
        return HeldOut(mine, batch.tokens_BL[:, 1:].size)

    def _open(self, index: int) -> TokenDataset:
        phase = self._schedule.phases[index]
        return TokenDataset(self._folder, sequence_length=phase.sequence_length, seed=self._seed + 1000 * index)

    def _rows(self, batch: Batch, mine: slice) -> Rows:
        tokens_BL, segments_BL = batch.tokens_BL[mine], batch.segments_BL[mine]
        target_bytes = int(self._token_bytes[tokens_BL[:, 1:]].sum())
        return Rows(torch.from_numpy(tokens_BL), torch.from_numpy(segments_BL), target_bytes)
