"""The training loop's reader: packed sequences in a shuffled order that is one integer of state.

The shards of a split count as one stream of T tokens. Sequence i is tokens [i*L, i*L + L], L + 1 of them, so that inputs
and targets are two views; neighbours share one token and every token but the first is a target exactly once an epoch.
Global row p belongs to epoch p // n and is sequence permute(p % n) of the n; ranks take slices of a step's rows, therefore
the global order is the same for every number of ranks.

Legend: B rows of this rank, L sequence length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.permutation import permute
from abruzzi_jobs.data.shards import DatasetInfo, read_info, read_shard

_ORDER_AHEAD = 1024
"""Rows."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    tokens_BL: NDArray[np.int64]
    """[B, L + 1]: inputs are [:, :-1], targets [:, 1:]."""
    segments_BL: NDArray[np.int32]
    """[B, L + 1]: which document of its row a token belongs to, 0, 1, …; attention stays within one.
    <|endoftext|> belongs to the document that it opens; as a target it is predicted by the one that it ends."""
    position: int
    """Global row of the step's first row (over all ranks)."""


class TokenDataset:
    """Reads `split` of a dataset directory. Raises AbruzziError bad_data where it holds less than one sequence."""

    def __init__(self, directory: Path | str, *, sequence_length: int, seed: int = 0, split: str = "train") -> None:
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}; it must be at least 1")
        self.directory = Path(directory)
        self.info: DatasetInfo = read_info(self.directory)
        self.sequence_length = sequence_length
        self.seed = seed
        self.split = split
        self.position = 0
        """Global rows handed out so far, over all ranks."""
        self._ordered: tuple[int, NDArray[np.int64]] = (0, np.empty(0, dtype=np.int64))
        """The first global row, and which sequences it and the next ones are."""
        opened = [read_shard(self.directory, s, dtype=self.info.dtype) for s in self.info.of_split(split)]
        self._tokens = [tokens for tokens, _ in opened]
        self._boundaries = [boundaries for _, boundaries in opened]
        self._starts = np.concatenate([[0], np.cumsum([len(t) for t in self._tokens])]).astype(np.int64)
        self.total_tokens = int(self._starts[-1])
        self.num_sequences = max(0, self.total_tokens - 1) // sequence_length
        if self.num_sequences < 1:
            raise AbruzziError(
                "bad_data",
                f"{self.directory}: the {split} split has {self.total_tokens} tokens, less than one sequence of {sequence_length} + 1.",
                hint="Give the corpus more text or make batch.sequence_length smaller.",
            )

    @property
    def vocab_size(self) -> int:
        return self.info.vocab_size

    def next_batch(self, sequences: int, *, rank: int = 0, world_size: int = 1) -> Batch:
        """This rank's share of the next `sequences` global rows; the position moves by all of them.

        Raises ValueError when the rows cannot be shared evenly.
        """
        if sequences < 1 or sequences % world_size or not 0 <= rank < world_size:
            raise ValueError(f"next_batch: {sequences} sequences cannot be shared by rank {rank} of {world_size}")
        share = sequences // world_size
        batch = self.rows(self.position + rank * share, share, position=self.position)
        self.position += sequences
        return batch

    def rows(self, start: int, count: int, *, position: int | None = None) -> Batch:
        """Global rows start … start + count - 1; changes nothing."""
        sequences = self._order(start, count)
        width = self.sequence_length + 1
        tokens_BL = np.empty((count, width), dtype=np.int64)
        segments_BL = np.zeros((count, width), dtype=np.int32)
        for row, sequence in enumerate(sequences):
            self._read(int(sequence) * self.sequence_length, tokens_BL[row], segments_BL[row])
        np.cumsum(segments_BL, axis=1, out=segments_BL)
        return Batch(tokens_BL=tokens_BL, segments_BL=segments_BL, position=start if position is None else position)

    def state_dict(self) -> dict[str, int]:
        """Integers only; goes into the checkpoint's state.json."""
        return {
            "position": self.position,
            "seed": self.seed,
            "sequence_length": self.sequence_length,
            "total_tokens": self.total_tokens,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where the state was taken. Raises AbruzziError bad_data when it belongs to another order of rows."""
        mine = self.state_dict()
        for key in ("seed", "sequence_length", "total_tokens"):
            if state.get(key) != mine[key]:
                raise AbruzziError(
                    "bad_data",
                    f"{self.directory}: the checkpoint's loader has {key} = {state.get(key)}, this dataset {mine[key]}.",
                    hint="Resume with the dataset, seed and sequence length that the checkpoint was made with.",
                )
        self.position = int(state["position"])

    def _order(self, start: int, count: int) -> NDArray[np.int64]:
        """Which sequences the global rows start … start + count - 1 are. A permutation costs as much for a thousand rows as for a few, so those after
        them are kept, too."""
        first, kept = self._ordered
        if not first <= start <= start + count <= first + len(kept):
            positions = np.arange(start, start + max(count, min(_ORDER_AHEAD, self.num_sequences)), dtype=np.int64)
            epochs = positions // self.num_sequences
            first, kept = start, np.empty(len(positions), dtype=np.int64)
            for epoch in np.unique(epochs):
                here = epochs == epoch
                within = positions[here] - epoch * self.num_sequences
                kept[here] = permute(within, size=self.num_sequences, seed=self.seed, epoch=int(epoch))
            self._ordered = first, kept
        return kept[start - first : start - first + count]

    def _read(self, start: int, tokens_L: NDArray[np.int64], marks_L: NDArray[np.int32]) -> None:
        """Copies one row, over a shard's end if need be, and marks with 1 each document's first token after the row's own."""
        stop, done = start + len(tokens_L), 0
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while done < len(tokens_L):
            base = int(self._starts[shard])
            low, high = start + done - base, min(stop - base, len(self._tokens[shard]))
            tokens_L[done : done + high - low] = self._tokens[shard][low:high]
            boundaries = self._boundaries[shard]
            first, last = np.searchsorted(boundaries, (low, high))
            marks_L[boundaries[first:last] - low + done] = 1
            done += high - low
            shard += 1
        marks_L[0] = 0
