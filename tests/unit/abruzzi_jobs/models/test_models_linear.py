"""Weights' gradients that are taken later are those of one whole backward pass."""

from __future__ import annotations

import pytest
import torch

from abruzzi_jobs.models import KimiK2, Llama, LlamaConfig, ModelConfig
from abruzzi_jobs.models.linear import Queue, deferring

KIMI = ModelConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8,
    qk_rope_head_dim=4, v_head_dim=8, intermediate_size=64, moe_intermediate_size=16, num_experts=8,
    num_experts_per_token=2,
)  # fmt: skip
LLAMA = LlamaConfig(
    vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=64
)


@pytest.mark.parametrize("kind", ["kimi", "llama"])
def test_gradients_apart_are_gradients_together(kind: str) -> None:
    model = KimiK2(KIMI, seed=0) if kind == "kimi" else Llama(LLAMA, seed=0)
    tokens_BL = torch.arange(32).view(2, 16)
    together = model(tokens_BL, tokens_BL).loss
    assert together is not None
    together.backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)

    queue: Queue = []
    with deferring(queue):
        apart = model(tokens_BL, tokens_BL).loss
    assert apart is not None
    assert apart.equal(together)
    apart.backward()
    later = {name for name, p in model.named_parameters() if p.grad is None}
    assert later == {name for name, p in model.named_parameters() if "layers." in name and "norm" not in name}
    for take in queue:
        take()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", [KimiK2(KIMI, seed=0), Llama(LLAMA, seed=0)], ids=["kimi", "llama"])
def test_gradients_apart_add_to_those_of_the_micro_batches_before_where_they_lie(model: KimiK2 | Llama) -> None:
    tokens_BL = torch.arange(32).view(2, 16)
    for batch_BL in (tokens_BL, tokens_BL.flip(0, 1)):
        loss = model(batch_BL, batch_BL).loss
        assert loss is not None
        loss.backward()
    wanted = {name: p.grad for name, p in model.named_parameters()}
    accumulators = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.grad = accumulators[name]
    for batch_BL in (tokens_BL, tokens_BL.flip(0, 1)):
        queue: Queue = []
        with deferring(queue):
            loss = model(batch_BL, batch_BL).loss
        assert loss is not None
        loss.backward()
        for take in queue:
            take()
    for name, parameter in model.named_parameters():
        assert parameter.grad is accumulators[name]
        torch.testing.assert_close(parameter.grad, wanted[name], rtol=1e-5, atol=1e-7)
