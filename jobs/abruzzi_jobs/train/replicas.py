"""Ranks that hold the same weights hold the same bits, or one of them has computed or kept them wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch.distributed as dist

from abruzzi_jobs.checkpoint.seal import Place, Seal, refuse_broken
from abruzzi_jobs.distributed import Ranks


def compare_replicas(step: int, seal: Seal, ranks: Ranks, nodes: Sequence[str]) -> None:
    """A collective. Raises AbruzziError `corruption` on the ranks that differ from most of those that have the same; on all of them where there is no
    majority, as with two."""
    told: list[Mapping[Place, int]] = [seal.sums] * ranks.world_size
    dist.all_gather_object(told, seal.sums)
    broken = differing(told, ranks.rank)
    if broken:
        holders = [f"{rank} on {nodes[rank]}" for rank, sums in enumerate(told) if broken[0] in sums]
        what = f"Step {step}: after the same updates, ranks {', '.join(holders)} do not hold the same"
        refuse_broken(broken, what=what, rank=ranks.rank)


def differing(told: Sequence[Mapping[Place, int]], rank: int) -> list[Place]:
    """What of this rank's is not as most have it who have it at all. `told` of each rank: sums of what it holds."""
    found = []
    for place, mine in told[rank].items():
        first, *others = Counter(sums[place] for sums in told if place in sums).most_common(2)
        if others and (first[0] != mine or first[1] == others[0][1]):
            found.append(place)
    return found
