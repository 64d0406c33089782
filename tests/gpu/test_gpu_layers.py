"""What a layer is made of on CUDA, each part against the CPU's operations: flex attention, the kernels between matrix products, experts, and a step that
never waits for the device.

PYTHONPATH=jobs:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_layers.py
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from gpu_model import SMALL
from torch import Tensor

from abruzzi_jobs.models import KimiK2, attention
from abruzzi_jobs.models import loss as loss_module
from abruzzi_jobs.models.loss import linear_cross_entropy
from abruzzi_jobs.models.moe import expert_rows, gather_rows, grouped_linear, sum_rows
from abruzzi_jobs.models.norm import rms_norm
from abruzzi_jobs.models.swiglu import swiglu, weighted_swiglu
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]

CONFIG = replace(SMALL, vocab_size=512, num_layers=2, max_position=256)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
"""Relative to the CPU's float32."""


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found.detach().cpu().float() - expected.detach().float()).norm() / expected.detach().float().norm())


def leaf(x: Tensor, dtype: torch.dtype, device: str) -> Tensor:
    """The same numbers on both devices: rounded to `dtype` first; the CPU computes in float32."""
    rounded = x.to(dtype)
    return (rounded.cuda() if device == "cuda" else rounded.float()).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [512, 1536, 7168, 100])
def test_rms_norm_and_its_gradients_are_the_cpus(size: int, dtype: torch.dtype) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        x, weight = leaf(drawn(3, 200, size), dtype, device), leaf(1 + drawn(size, seed=1) / 4, dtype, device)
        out = rms_norm(x, weight, 1e-6)
        out.backward(drawn(3, 200, size, seed=2).to(dtype).to(out))
        found[device] = (out, x.grad, weight.grad)
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert difference(ours, expected) < BOUND[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [2048, 1500])
def test_swiglu_and_its_gradients_are_the_cpus(width: int, weighted: bool, dtype: torch.dtype) -> None:
    found = {}
    for device in ("cpu", "cuda"):
        gate_up = leaf(drawn(130, 2 * width), dtype, device)
        weight = leaf(drawn(130, seed=1), torch.float32, device)
        out = weighted_swiglu(gate_up, weight) if weighted else swiglu(gate_up)
        out.backward(drawn(130, width, seed=2).to(dtype).to(out))
        found[device] = (out, gate_up.grad, *([weight.grad] if weighted else []))
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert difference(ours, expected) < BOUND[dtype]


@pytest.mark.parametrize("packing", ["none", "documents", "any order"])
def test_flex_attention_is_the_cpus_with_its_exact_maximum_and_gradients(packing: str) -> None:
    length = 700
    ids = {
        "none": None,
        "documents": torch.stack((torch.arange(length) // 90, torch.arange(length) // 300)),
        "any order": torch.randint(0, 3, (2, length), generator=torch.Generator().manual_seed(1)),
    }[packing]
    found = {}
    for device in ("cpu", "cuda"):
        q, k = (leaf(drawn(2, 4, length, 192, seed=seed), torch.bfloat16, device) for seed in (1, 2))
        v = leaf(drawn(2, 4, length, 128, seed=3), torch.bfloat16, device)
        backend = "flex" if device == "cuda" else "auto"
        out, maximum = attention(q, k, v, None if ids is None else ids.to(device), 0.1, backend=backend)
        out.backward(drawn(2, 4, length, 128, seed=4).bfloat16().to(out))
        found[device] = (maximum, out, q.grad, k.grad, v.grad)
    torch.testing.assert_close(found["cuda"][0].cpu(), found["cpu"][0], atol=1e-4, rtol=1e-4)
    for ours, expected in zip(found["cuda"][1:], found["cpu"][1:], strict=True):
        assert difference(ours, expected) < 1e-2


def test_grouped_products_over_uneven_experts_are_the_loop_over_them() -> None:
    counts = torch.tensor([0, 300, 1, 83, 128, 0, 512, 0])
    x = drawn(int(counts.sum()), 256).bfloat16().cuda().requires_grad_()
    weight = drawn(8, 384, 256, seed=1).bfloat16().cuda().requires_grad_()
    out = grouped_linear(x, weight, counts.cumsum(0).int().cuda())
    grad = drawn(*out.shape, seed=2).bfloat16().cuda()
    found = (out, *torch.autograd.grad(out, (x, weight), grad))
    wide_x, wide_weight = (tensor.detach().float().cpu().requires_grad_() for tensor in (x, weight))
    loop = torch.cat([rows @ matrix.T for rows, matrix in zip(wide_x.split(counts.tolist()), wide_weight, strict=True)])
    expected = (loop, *torch.autograd.grad(loop, (wide_x, wide_weight), grad.float().cpu()))
    for ours, theirs in zip(found, expected, strict=True):
        assert difference(ours, theirs) < 1e-2


def test_rows_of_experts_are_sorted_as_on_the_cpu() -> None:
    experts_TK = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(t))[:4] for t in range(100)])
    counts_E = experts_TK.flatten().bincount(minlength=16)
    token_R, row_TK, place_R, ends_E = (tensor.cpu() for tensor in expert_rows(experts_TK.cuda(), counts_E.cuda()))
    assert torch.equal(ends_E, counts_E.cumsum(0).int())
    assert torch.equal(token_R[row_TK], torch.arange(100).unsqueeze(1).expand(-1, 4))
    assert torch.equal(experts_TK.flatten()[place_R].sort().values, experts_TK.flatten()[place_R])


