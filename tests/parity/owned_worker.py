"""A rank that reduces and broadcasts pieces of many sizes, and says which ones came out wrong. Started by test_owned.py."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed import owned, start_ranks, stop_ranks
from abruzzi_jobs.distributed.mesh import Group

ROUNDS = 25


def values(seed: int, rank: int, piece: int, dtype: torch.dtype) -> Tensor:
    """Whole numbers: their sums are exact in any order."""
    generator = torch.Generator().manual_seed((seed * 1000 + rank) * 1000 + piece)
    size = random.Random(f"{seed} {piece}").choice([1, 3, 17, 100, 300])
    return torch.randint(-100, 100, (size,), generator=generator).to(dtype)


def wrong(seed: int, ranks: list[int], groups: list[Group], me: int) -> list[str]:
    draw, world = random.Random(seed), len(ranks)
    dtypes = [draw.choice([torch.float32, torch.float64]) for _ in range(draw.randint(1, 40))]
    gradients = [values(seed, me, i, dtype) for i, dtype in enumerate(dtypes)]
    parameters = [-values(seed, me, i, dtype).to(torch.bfloat16) for i, dtype in enumerate(dtypes)]
    pieces = [
        owned.Owned(gradient, parameter, draw.randrange(world), draw.choice(groups))
        for gradient, parameter in zip(gradients, parameters, strict=True)
    ]
    shared = owned.OwnedPieces(pieces, rank=me)
    shared.reduce()
    shared.broadcast()
    found = []
    for i, (piece, dtype) in enumerate(zip(pieces, dtypes, strict=True)):
        owner = piece.group.ranks[piece.owner]
        total = torch.stack([values(seed, rank, i, dtype) for rank in ranks]).sum(0)
        if owner == me and not torch.equal(piece.gradient, total):
            found.append(f"seed {seed}, gradient {i}")
        if not torch.equal(piece.parameter, -values(seed, owner, i, dtype).to(torch.bfloat16)):
            found.append(f"seed {seed}, parameter {i}")
    return found


def main(directory: str, bucket_bytes: str) -> None:
    torch.set_num_threads(1)
    owned.BUCKET_BYTES = int(bucket_bytes)
    ranks = start_ranks(timeout_s=120)
    everyone = list(range(ranks.world_size))
    again = dist.new_group(everyone)
    assert isinstance(again, dist.ProcessGroup)
    groups = [Group(None, everyone), Group(again, everyone)]
    found = [line for seed in range(ROUNDS) for line in wrong(seed, everyone, groups, ranks.rank)]
    (Path(directory) / f"{ranks.rank}.json").write_text(json.dumps(found))
    stop_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
