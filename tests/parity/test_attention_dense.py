"""Blockwise attention and its maximum against the dense formula, values and gradients."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from abruzzi_jobs.models import attention, max_logit_per_head

pytestmark = pytest.mark.parity


def dense(q: Tensor, k: Tensor, v: Tensor, segments: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    length = q.shape[2]
    visible = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    if segments is not None:
        visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])
    logits = (q @ k.transpose(2, 3) * scale).masked_fill(~visible, -math.inf)
    return torch.softmax(logits, -1) @ v, logits.detach().amax((0, 2, 3))


def inputs(length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(length)
    sizes = ((2, 3, length, 12), (2, 3, length, 12), (2, 3, length, 8))
    q, k, v = (torch.randn(size, generator=generator, dtype=dtype) * 2 for size in sizes)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


@pytest.mark.parametrize("length", [1, 7, 64, 65, 200])
@pytest.mark.parametrize("packed", [False, True])
def test_blockwise_attention_is_dense_attention_with_its_exact_maximum(length: int, packed: bool) -> None:
    q, k, v = inputs(length, torch.float32)
    segments = torch.arange(length).div(13, rounding_mode="floor").expand(2, -1) if packed else None
    grad = torch.randn(2, 3, length, 8, generator=torch.Generator().manual_seed(1))

    expected, expected_max = dense(q, k, v, segments, 0.3)
    expected_grads = torch.autograd.grad(expected, (q, k, v), grad)
    out, maximum = attention(q, k, v, segments, 0.3)
    grads = torch.autograd.grad(out, (q, k, v), grad)

    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maximum, expected_max, atol=1e-5, rtol=1e-6)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=5e-5, rtol=1e-3)
    torch.testing.assert_close(max_logit_per_head(q, k, segments, 0.3), expected_max, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("elements", [1, 3 * 64 * 100, 100 * 64 * 2])
def test_the_grouping_of_heads_changes_nothing(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    q, k, v = inputs(100, torch.float32)
    segments = torch.stack((torch.arange(100) // 13, torch.arange(100) // 40))
    expected, expected_max = attention(q, k, v, segments, 0.3)
    grads = torch.autograd.grad(expected.square().sum(), (q, k, v))
    monkeypatch.setitem(sys.modules["abruzzi_jobs.models.attention"]._STRIPE_ELEMENTS, "cpu", elements)
    out, maximum = attention(q, k, v, segments, 0.3)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(maximum, expected_max, atol=0, rtol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(out.square().sum(), (q, k, v)), grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_fused_backend_agrees() -> None:
    q, k, v = inputs(100, torch.float32)
    out, maximum = attention(q, k, v, None, 0.3, backend="sdpa")
    expected, expected_max = dense(q, k, v, None, 0.3)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maximum, expected_max, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("packed", [False, True])
def test_attention_gradients_in_float64(packed: bool) -> None:
    q, k, v = inputs(9, torch.float64)
    segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2]]).expand(2, -1) if packed else None
    assert torch.autograd.gradcheck(lambda *args: attention(*args, segments, 0.3)[0], (q, k, v))


def test_half_precision_keeps_float32_digits_of_the_maximum() -> None:
    q, k, v = (x.detach().bfloat16() for x in inputs(70, torch.float32))
    _, maximum = attention(q, k, v, None, 1.0)
    _, expected = dense(q.float(), k.float(), v.float(), None, 1.0)
    torch.testing.assert_close(maximum, expected, rtol=1e-5, atol=0)
