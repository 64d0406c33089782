"""The memory policy on CUDA: streams and pinned memory against keeping everything.

PYTHONPATH=jobs:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_activations.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_model import SMALL

from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]

RECOMPUTE = ("layernorm", "swiglu", "mla_up_projection", "moe_down_projection")


def gradients(policy: dict[str, Any], steps: int = 3) -> tuple[dict[str, torch.Tensor], int]:
    """(of some steps, so that buffers are used again; bytes on the device between forward and backward)"""
    model = KimiK2(SMALL, seed=0, dtype=torch.bfloat16, device="cuda")
    model.activations.policy = MemoryPolicy.from_dict(policy)
    tokens_BL = torch.randint(0, 1024, (4, 256), generator=torch.Generator().manual_seed(0)).cuda()
    held = 0
    for _ in range(steps):
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        out = model(tokens_BL, tokens_BL)
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated() - before
        out.loss.backward()
    return {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}, held


@pytest.mark.parametrize(
    ("policy", "bound"),
    [
        ({"recompute": RECOMPUTE}, 1e-3),
        ({"offload_activations": True}, 1e-3),
        ({"recompute": RECOMPUTE, "fp8_activations": True, "offload_activations": True}, 0.05),
    ],
    ids=str,
)
def test_gradients_are_those_of_keeping_and_less_is_held(policy: dict[str, Any], bound: float) -> None:
    kept, plain = gradients({})
    ours, held = gradients(policy)
    assert held < plain
    for name, gradient in kept.items():
        assert (ours[name] - gradient).norm() <= bound * gradient.norm().clamp(min=1e-12), name
