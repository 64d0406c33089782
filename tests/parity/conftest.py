"""Small models for comparisons with other people's code."""

from __future__ import annotations

import pytest
from one_thread import one_thread

from abruzzi_jobs.models import ModelConfig

__all__ = ["one_thread"]


@pytest.fixture
def small() -> ModelConfig:
    """Three layers, one dense; weights large enough that attention and routing are far from uniform."""
    return ModelConfig(
        vocab_size=512,
        hidden_size=64,
        num_layers=3,
        num_heads=4,
        q_lora_rank=32,
        kv_lora_rank=32,
        qk_nope_head_dim=16,
        qk_rope_head_dim=8,
        v_head_dim=16,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_experts=8,
        num_experts_per_token=2,
        max_position=256,
        init_std=0.1,
    )
