"""A model that every GPU test's matrices fit: whole 16 bytes in each dimension."""

from __future__ import annotations

from abruzzi_jobs.models import ModelConfig

SMALL = ModelConfig(
    vocab_size=1024,
    hidden_size=256,
    num_layers=3,
    num_heads=4,
    q_lora_rank=128,
    kv_lora_rank=64,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
    intermediate_size=512,
    moe_intermediate_size=128,
    num_experts=16,
    num_experts_per_token=4,
    max_position=512,
    init_std=0.05,
)
