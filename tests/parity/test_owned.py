"""Pieces reach their owners and come back, whatever buckets they travel in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rank_processes import run_ranks

from abruzzi_jobs.distributed import owned
from abruzzi_jobs.distributed.mesh import Group

pytestmark = pytest.mark.parity
WORKER = Path(__file__).parent / "owned_worker.py"


@pytest.mark.parametrize("bucket_bytes", [0, 400, owned.BUCKET_BYTES])
def test_every_owner_has_the_sum_and_all_have_the_owners_values_in_buckets_of_any_size(
    tmp_path: Path, bucket_bytes: int
) -> None:
    run_ranks(WORKER, str(tmp_path), str(bucket_bytes), world_size=3)
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)] == [[], [], []]


def test_a_step_has_one_message_for_each_owner_where_its_pieces_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def broadcast(tensor: torch.Tensor, owner: int, **_: object) -> None:
        sent.append((owner, len(tensor)))

    monkeypatch.setattr(owned.dist, "broadcast", broadcast)
    monkeypatch.setattr(owned, "BUCKET_BYTES", 4000)
    group, same, alone = Group(None, [4, 5]), Group(None, [4, 5]), Group(None, [5])
    small, large = [torch.zeros(400) for _ in range(3)], torch.zeros(5000)
    pieces = [
        owned.Owned(small[0], small[0], 0, group), owned.Owned(large, large, 1, group), owned.Owned(small[1], small[1], 0, same),
        owned.Owned(small[2], small[2], 0, same), owned.Owned(large, large, 0, alone),
    ]  # fmt: skip
    owned.OwnedPieces(pieces, rank=5).broadcast()
    assert sent == [(4, 800), (5, 5000), (4, 400)]