def test_rows_of_experts_that_are_not_here_count_nothing_and_gradients_are_the_cpus() -> None:
    experts_TK = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(t))[:3] for t in range(90)])
    experts_TK = experts_TK.clamp(max=4)  # expert 4 of four: elsewhere
    counts_E = experts_TK.flatten().bincount(minlength=5)[:4]
    found = {}
    for device in ("cpu", "cuda"):
        x = drawn(90, 300).to(device).requires_grad_()
        token_R, row_TK, _, _ = expert_rows(experts_TK.to(device), counts_E.to(device), partly=True)
        out = sum_rows(3 * gather_rows(x, token_R, row_TK, partly=True), token_R, row_TK, partly=True)
        out.backward(drawn(90, 300, seed=1).to(device))
        found[device] = (out, x.grad)
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert difference(ours, expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_of_the_head_and_its_gradients_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setitem(loss_module._CHUNK_ELEMENTS, "cuda", 1 << 16)  # five chunks
    targets = torch.randint(0, 1000, (300,), generator=torch.Generator().manual_seed(0))
    targets[::7] = -100
    found = {}
    for device in ("cpu", "cuda"):
        x, weight = leaf(drawn(300, 256), dtype, device), leaf(drawn(1000, 256, seed=1) / 10, dtype, device)
        loss = linear_cross_entropy(x, weight, targets.to(device))
        loss.backward()
        found[device] = (loss, x.grad, weight.grad)
    for ours, expected in zip(found["cuda"], found["cpu"], strict=True):
        assert difference(ours, expected) < BOUND[dtype]


def trained(steps: int, *, graph: bool) -> tuple[list[float], Tensor]:
    """(losses, last maxima) of some steps on one batch; forward and backward once as a CUDA graph, once launched one by one."""
    model = KimiK2(CONFIG, seed=0, device="cuda", dtype=torch.bfloat16)
    optimizer = build_optimizer(
        model.named_parameters(), OptimizerConfig(qk_clip_threshold=0.5, peak_lr=5e-3), model=CONFIG
    )
    tokens = torch.randint(0, 512, (2, 257), generator=torch.Generator().manual_seed(0)).cuda()
    segments = torch.arange(256, device="cuda").div(100, rounding_mode="floor").expand(2, -1).contiguous()

    def run():
        out = model(tokens[:, :-1], tokens[:, 1:], segments)
        out.loss.backward()
        return out

    run()  # compiles, and fills what is kept between steps; nothing of its graph stays
    optimizer.zero_grad()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured) if graph else nullcontext():
        out = run()
    losses = []
    for _ in range(steps):
        if graph:
            captured.replay()
        else:
            optimizer.zero_grad()
            out = run()
        losses.append(out.loss.detach().clone())
        scale = (1 / (optimizer.gradient_norm() + 1e-6)).clamp(max=1)
        optimizer.step(grad_scale=scale)
        optimizer.scale_qk(out.max_logit_per_layer)
        model.update_router_bias(out.expert_counts)
    return torch.stack(losses).tolist(), out.max_logit_per_layer.clone()


def test_a_captured_step_learns_what_a_launched_one_learns() -> None:
    launched, maxima = trained(8, graph=False)
    captured, captured_maxima = trained(8, graph=True)
    assert captured == pytest.approx(launched, rel=2e-3)
    assert launched[-1] < launched[0] - 0.5
    torch.testing.assert_close(captured_maxima, maxima, rtol=0.05, atol=0.02)


def test_a_step_never_waits_for_the_device() -> None:
    model = KimiK2(replace(CONFIG, num_layers=3), seed=0, device="cuda", dtype=torch.bfloat16)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=model.config)
    tokens = torch.randint(0, 512, (2, 257), generator=torch.Generator().manual_seed(0)).cuda()
    segments = torch.arange(256, device="cuda").div(100, rounding_mode="floor").expand(2, -1).contiguous()

    def step() -> None:
        out = model(tokens[:, :-1], tokens[:, 1:], segments)
        out.loss.backward()
        scale = (1 / (optimizer.gradient_norm() + 1e-6)).clamp(max=1)
        optimizer.step(grad_scale=scale)
        optimizer.scale_qk(out.max_logit_per_layer)
        model.update_router_bias(out.expert_counts)
        optimizer.zero_grad()

    step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        with pytest.raises(RuntimeError, match="synchronizing"):
            float(tokens.sum())
    finally:
        torch.cuda.set_sync_debug_mode("default")
