"""Blockwise attention and its maximum against the dense formula, values and gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live_bytes import LiveBytes
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


@contextmanager
def striped(rows: int, elements: int) -> Iterator[None]:
    blockwise = sys.modules["abruzzi_jobs.models.attention"]
    with patch.dict(blockwise._STRIPE_ROWS, cpu=rows), patch.dict(blockwise._STRIPE_ELEMENTS, cpu=elements):
        yield


@given(
    heads=st.integers(1, 4),
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    rows=st.integers(1, 40),
    elements=st.integers(1, 5000),
    segments=st.none() | st.lists(st.integers(0, 3), min_size=70, max_size=70),
    length=st.integers(1, 70),
    scale=st.floats(0.01, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_blocks_of_any_shape_give_dense_values_gradients_and_maxima(
    heads: int, sizes: tuple[int, int], rows: int, elements: int, segments: list[int] | None, length: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(length)
    widths = (sizes[0], sizes[0], sizes[1])
    q, k, v = (
        torch.randn(2, heads, length, d, generator=generator, dtype=torch.float64).requires_grad_() for d in widths
    )
    grad = torch.randn(2, heads, length, sizes[1], generator=generator, dtype=torch.float64)
    ids = None if segments is None else torch.tensor([segments[:length], sorted(segments[:length])])

    expected, expected_max = dense(q, k, v, ids, scale)
    with striped(rows, elements):
        out, maximum = attention(q, k, v, ids, scale)
        grads = torch.autograd.grad(out, (q, k, v), grad)

    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(maximum, expected_max.float(), atol=1e-6, rtol=1e-6)
    for ours, theirs in zip(grads, torch.autograd.grad(expected, (q, k, v), grad), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("packed", [False, True])
def test_the_memory_of_a_step_grows_with_the_length_and_not_with_its_square(packed: bool) -> None:
    def peak(length: int) -> int:
        q, k, v = (torch.randn(1, 4, length, d).requires_grad_() for d in (24, 24, 16))
        segments = (torch.arange(length) // 100).unsqueeze(0) if packed else None
        with striped(64, 1 << 16), LiveBytes() as live:  # so small that already the shortest takes its heads one by one
            attention(q, k, v, segments, 0.2)[0].sum().backward()
        return live.peak

    short, middle, long = peak(1024), peak(2048), peak(4096)
    assert long / middle < 2.1
    assert middle / short < 2.1
    assert long < 4 * 4096 * 4096 * 4 / 10, "a tenth of the logits alone"
