"""How a model lies on ranks: which layers each pipeline chunk has, how many micro-batches a step is, and why a layout cannot be.

Ranks = PP x data ranks; experts are shared out over EP of the data ranks, everything else is whole on each of them. EDP = data ranks / EP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise

from abruzzi.contracts.training import (
    BatchConfig,
    CheckpointConfig,
    MemoryConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
)
from abruzzi.plan.parameters import count_parameters
from abruzzi.plan.pipeline import action_table, extra_warmup, simulate


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    tokens: int
    sequence_length: int
    sequences: int | None = None
    """A step; None: as many as leave the tokens of a step the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a training stage asks for; hashable, so that a plan is made once."""

    model: ModelConfig
    optimizer: OptimizerConfig
    batch: BatchConfig
    parallel: ParallelConfig
    memory: MemoryConfig
    checkpoint: CheckpointConfig
    ranks: int
    phases: tuple[Phase, ...]
    """Empty: as many tokens as its data has, which nobody knows beforehand."""

    @property
    def data_ranks(self) -> int:
        return max(1, self.ranks // self.parallel.pp)

    @property
    def edp(self) -> int:
        return max(1, self.data_ranks // self.parallel.ep)

    @property
    def micro_sequences(self) -> int:
        return self.batch.micro_sequences or max(1, self.batch.sequences // self.data_ranks)

    @property
    def micro_tokens(self) -> int:
        return self.micro_sequences * self.batch.sequence_length

    @property
    def microbatches(self) -> int:
        return max(1, self.batch.sequences // self.data_ranks // self.micro_sequences)

    @property
    def tokens_per_step(self) -> int:
        return self.batch.sequences * self.batch.sequence_length

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(
            phase.tokens // (phase.sequences * phase.sequence_length if phase.sequences else self.tokens_per_step)
            for phase in self.phases
        )

    @property
    def stages(self) -> int:
        """Pipeline chunks of all ranks; stage s lies on rank s mod PP."""
        return self.parallel.pp * self.parallel.vpp

    @property
    def extra_warmup(self) -> int:
        return extra_warmup(self.parallel)

    def with_parallel(self, **changes: int) -> Workload:
        return replace(self, parallel=self.parallel.model_copy(update=changes))

    def with_memory(self, **changes: object) -> Workload:
        return replace(self, memory=self.memory.model_copy(update=changes))


@dataclass(frozen=True, slots=True)
class Chunk:
    """The layers of one stage."""

    dense: int
    moe: int
    has_embedding: bool
    has_head: bool

    @property
    def layers(self) -> int:
        return self.dense + self.moe


def layers_by_chunk(model: ModelConfig, pp: int, vpp: int) -> list[int]:
    """Layers of each of pp x vpp stages, as they are planned and as `abruzzi_jobs` executes them. What is missing to a full round is taken from the rank that has
    most to compute: as the head is worth some layers, that is the last rank until it has no more than others. A stage without layers passes on what it gets.

    A rank gives them up from its last stages first. Or, where interleaved 1F1B idles less so, from its first, but for the last rank, whose last stage has the
    head: ranks begin to compute, and end, one after the other through the first stages.
    """
    return list(_layers_by_chunk(model.num_layers, head_in_layers(model), pp, vpp))


@lru_cache(maxsize=1024)
def _layers_by_chunk(layers: int, head: float, pp: int, vpp: int) -> tuple[int, ...]:
    found = [_with_layers_missing(layers, head, pp, vpp, from_first=from_first) for from_first in (False, True)]
    if found[0] == found[1]:
        return tuple(found[0])
    return tuple(min(found, key=lambda counts: _two_rounds(counts, head, pp)))


def _with_layers_missing(layers: int, head: float, pp: int, vpp: int, *, from_first: bool) -> list[int]:
    full = -(-layers // (pp * vpp))
    counts = [full] * (pp * vpp)

    def rather(stage: int) -> tuple[bool, int, int]:
        first = from_first and stage % pp != pp - 1
        return stage > 0 or counts[0] > 1, counts[stage], -stage if first else stage

    for _ in range(full * pp * vpp - layers):
        loads = [sum(counts[rank::pp]) + (head if rank == pp - 1 else 0.0) for rank in range(pp)]
        rank = max((r for r in range(pp) if any(counts[r::pp])), key=lambda r: (loads[r], r))
        counts[max((s for s in range(rank, pp * vpp, pp) if counts[s]), key=rather)] -= 1
    return counts


def _two_rounds(counts: list[int], head: float, pp: int) -> float:
    """Time of two rounds of micro-batches, in passes of a layer, of stages as long as their layers, and messages that take none."""
    weights = [*map(float, counts[:-1]), counts[-1] + head]
    table = action_table(pp, 2 * pp, chunks=len(counts) // pp)
    return simulate(table, lambda action: weights[action.stage] if action.op.computes else 0.0).makespan


def layer_ranges(model: ModelConfig, parallel: ParallelConfig) -> list[range]:
    """The layers of every stage in order, by `layers_by_chunk`; empty where a stage has none. Raises ValueError where they are too few."""
    if refused := parallel.too_many_stages(model.num_layers):
        raise ValueError(f"parallel: {refused.removesuffix('.')}")
    ends = list(accumulate(layers_by_chunk(model, parallel.pp, parallel.vpp), initial=0))
    return [range(first, end) for first, end in pairwise(ends)]


def head_in_layers(model: ModelConfig) -> float:
    """The head's multiplications in those of one layer."""
    parameters = count_parameters(model)
    layer = (parameters.active_in_matmuls - model.vocab_size * model.hidden_size) / model.num_layers
    return model.vocab_size * model.hidden_size / layer


