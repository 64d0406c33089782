"""Llama: decoding follows the forward pass, packed documents do not see each other, QK-Clip scales the query alone."""

from __future__ import annotations

import torch

from abruzzi_jobs.models import KimiK2, Llama, LlamaConfig, config_from_table, model_from_table
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

CONFIG = LlamaConfig(
    vocab_size=128, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=64, max_position=64,
    init_std=0.2, tie_embeddings=True,
)  # fmt: skip
TOKENS = torch.randint(0, 128, (2, 24), generator=torch.Generator().manual_seed(1))


def test_one_token_after_the_other_gives_the_logits_of_the_forward_pass() -> None:
    model = Llama(CONFIG, seed=1)
    expected = model.logits(TOKENS)
    logits, caches = model.prefill(TOKENS[:, :10])
    torch.testing.assert_close(logits, expected[:, 9])
    for place in range(10, 24):
        logits = model.decode(TOKENS[:, place], caches)
        torch.testing.assert_close(logits, expected[:, place], atol=1e-4, rtol=1e-4)


def test_packed_documents_do_not_see_each_other() -> None:
    model = Llama(CONFIG, seed=1)
    segments = torch.tensor([[0] * 10 + [1] * 14] * 2)
    other = TOKENS.clone()
    other[:, :10] = (other[:, :10] + 1) % 128
    torch.testing.assert_close(model.logits(TOKENS, segments)[:, 10:], model.logits(other, segments)[:, 10:])


def test_qk_clip_brings_the_largest_logit_to_the_threshold_and_leaves_the_shared_keys() -> None:
    model = Llama(CONFIG, seed=1)
    maxima = model(TOKENS).max_logit_per_layer
    threshold = float(maxima[0].median()) / 2
    assert threshold > 0
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(qk_clip_threshold=threshold), model=CONFIG)
    keys = model.state_dict()["layers.0.self_attn.k_proj.weight"].clone()
    clip = optimizer.clip_qk(maxima)
    after = model(TOKENS).max_logit_per_layer[0]
    assert clip.clipped_heads_per_layer[0] >= 1
    torch.testing.assert_close(after, maxima[0].clamp(max=threshold), atol=1e-4, rtol=1e-4)
    assert torch.equal(keys, model.state_dict()["layers.0.self_attn.k_proj.weight"])


def test_every_matrix_of_a_layer_is_muons_and_a_step_lowers_the_loss() -> None:
    model = Llama(CONFIG, seed=1)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(peak_lr=0.01), model=CONFIG)
    assert optimizer.num_matrices == 2 * (4 + 2 + 1)  # q k v o, gate and up, down
    before = model(TOKENS[:, :-1], TOKENS[:, 1:])
    before.loss.backward()
    optimizer.step()
    after = model(TOKENS[:, :-1], TOKENS[:, 1:])
    assert after.loss.item() < before.loss.item()


def test_a_checkpoints_table_names_its_architecture() -> None:
    model = model_from_table(CONFIG.to_dict(), device="meta")
    assert isinstance(model, Llama)
    assert config_from_table(CONFIG.to_dict()) == CONFIG
    kimi = dict(
        vocab_size=16, hidden_size=8, num_layers=1, num_heads=2, q_lora_rank=4, kv_lora_rank=4, qk_nope_head_dim=4,
        qk_rope_head_dim=2, v_head_dim=4, intermediate_size=8, moe_intermediate_size=4, num_experts=2, num_experts_per_token=1,
    )  # fmt: skip
    assert isinstance(model_from_table(kimi, device="meta"), KimiK2)
