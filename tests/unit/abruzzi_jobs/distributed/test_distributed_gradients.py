"""Gradient accumulation on one rank; two ranks are in tests/parity/test_data_parallel.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from abruzzi_jobs.distributed import GradientAccumulator, Ranks, start_ranks

ALONE = Ranks(rank=0, world_size=1, device=torch.device("cpu"))


def test_without_a_launcher_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    ranks = start_ranks()
    assert (ranks.rank, ranks.world_size) == (0, 1)
    assert ranks.sum_(torch.ones(2)).tolist() == [1, 1]
    assert ranks.max_(torch.ones(2)).tolist() == [1, 1]


def test_bfloat16_gradients_accumulate_in_float32() -> None:
    weight = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    gradients = GradientAccumulator([("w", weight)], ranks=ALONE)
    for value in (256.0, 1.0, 1.0):  # bfloat16 would lose the ones
        weight.grad = torch.full((4,), value, dtype=torch.bfloat16)
        gradients.accumulate()
    reduced = gradients.reduce()
    assert reduced["w"].dtype == torch.float32
    assert reduced["w"].tolist() == [258.0] * 4
    gradients.reset()
    weight.grad = torch.ones(4, dtype=torch.bfloat16)
    assert gradients.reduce()["w"].tolist() == [1.0] * 4


def test_float32_gradients_are_used_in_place() -> None:
    weight = nn.Parameter(torch.ones(3))
    gradients = GradientAccumulator([("w", weight)], ranks=ALONE)
    for _ in range(2):
        (weight * 2).sum().backward()
        gradients.accumulate()
    assert gradients.reduce()["w"] is weight.grad
    assert weight.grad.tolist() == [4.0] * 3


def test_a_parameter_without_gradient_is_left_out_on_one_rank() -> None:
    used, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    gradients = GradientAccumulator([("used", used), ("unused", unused)], ranks=ALONE)
    used.sum().backward()
    assert set(gradients.reduce()) == {"used"}