def chunks(model: ModelConfig, pp: int, vpp: int) -> list[Chunk]:
    """Of every stage in order."""
    found: list[Chunk] = []
    first = 0
    counts = layers_by_chunk(model, pp, vpp)
    for stage, layers in enumerate(counts):
        dense = max(0, min(model.num_dense_layers - first, layers))
        found.append(Chunk(dense, layers - dense, stage == 0, stage == len(counts) - 1))
        first += layers
    return found


def refusals(work: Workload, ranks_per_node: int) -> list[str]:
    """Why this layout cannot be, each with its remedy; none: it can, if memory allows."""
    pp, vpp, ep = work.parallel.pp, work.parallel.vpp, work.parallel.ep
    found: list[str] = []
    if work.ranks % (pp * ep):
        found.append(_whole_groups(work.ranks, pp, ep, ranks_per_node))
    elif work.parallel.dp != "auto" and work.parallel.dp != work.data_ranks:
        found.append(
            f"dp is {work.parallel.dp}, but {work.ranks} ranks over PP {pp} leave {work.data_ranks}: set dp to that or 'auto'."
        )
    if work.model.num_experts % ep:
        found.append(
            f"{work.model.num_experts} experts cannot be shared out evenly over EP {ep}: take a divisor of {work.model.num_experts}."
        )
    if too_many := work.parallel.too_many_stages(work.model.num_layers):
        found.append(too_many)
    if found:
        return found
    share = work.data_ranks * work.micro_sequences
    if work.batch.sequences % share:
        found.append(
            f"{work.batch.sequences} sequences a step are no multiple of {work.data_ranks} data ranks x {work.micro_sequences} a micro-batch: "
            f"take {max(1, round(work.batch.sequences / share)) * share} sequences."
        )
    elif vpp > 1 and work.microbatches % max(1, work.microbatches // pp):
        found.append(
            f"{work.microbatches} micro-batches do not fill rounds of {pp} ranks: take a multiple of {pp} for interleaved chunks."
        )
    return found


def _whole_groups(ranks: int, pp: int, ep: int, ranks_per_node: int) -> str:
    group = pp * ep
    said = f"PP {pp} x EP {ep} = {group} ranks are one model-parallel group"
    if group % ranks_per_node == 0 and ranks % ranks_per_node == 0:
        nodes, each = ranks // ranks_per_node, group // ranks_per_node
        below = nodes // each * each
        take = f"{below} or {below + each}" if below else f"{each}"
        return f"{said}: {each} nodes of {ranks_per_node}. {nodes} nodes % {each} = {nodes % each}: take {take} nodes."
    below = ranks // group * group
    take = f"{below} or {below + group}" if below else f"{group}"
    return f"{said}. {ranks} ranks % {group} = {ranks % group}: take {take} ranks."
