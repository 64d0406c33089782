"""Rows of packed conversations in a shuffled order that is one integer of state.

A row holds whole conversations one after the other, then padding. Each is a segment of its own, which attention does not leave; positions are
relative (RoPE), so a conversation in the middle of a row is computed as if it stood alone. Targets are the assistant's tokens only.

Legend: B rows of this rank, L sequence length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.permutation import permute
from abruzzi_jobs.sft.examples import Split
from abruzzi_jobs.sft.packing import pack
from abruzzi_jobs.train.feed import HeldOut, Rows
from abruzzi_jobs.train.schedule import Phase, Schedule


class PackedRows:
    def __init__(self, split: Split, *, sequence_length: int, pad: int, token_bytes: NDArray[np.int32]) -> None:
        self._split, self._pad, self._token_bytes = split, pad, token_bytes
        self.width = sequence_length + 1
        self.rows = pack(split.lengths, self.width)
        self._learned = self._learned_by_row()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fill(self) -> float:
        """Share of positions that are no padding."""
        return len(self._split.tokens) / max(1, len(self.rows) * self.width)

    def targets(self, rows: Iterable[int]) -> int:
        """Tokens that count in these rows."""
        return int(self._learned[np.asarray(list(rows), dtype=np.int64)].sum())

    def take(self, rows: NDArray[np.int64], *, global_targets: int) -> Rows:
        shape = (len(rows), self.width)
        tokens_BL, segments_BL = np.full(shape, self._pad, np.int64), np.zeros(shape, np.int32)
        learned_BL = np.zeros(shape, np.bool_)
        for row, number in enumerate(rows):
            at = 0
            for segment, example in enumerate(self.rows[int(number)]):
                start, stop = self._split.starts[example : example + 2]
                here = slice(at, at + int(stop - start))
                tokens_BL[row, here] = self._split.tokens[start:stop]
                learned_BL[row, here] = self._split.is_learned[start:stop]
                segments_BL[row, here] = segment
                at = here.stop
            segments_BL[row, at:] = len(self.rows[int(number)])
        target_bytes = int(self._token_bytes[tokens_BL[:, 1:]][learned_BL[:, 1:]].sum())
        return Rows(
            torch.from_numpy(tokens_BL), torch.from_numpy(segments_BL), target_bytes,
            learned_BL=torch.from_numpy(learned_BL), global_targets=global_targets,
        )  # fmt: skip

    def digest(self) -> str:
        """Of everything that the order of rows stands on."""
        hashed = hashlib.sha256(f"{self.width}/{self._pad}/".encode())
        for array in (self._split.tokens, self._split.is_learned, self._split.starts):
            hashed.update(array.tobytes())
        return "sha256:" + hashed.hexdigest()

    def _learned_by_row(self) -> NDArray[np.int64]:
        sums = np.concatenate([[0], np.cumsum(self._split.is_learned)])
        each = sums[self._split.starts[1:]] - sums[self._split.starts[:-1]]
        return np.array([each[row].sum() for row in self.rows], dtype=np.int64)


class ConversationFeed:
    """The next step's rows of this rank. The global order does not depend on the number of ranks."""

    def __init__(
        self,
        train: PackedRows,
        heldout: PackedRows,
        schedule: Schedule,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._train, self._heldout, self._schedule, self._seed = train, heldout, schedule, seed
        self._rank, self._world_size = rank, world_size
        self._position = self._shift = 0
        self._digest = train.digest()

    def next(self, step: int) -> tuple[Phase, Rows]:
        """Phase and rows of step `step`, from 0."""
        _, phase = self._schedule.phase_at(step)
        numbers = self._numbers(self._position, phase.sequences)
        self._position += phase.sequences
        share = phase.sequences // self._world_size
        mine = numbers[self._rank * share : (self._rank + 1) * share]
        return phase, self._train.take(mine, global_targets=self._train.targets(numbers))

    def data_step(self, step: int) -> int:
        """Step of an undisturbed run that has the batch which `step` has here."""
        return step + self._shift

    def pass_over(self, step: int, data_step: int) -> int:
        """At `step`, go on with the batch of `data_step` if it is not yet reached. Returns how many batches are passed over."""
        more = data_step - self.data_step(step)
        if more <= 0:
            return 0
        self._shift += more
        self._position += more * self._schedule.phases[0].sequences
        return more

    def held_out(self, sequences: int) -> HeldOut | None:
        """A fixed set of held-out rows, or None when there is not even one."""
        size = len(self._heldout)
        if not size:
            return None
        numbers = permute(np.arange(min(sequences, size), dtype=np.int64), size=size, seed=0, epoch=0)
        targets = self._heldout.targets(numbers)
        return HeldOut(self._heldout.take(numbers[self._rank :: self._world_size], global_targets=targets), targets)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self._position, "shift": self._shift, "seed": self._seed, "rows": self._digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises AbruzziError bad_data when the state belongs to another order of rows."""
        for key, mine in (("seed", self._seed), ("rows", self._digest)):
            if state.get(key) != mine:
                raise AbruzziError(
                    "bad_data",
                    f"The checkpoint's conversations have {key} = {state.get(key)}, these {mine}.",
                    hint="Resume with the conversations, template, seed and sequence length that it was made with.",
                )
        self._position, self._shift = int(state["position"]), int(state["shift"])

    def _numbers(self, position: int, count: int) -> NDArray[np.int64]:
        positions = np.arange(position, position + count, dtype=np.int64)
        size = len(self._train)
        epochs = positions // size
        found = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            found[here] = permute(positions[here] - epoch * size, size=size, seed=self._seed, epoch=int(epoch))
        return found
