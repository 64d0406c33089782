"""Trajectories as packed rows: sequences one after the other in rows of their own length, without padding.

Padding would be more than waste: it is routed to experts, so it would turn the router's balance, and its logits would count for QK-Clip. What comes
after a sequence's last learned token has no influence and is left out. A sequence is computed as if it stood alone, bit for bit (`models/rows.py`).

Legend: L positions of a row, T policy tokens in it that count, S its sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import TokenSource, Trajectory
from abruzzi_jobs.models import IGNORE
from abruzzi_jobs.rl.objective.advantages import Sample
from abruzzi_jobs.rl.objective.losses import Counts
from abruzzi_jobs.sft.packing import pack


@dataclass(frozen=True, slots=True)
class PackedRow:
    tokens_L: Tensor
    targets_L: Tensor
    """The next token where it counts, else IGNORE."""
    positions: tuple[int, ...]
    """Of each sequence; a trajectory has more than one where its history was begun anew."""
    temperature_T: Tensor
    """float32; 1 where the token was drawn greedily."""
    behaviour_T: Tensor
    """float32: the engine's log-probabilities."""
    age_T: Tensor
    """int64: policy versions since the token was drawn."""
    advantage_S: Tensor
    """float64"""
    length_S: Tensor
    """int64: tokens of each sequence that count."""
    anchor_T: Tensor | None = None
    """log π_old, float32. None in an iteration's first minibatch: its weights are still π_old's, so its own forward pass has them."""


@dataclass(frozen=True, slots=True)
class Minibatch:
    rows: tuple[PackedRow, ...]
    """This rank's."""
    counts: Counts
    learned_sequences: int
    """Over all ranks; 0: there is nothing to learn."""
    zero_variance_groups: int


@dataclass(frozen=True, slots=True)
class LearnedSequence:
    """What a trajectory brings into a row; N tokens up to its last one that counts."""

    sample: Sample
    lengths: tuple[int, ...]
    """Of its sequences, which sum to N: more than one where the history was begun anew (another prompt in the middle). Each is computed by itself; the
    trajectory's log-probability is the sum over all of them."""
    tokens_N: NDArray[np.int64]
    counts_N: NDArray[np.bool_]
    temperature_N: NDArray[np.float32]
    behaviour_N: NDArray[np.float32]
    age_N: NDArray[np.int64]

    @property
    def learned_tokens(self) -> int:
        return int(self.counts_N.sum())

    @property
    def positions(self) -> int:
        """Of its forward pass: the last token of a sequence is a target only."""
        return sum(self.sequence_positions)

    @property
    def sequence_positions(self) -> tuple[int, ...]:
        return tuple(length - 1 for length in self.lengths)

    def inputs(self) -> NDArray[np.int64]:
        return np.delete(self.tokens_N, np.cumsum(self.lengths) - 1)

    def targets(self) -> NDArray[np.int64]:
        """One an input."""
        begins = np.cumsum((0, *self.lengths[:-1]))
        return np.delete(np.where(self.counts_N, self.tokens_N, IGNORE), begins)


def learned_sequence(sample: Sample, config: ObjectiveConfig, *, version: int) -> LearnedSequence | None:
    """None where no token of it counts: nothing was drawn, or under `mask_old` nothing by policy `version`."""
    trajectory = sample.trajectory
    columns = [_columns(trajectory, index, config, version) for index in range(len(trajectory.segments))]
    if not columns:
        return None
    tokens, counts, temperature, behaviour, age = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    begins = _begins(trajectory)
    counts[begins] = False  # nothing comes before a first token to foretell it from
    if not counts.any():
        return None
    stop = int(np.flatnonzero(counts)[-1]) + 1
    lengths = np.diff([*(begin for begin in begins if begin < stop), stop])
    return LearnedSequence(
        sample, tuple(lengths.tolist()), tokens[:stop], counts[:stop], temperature[:stop], behaviour[:stop], age[:stop]
    )


def _begins(trajectory: Trajectory) -> list[int]:
    """Of its sequences: the first token, and those of later prompts."""
    begins, at = [0], 0
    for segment in trajectory.segments:
        if segment.source is TokenSource.PROMPT and at:
            begins.append(at)
        at += len(segment.tokens)
    return begins


def policy_tokens_that_count(trajectory: Trajectory, config: ObjectiveConfig, *, version: int) -> int:
    sequence = learned_sequence(Sample(trajectory, 0.0, 0.0), config, version=version)
    return sequence.learned_tokens if sequence is not None else 0


def pack_rows(sequences: Sequence[LearnedSequence], *, micro_tokens: int, device: torch.device) -> list[PackedRow]:
    """Rows of at most `micro_tokens` positions (a longer sequence has one to itself); the longest sequences come first."""
    lengths = [sequence.positions for sequence in sequences]
    if not lengths:
        return []
    rows = pack(lengths, max(micro_tokens, *lengths, 1))
    return [_row([sequences[index] for index in sorted(row)], device) for row in rows]


def share_of_rank(sequences: Sequence[LearnedSequence], *, rank: int, world_size: int) -> list[LearnedSequence]:
    """Longest first, each to the rank with the fewest positions so far: all ranks find the same division."""
    loads = [0] * world_size
    mine: list[LearnedSequence] = []
    for sequence in sorted(sequences, key=lambda s: (-s.positions, s.sample.trajectory.id)):
        owner = loads.index(min(loads))
        loads[owner] += sequence.positions
        if owner == rank:
            mine.append(sequence)
    return mine


def _columns(trajectory: Trajectory, index: int, config: ObjectiveConfig, version: int) -> tuple[NDArray, ...]:
    segment = trajectory.segments[index]
    size = len(segment.tokens)
    tokens = np.array(segment.tokens, dtype=np.int64)
    if segment.source is not TokenSource.POLICY:
        nothing = np.zeros(size, np.float32)
        return tokens, np.zeros(size, np.bool_), nothing, nothing, np.zeros(size, np.int64)
    assert segment.policy_version is not None
    age = version - segment.policy_version
    counts = np.full(size, config.partial != "mask_old" or age == 0)
    temperature = np.full(size, segment.temperature or 1.0, np.float32)
    return tokens, counts, temperature, np.array(segment.logprobs, np.float32), np.full(size, age, np.int64)


def _row(sequences: Sequence[LearnedSequence], device: torch.device) -> PackedRow:
    def column(parts: list[NDArray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(device)

    return PackedRow(
        tokens_L=column([s.inputs() for s in sequences]),
        targets_L=column([s.targets() for s in sequences]),
        positions=tuple(positions for s in sequences for positions in s.sequence_positions if positions),
        temperature_T=column([s.temperature_N[s.counts_N] for s in sequences]),
        behaviour_T=column([s.behaviour_N[s.counts_N] for s in sequences]),
        age_T=column([s.age_N[s.counts_N] for s in sequences]),
        advantage_S=torch.tensor([s.sample.advantage for s in sequences], dtype=torch.float64, device=device),
        length_S=torch.tensor([s.learned_tokens for s in sequences], dtype=torch.int64, device=device),
    )
