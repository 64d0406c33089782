"""Newton-Schulz and the whole update against torch.optim.Muon (whose iteration is bfloat16) and against the float64 formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from abruzzi_jobs.models import ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer, newton_schulz

pytestmark = pytest.mark.parity

SHAPES = [(1, 16, 16), (3, 32, 48), (4, 24, 96), (2, 96, 24), (5, 128, 448), (2, 64, 40)]


def oracle(x: Tensor, steps: int = 5) -> Tensor:
    """The published iteration, one matrix at a time, float64."""
    results = []
    for matrix in x.double():
        flip = matrix.shape[0] > matrix.shape[1]
        y = matrix.T if flip else matrix
        y = y / (y.norm() + 1e-7)
        for _ in range(steps):
            gram = y @ y.T
            y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
        results.append(y.T if flip else y)
    return torch.stack(results)


def decaying(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Singular values over six decades: what gradients look like, and what hurts low precision."""
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    return (u * torch.logspace(0, -6, min(shape[1:]))) @ v


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["gaussian", "decaying"])
def test_newton_schulz_in_float32_is_the_published_iteration(shape: tuple[int, int, int], kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) if kind == "gaussian" else decaying(shape, generator)
    expected = oracle(x).float()
    error = (newton_schulz(x, precision="float32") - expected).norm() / expected.norm()
    assert error < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["gaussian", "decaying"])
def test_bfloat16_is_no_further_from_the_formula_than_torchs(shape: tuple[int, int, int], kind: str) -> None:
    from torch.optim._muon import _zeropower_via_newtonschulz

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) if kind == "gaussian" else decaying(shape, generator)
    expected = oracle(x).float()
    theirs = torch.stack([_zeropower_via_newtonschulz(m, (3.4445, -4.7750, 2.0315), 5, 1e-7).float() for m in x])
    error_ours = (newton_schulz(x, precision="bfloat16") - expected).norm() / expected.norm()
    error_theirs = (theirs - expected).norm() / expected.norm()
    assert error_ours < max(2 * error_theirs, 0.05)


def test_bfloat16_stays_bounded_on_a_matrix_of_rank_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 128, 1, generator=generator) @ torch.randn(4, 1, 448, generator=generator)
    assert torch.linalg.matrix_norm(newton_schulz(x, precision="bfloat16"), ord=2).max() < 1.5


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("rows", "cols"), [(96, 192), (192, 96), (64, 64)])
def test_ten_updates_follow_torch_optim_muon(small: ModelConfig, nesterov: bool, rows: int, cols: int) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(rows, cols, generator=generator) * 0.02
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    config = OptimizerConfig(peak_lr=1e-2, nesterov=nesterov, newton_schulz_precision="float32")
    optimizer = build_optimizer([("layers.0.self_attn.o_proj.weight", ours)], config, model=small)
    reference = torch.optim.Muon(
        [theirs], lr=1e-2, weight_decay=0.1, momentum=0.95, nesterov=nesterov, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(10):
        gradient = torch.randn(rows, cols, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    moved = (theirs - start).norm()
    # torch iterates in bfloat16: one update is off by 1 to 2 %.
    assert (ours - theirs).norm() / moved < 0.02


def test_one_update_is_the_formula_exactly(small: ModelConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    start, gradient = torch.randn(24, 96, generator=generator), torch.randn(24, 96, generator=generator)
    weight = nn.Parameter(start.clone())
    weight.grad = gradient
    config = OptimizerConfig(peak_lr=0.05, weight_decay=0.3, newton_schulz_precision="float32")
    build_optimizer([("layers.0.self_attn.o_proj.weight", weight)], config, model=small).step(0.5)
    lr = 0.05 * 0.5
    expected = start - lr * (oracle(gradient[None])[0].float() * 0.2 * 96**0.5 + 0.3 * start)
    torch.testing.assert_close(weight.detach(), expected, atol=1e-5, rtol=1e-5)


def test_adamw_group_is_torchs_adamw(small: ModelConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(64, 32, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = build_optimizer([("embed_tokens.weight", ours)], OptimizerConfig(peak_lr=1e-2), model=small)
    reference = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(64, 32, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours.detach(), theirs.detach(), atol=1e-6, rtol=1e-5)
