"""Rotary embedding: properties that hold for every size."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.models import ModelConfig, YarnConfig
from abruzzi_jobs.models.rope import rope_inverse_frequencies, rotate, rotations, yarn_correction_range

sizes = st.integers(1, 32).map(lambda half: 2 * half)


def config(dim: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=8,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=dim,
        v_head_dim=8,
        intermediate_size=8,
        moe_intermediate_size=8,
        num_experts=2,
        num_experts_per_token=1,
    )


@given(dim=sizes, shift=st.integers(0, 40), seed=st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_logits_depend_on_the_distance_only(dim: int, shift: int, seed: int) -> None:
    cis = rotations(config(dim), 100, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(dim, generator=generator), torch.randn(dim, generator=generator)
    near = rotate(q, cis[20]) @ rotate(k, cis[7])
    far = rotate(q, cis[20 + shift]) @ rotate(k, cis[7 + shift])
    torch.testing.assert_close(near, far, atol=1e-3, rtol=1e-4)


@given(dim=sizes, position=st.integers(0, 99), seed=st.integers(0, 100))
@settings(max_examples=50, deadline=None)
def test_rotation_keeps_lengths_and_position_zero(dim: int, position: int, seed: int) -> None:
    cis = rotations(config(dim), 100, device=torch.device("cpu"))
    x = torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rotate(x, cis[position]).norm(), x.norm())
    assert torch.equal(rotate(x, cis[0]), x)


@given(
    dim=st.sampled_from([8, 16, 64, 128]),
    factor=st.floats(1.5, 64),
    original=st.sampled_from([512, 4096, 8192]),
    beta_fast=st.floats(1, 64),
    theta=st.sampled_from([1e4, 5e4, 1e6]),
)
@settings(max_examples=100, deadline=None)
def test_yarn_lies_between_untouched_and_interpolated(
    dim: int, factor: float, original: int, beta_fast: float, theta: float
) -> None:
    yarn = YarnConfig(factor=factor, original_max_position=original, beta_fast=beta_fast)
    plain = rope_inverse_frequencies(dim, theta=theta, yarn=None)
    scaled = rope_inverse_frequencies(dim, theta=theta, yarn=yarn)
    low, high = yarn_correction_range(dim, theta=theta, yarn=yarn)
    assert (scaled <= plain * (1 + 1e-6)).all()
    assert (scaled >= plain / factor * (1 - 1e-6)).all()
    torch.testing.assert_close(scaled[: low + 1], plain[: low + 1])
    torch.testing.assert_close(scaled[max(high, low + 1) :], plain[max(high, low + 1) :] / factor)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValueError, match="hidden_sizes"):
        ModelConfig.from_dict({**config(8).to_dict(), "hidden_sizes": 3})
