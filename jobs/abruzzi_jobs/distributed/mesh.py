"""Where a rank stands in pipeline, expert and data parallelism, and its process groups.

World = pp · dp, and ep divides dp: the ranks of one pipeline stage have each their own part of the batch; ep of them in a row share a set of
experts, of which each has its part, and the dp / ep such rows repeat the experts (paper section 2.4: pp = ep = 16 on 256 GPUs). Ranks that
share experts are neighbours, so that they lie on as few nodes as can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist

from abruzzi_jobs.distributed.ranks import Ranks
from abruzzi_jobs.distributed.stopwatch import Stopwatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    pp: int = 1
    vpp: int = 1
    """Chunks of layers a pipeline rank."""
    ep: int = 1
    dp: int = 1
    """Ranks of a pipeline stage."""

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be laid out."""
        if min(self.pp, self.vpp, self.ep, self.dp) < 1:
            raise ValueError(f"{self}: each is 1 at least")
        if self.dp % self.ep:
            raise ValueError(f"parallel.ep: {self.ep} does not divide the {self.dp} ranks of a pipeline stage")
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"parallel.vpp: {self.vpp} chunks a rank need pp of 2 or more")

    @property
    def world_size(self) -> int:
        return self.pp * self.dp

    @property
    def edp(self) -> int:
        """How often each expert is held."""
        return self.dp // self.ep

    @property
    def stages(self) -> int:
        return self.pp * self.vpp

    @property
    def shares(self) -> list[int]:
        """Of each rank, the number of its share of the model: those of the same compute with the same weights."""
        return [rank // self.dp * self.ep + rank % self.dp % self.ep for rank in range(self.world_size)]

    def experts(self, num_experts: int, ep_rank: int) -> range:
        if num_experts % self.ep:
            raise ValueError(f"parallel.ep: {self.ep} does not divide {num_experts} experts")
        each = num_experts // self.ep
        return range(ep_rank * each, (ep_rank + 1) * each)


class Mesh:
    """Of this process. Made on all ranks at once: it makes process groups."""

    def __init__(self, ranks: Ranks, layout: Layout) -> None:
        if layout.world_size != ranks.world_size:
            raise ValueError(f"{layout} is of {layout.world_size} ranks, but there are {ranks.world_size}")
        self.ranks, self.layout = ranks, layout
        self.pp_rank, self.data_rank = divmod(ranks.rank, layout.dp)
        self.edp_rank, self.ep_rank = divmod(self.data_rank, layout.ep)
        self.own_work = Stopwatch(ranks.device)
        """Stands still while this rank waits for a message, or for those it exchanges tokens with."""
        pp, dp, ep = layout.pp, layout.dp, layout.ep
        self.data = self._mine([[p * dp + d for d in range(dp)] for p in range(pp)])
        self.expert = self._mine([[p * dp + r * ep + e for e in range(ep)] for p in range(pp) for r in range(dp // ep)])
        self.expert_data = self._mine(
            [[p * dp + r * ep + e for r in range(dp // ep)] for p in range(pp) for e in range(ep)]
        )
        self.forward, self.backward = self._edges(1), self._edges(-1)

    def neighbour(self, step: int) -> int:
        """Rank of the pipeline rank `step` after this one, in a ring."""
        return (self.pp_rank + step) % self.layout.pp * self.layout.dp + self.data_rank

    def _mine(self, members: list[list[int]]) -> Group:
        """All ranks make all groups, in the same order; one of all ranks, or of one alone, need not be made."""
        mine = Group(None, [self.ranks.rank])
        for ranks in members:
            if len(ranks) == 1:
                continue
            handle = None if len(ranks) == self.ranks.world_size else _made(ranks)
            if self.ranks.rank in ranks:
                mine = Group(handle, ranks)
        return mine

    def _edges(self, step: int) -> tuple[Group | None, Group | None]:
        """(to whom this rank sends in that direction, from whom it takes). A group an edge: NCCL takes the messages of a group in one order, and
        those that two ranks send each other have none."""
        out = come = None
        pp, dp = self.layout.pp, self.layout.dp
        if pp == 1:
            return None, None
        for data in range(dp):
            for source in range(pp):
                ends = [source * dp + data, (source + step) % pp * dp + data]
                handle = _made(ends)
                if ends[0] == self.ranks.rank:
                    out = Group(handle, ends)
                if ends[1] == self.ranks.rank:
                    come = Group(handle, ends)
        return out, come


@dataclass(frozen=True, slots=True)
class Group:
    handle: dist.ProcessGroup | None
    """None: the world's, or a rank alone."""
    ranks: list[int]

    @property
    def size(self) -> int:
        return len(self.ranks)


def _made(ranks: list[int]) -> dist.ProcessGroup | None:
    """None on ranks that are not of it."""
    handle = dist.new_group(ranks)
    return handle if isinstance(handle, dist.ProcessGroup) else None
