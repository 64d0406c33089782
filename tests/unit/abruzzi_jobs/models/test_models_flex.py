"""Which blocks flex attention visits, against the dense rule. The kernel itself needs a GPU: tests/gpu/test_gpu_layers.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from abruzzi_jobs.models.flex import BLOCK, document_mask


def blocks(mask, kind: str) -> Tensor:
    """bool [B, N, N]"""
    counts, indices = getattr(mask, f"{kind}_num_blocks")[:, 0], getattr(mask, f"{kind}_indices")[:, 0]
    found = torch.zeros(indices.shape, dtype=torch.bool)
    for batch, row in torch.cartesian_prod(*(torch.arange(size) for size in counts.shape)).tolist():
        found[batch, row, indices[batch, row, : counts[batch, row]].long()] = True
    return found


def segments(kind: str, length: int) -> Tensor:
    places = torch.arange(length)
    if kind == "documents":
        return torch.stack((places // 90, places // 300))
    if kind == "one":
        return torch.zeros(2, length, dtype=torch.int32)
    return torch.randint(0, 3, (2, length), generator=torch.Generator().manual_seed(length))


@pytest.mark.parametrize("kind", ["documents", "one", "any order"])
@pytest.mark.parametrize("length", [128, 300, 700, 1024])
def test_every_visible_pair_is_in_a_visited_block_and_whole_blocks_are_all_visible(kind: str, length: int) -> None:
    ids = segments(kind, length)
    mask = document_mask(ids)
    count = -(-length // BLOCK)
    visible = (ids.unsqueeze(2) == ids.unsqueeze(1)).tril()
    padded = torch.zeros(2, count * BLOCK, count * BLOCK, dtype=torch.bool)
    padded[:, :length, :length] = visible
    tiles = padded.unflatten(2, (count, BLOCK)).unflatten(1, (count, BLOCK))
    partial, full = blocks(mask, "kv"), blocks(mask, "full_kv")
    assert not (partial & full).any()
    assert not (tiles.any(4).any(2) & ~(partial | full)).any()
    padded[:, length:] = True  # rows beyond the end are nobody's
    assert not (full & ~tiles.all(4).all(2)).any()
    assert mask.seq_lengths == (length, length)


def test_blocks_of_other_documents_are_not_visited() -> None:
    mask = document_mask(torch.arange(1024).div(256, rounding_mode="floor").expand(1, -1))
    assert mask.kv_num_blocks.tolist() == [[[1] * 8]]
    assert mask.full_kv_num_blocks.tolist() == [[[0, 1] * 4]]


def test_the_mask_tells_pairs_by_position_and_segment() -> None:
    ids = torch.tensor([[0, 0, 1, 1, 0]])
    rule = document_mask(ids).mask_mod
    found = [[bool(rule(torch.tensor(0), None, torch.tensor(q), torch.tensor(k))) for k in range(5)] for q in range(5)]
    assert torch.equal(torch.tensor(found), (ids.unsqueeze(2) == ids.unsqueeze(1)).tril()[0])
