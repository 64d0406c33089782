"""A model whose positions turn otherwise from some step on is the model that was built so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from abruzzi_jobs.models import KimiK2, LlamaConfig, ModelConfig, YarnConfig
from abruzzi_jobs.models.llama import Llama
from abruzzi_jobs.models.rope import rope_inverse_frequencies

YARN = YarnConfig(factor=4.0, original_max_position=16)
K2 = ModelConfig(
    vocab_size=32, hidden_size=16, num_layers=2, num_heads=2, q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=8,
    v_head_dim=4, intermediate_size=16, moe_intermediate_size=8, num_experts=2, num_experts_per_token=1, init_std=0.3,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=32,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    intermediate_size=16,
    init_std=0.3,
)


@pytest.mark.parametrize(("kind", "config"), [(KimiK2, K2), (Llama, LLAMA)])
def test_yarn_set_later_is_yarn_built_in_and_can_be_taken_back(kind, config) -> None:
    tokens = torch.randint(0, 32, (1, 40), generator=torch.Generator().manual_seed(0))
    plain, built = kind(config, seed=1), kind(replace(config, yarn=YARN), seed=1)
    before = plain.logits(tokens)
    plain.set_yarn(YARN)
    assert torch.equal(plain.logits(tokens), built.logits(tokens))
    assert not torch.allclose(plain.logits(tokens), before, atol=1e-3)
    first, caches = plain.prefill(tokens[:, :-1])
    torch.testing.assert_close(plain.decode(tokens[:, -1], caches), built.logits(tokens)[:, -1], atol=1e-4, rtol=1e-4)
    assert first.shape == (1, 32)
    plain.set_yarn(None)
    assert torch.equal(plain.logits(tokens), before)


def test_a_factor_of_one_is_no_yarn() -> None:
    tokens = torch.randint(0, 32, (1, 40), generator=torch.Generator().manual_seed(0))
    one = YarnConfig(factor=1.0, original_max_position=16)
    assert torch.equal(
        rope_inverse_frequencies(8, theta=5e4, yarn=one), rope_inverse_frequencies(8, theta=5e4, yarn=None)
    )
    torch.testing.assert_close(KimiK2(replace(K2, yarn=one), seed=1).logits(tokens), KimiK2(K2, seed=1).logits(tokens))
