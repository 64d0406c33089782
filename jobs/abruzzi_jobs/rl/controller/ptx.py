"""Texts that the policy must not forget: rows of the input `dataset` beside the groups of each optimizer step (paper 3.2.3, the PTX loss)."""

from __future__ import annotations

from pathlib import Path

import torch

from abruzzi_jobs.data.tokens import TokenDataset
from abruzzi_jobs.train.feed import Rows


class PtxFeed:
    """The rows of a step follow from its number, so nothing of it is in a checkpoint."""

    def __init__(self, folder: Path, *, sequences: int, length: int, seed: int) -> None:
        self._reader = TokenDataset(folder, sequence_length=length, seed=seed)
        self._sequences = sequences

    @property
    def vocab_size(self) -> int:
        return self._reader.vocab_size

    def rows(self, step: int) -> Rows:
        self._reader.position = step * self._sequences
        batch = self._reader.next_batch(self._sequences, rank=0, world_size=1)
        tokens_BL = torch.from_numpy(batch.tokens_BL)
        return Rows(
            tokens_BL,
            torch.from_numpy(batch.segments_BL),
            target_bytes=0,
            global_targets=tokens_BL[:, 1:].numel(),
        )
