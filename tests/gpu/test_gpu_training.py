"""The model and optimizer on a GPU. Nothing but torch, numpy and pytest is needed, so a bare GPU machine runs it:

PYTHONPATH=jobs:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from gpu_model import SMALL

from abruzzi_jobs.models import KimiK2, attention, generate
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer, newton_schulz

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]


@pytest.fixture(autouse=True)
def exact_float32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def batch(device: str = "cuda") -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 1024, (4, 257), generator=torch.Generator().manual_seed(0)).to(device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def pair(dtype: torch.dtype = torch.float32) -> tuple[KimiK2, KimiK2]:
    """The same weights on CPU (float32) and on the GPU."""
    cpu = KimiK2(SMALL, seed=0)
    gpu = KimiK2(SMALL, device="cuda", dtype=dtype)
    gpu.load_state_dict(cpu.state_dict())
    return cpu, gpu


@pytest.mark.parametrize("packed", [False, True])
def test_float32_on_the_gpu_equals_the_cpu(packed: bool) -> None:
    cpu, gpu = pair()
    segments = torch.arange(256).div(50, rounding_mode="floor").expand(4, -1) if packed else None
    x, y = batch("cpu")
    expected = cpu(x, y, segments)
    out = gpu(x.cuda(), y.cuda(), segments.cuda() if segments is not None else None)
    expected.loss.backward()
    out.loss.backward()
    assert float(out.loss) == pytest.approx(float(expected.loss), rel=1e-4)
    torch.testing.assert_close(out.max_logit_per_layer.cpu(), expected.max_logit_per_layer, atol=1e-3, rtol=1e-3)
    theirs = dict(cpu.named_parameters())
    for name, parameter in gpu.named_parameters():
        error = (parameter.grad.cpu() - theirs[name].grad).norm() / theirs[name].grad.norm().clamp(min=1e-12)
        assert error < 1e-2, name


def test_bfloat16_follows_the_cpus_float32() -> None:
    cpu, gpu = pair(torch.bfloat16)
    x, y = batch("cpu")
    out = gpu(x.cuda(), y.cuda())
    out.loss.backward()
    assert float(out.loss) == pytest.approx(float(cpu(x, y).loss), abs=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in gpu.parameters())


@pytest.mark.parametrize("backend", ["sdpa", "blockwise"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_backends_agree_with_the_cpu(backend: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 4, 700, 96, generator=generator).to(dtype) for _ in range(2))
    v = torch.randn(2, 4, 700, 64, generator=generator).to(dtype)
    expected, expected_max = attention(q.float(), k.float(), v.float(), None, 0.2)
    out, maximum = attention(q.cuda(), k.cuda(), v.cuda(), None, 0.2, backend=backend)
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out.float().cpu(), expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(maximum.cpu(), expected_max, atol=1e-4, rtol=1e-4)


def test_training_lowers_the_loss_and_the_clip_holds_the_logits() -> None:
    model = KimiK2(SMALL, seed=0, device="cuda", dtype=torch.bfloat16)
    config = OptimizerConfig(peak_lr=5e-3, qk_clip_threshold=0.5)
    optimizer = build_optimizer(model.named_parameters(), config, model=SMALL)
    generator = torch.Generator().manual_seed(0)
    losses, clipped = [], 0
    for _ in range(30):
        start = torch.randint(0, 1024, (8, 1), generator=generator)
        tokens = ((start + 7 * torch.arange(129)) % 1024).cuda()
        out = model(tokens[:, :-1], tokens[:, 1:])
        out.loss.backward()
        norm = float(optimizer.gradient_norm())
        optimizer.step(grad_scale=min(1.0, 1 / norm), measure=True)
        clipped += optimizer.clip_qk(out.max_logit_per_layer).clipped_heads
        model.update_router_bias(out.expert_counts)
        optimizer.zero_grad()
        losses.append(float(out.loss))
    assert losses[-1] < losses[0] - 1
    assert clipped > 0
    assert 0.1 < optimizer.statistics().update_rms_muon < 0.3


def test_newton_schulz_on_the_gpu_equals_the_cpu() -> None:
    x = torch.randn(8, 128, 448, generator=torch.Generator().manual_seed(0))
    expected = newton_schulz(x, precision="float32")
    torch.testing.assert_close(newton_schulz(x.cuda(), precision="float32").cpu(), expected, atol=1e-4, rtol=1e-2)
    narrow = newton_schulz(x.cuda()).cpu()
    assert (narrow - expected).norm() / expected.norm() < 0.05


def test_decoding_on_the_gpu_equals_the_full_forward() -> None:
    model = KimiK2(replace(SMALL, num_layers=2), seed=0, device="cuda")
    x, _ = batch()
    logits, caches = model.prefill(x[:, :20])
    for position in range(20, 30):
        torch.testing.assert_close(logits, model.logits(x[:, :position], last_only=True), atol=1e-3, rtol=1e-3)
        logits = model.decode(x[:, position], caches)
    assert generate(model, x[:, :5], max_new_tokens=4, temperature=0).shape == (4, 4)
