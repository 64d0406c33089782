"""YaRN's golden values, routing and balancing formulas, and gradients of every hand-written function in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from abruzzi_jobs.models import IGNORE, KimiK2, ModelConfig, YarnConfig
from abruzzi_jobs.models.loss import linear_cross_entropy
from abruzzi_jobs.models.norm import rms_norm
from abruzzi_jobs.models.rope import rope_inverse_frequencies, rotations, softmax_scale, yarn_correction_range
from abruzzi_jobs.models.router import Router
from abruzzi_jobs.models.swiglu import swiglu, weighted_swiglu

pytestmark = pytest.mark.parity

K2_YARN = YarnConfig(factor=32.0, original_max_position=4096, beta_fast=1.0, beta_slow=1.0)


def test_yarn_golden_values_of_k2(small: ModelConfig) -> None:
    assert yarn_correction_range(64, theta=50000.0, yarn=K2_YARN) == (19, 20)
    plain = rope_inverse_frequencies(64, theta=50000.0, yarn=None)
    scaled = rope_inverse_frequencies(64, theta=50000.0, yarn=K2_YARN)
    assert torch.equal(scaled[:20], plain[:20])
    torch.testing.assert_close(scaled[20:], plain[20:] / 32)
    k2 = replace(small, qk_nope_head_dim=128, qk_rope_head_dim=64, yarn=K2_YARN)
    assert softmax_scale(k2) * math.sqrt(192) == pytest.approx(1.81326, abs=1e-5)


def test_yarn_frequencies_equal_those_of_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    yarn = YarnConfig(factor=8.0, original_max_position=512, beta_fast=32.0)
    peer = DeepseekV3Config(
        qk_rope_head_dim=64,
        max_position_embeddings=4096,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
        },
    )
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](peer, torch.device("cpu"))
    assert attention_factor == 1.0
    torch.testing.assert_close(rope_inverse_frequencies(64, theta=10000.0, yarn=yarn), frequencies)


@pytest.mark.parametrize("factor", [2.0, 32.0, 40.0])
@pytest.mark.parametrize(("beta_fast", "mscale"), [(1.0, 1.0), (32.0, 1.0), (32.0, 0.707)])
def test_yarn_turns_and_scales_as_the_peers_attention_does(
    small: ModelConfig, factor: float, beta_fast: float, mscale: float
) -> None:
    """Cosines, sines and softmax scale of DeepseekV3Attention, of K2's and of DeepSeek V2's and V3's published values."""
    pytest.importorskip("transformers")
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

    yarn = YarnConfig(factor=factor, original_max_position=128, beta_fast=beta_fast, mscale_all_dim=mscale)
    ours = replace(small, qk_rope_head_dim=16, max_position=4096, yarn=yarn)
    rope = {
        "rope_type": "yarn", "rope_theta": 50000.0, "factor": factor, "original_max_position_embeddings": 128,
        "beta_fast": beta_fast, "beta_slow": 1.0, "mscale": mscale, "mscale_all_dim": mscale,
    }  # fmt: skip
    peer = DeepseekV3Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=32, kv_lora_rank=32, qk_nope_head_dim=16,
        qk_rope_head_dim=16, v_head_dim=16, max_position_embeddings=4096, rope_parameters=rope,
    )  # fmt: skip
    positions = torch.arange(1000)
    cos, sin = DeepseekV3RotaryEmbedding(peer)(torch.zeros(1), positions.unsqueeze(0))
    cis = rotations(ours, 1000, device=torch.device("cpu"))
    torch.testing.assert_close(cis.real, cos[0, :, :8], atol=1e-4, rtol=0)  # they say each angle twice, halves apart
    torch.testing.assert_close(cis.imag, sin[0, :, :8], atol=1e-4, rtol=0)
    assert softmax_scale(ours) == pytest.approx(DeepseekV3Attention(peer, 0).scaling, rel=1e-6)


def test_router_follows_the_reference_formulas(small: ModelConfig) -> None:
    router = Router(small)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        router.weight.normal_(generator=generator)
        router.e_score_correction_bias.normal_(generator=generator)
    x = torch.randn(2, 30, 64, generator=generator)

    routing = router(x)

    scores = torch.sigmoid(x.view(60, 64) @ router.weight.T).detach()
    for token in range(60):
        chosen = (scores[token] + router.e_score_correction_bias).topk(2).indices
        assert set(routing.experts_TK[token].tolist()) == set(chosen.tolist())
        total = scores[token, chosen].sum() + 1e-20
        expected = {int(e): float(scores[token, e] / total * 2.827) for e in chosen}
        for expert, weight in zip(routing.experts_TK[token], routing.weights_TK[token].detach(), strict=True):
            assert float(weight) == pytest.approx(expected[int(expert)], rel=1e-5)
    assert torch.equal(routing.counts_E, torch.bincount(routing.experts_TK.flatten(), minlength=8))

    alpha, total_loss = small.sequence_aux_loss, 0.0
    for row in range(2):
        mine = scores.view(2, 30, 8)[row]
        best = mine.sort(dim=-1, descending=True).indices[:, :2]  # of the scores alone: the bias must not show here
        assert set(map(tuple, best.sort(-1).values.tolist())) != set(
            map(tuple, routing.experts_TK.view(2, 30, 2)[row].sort(-1).values.tolist())
        )
        share = torch.bincount(best.flatten(), minlength=8) * 8 / (2 * 30)
        probability = (mine / mine.sum(-1, keepdim=True)).mean(0)
        total_loss += alpha * float((share * probability).sum()) / 2
    assert float(routing.aux_loss.detach()) == pytest.approx(total_loss, rel=1e-5)


def test_bias_moves_towards_starved_experts_and_gets_no_gradient(small: ModelConfig) -> None:
    router = Router(small)
    with torch.no_grad():
        router.weight.normal_(generator=torch.Generator().manual_seed(0))
    router.update_bias(torch.tensor([8, 0, 4, 4, 4, 4, 4, 4]), rate=1e-3)
    torch.testing.assert_close(router.e_score_correction_bias, torch.tensor([-1e-3, 1e-3, 0, 0, 0, 0, 0, 0]))
    router(torch.randn(1, 4, 64)).weights_TK.sum().backward()
    assert router.weight.grad is not None
    assert "e_score_correction_bias" not in dict(router.named_parameters())


def test_hand_written_gradients_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()

    targets = torch.tensor([1, 4, IGNORE, 0, 6])
    check = torch.autograd.gradcheck
    assert check(lambda x, w: rms_norm(x, w, 1e-6), (random(3, 5), random(5)))
    assert check(swiglu, (random(4, 6),))
    assert check(weighted_swiglu, (random(4, 6), random(4)))
    assert check(lambda x, w: linear_cross_entropy(x, w, targets), (random(5, 3), random(7, 3)))


def test_gradients_of_the_whole_model_in_float64(small: ModelConfig) -> None:
    config = replace(
        small,
        vocab_size=11,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        q_lora_rank=4,
        kv_lora_rank=4,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=4,
        intermediate_size=6,
        moe_intermediate_size=6,
        num_experts=3,
        init_std=0.3,
        sequence_aux_loss=0.1,
        yarn=YarnConfig(factor=4.0, original_max_position=16),
    )
    model = KimiK2(config, seed=0).double()
    tokens = torch.randint(0, 11, (2, 7), generator=torch.Generator().manual_seed(5))
    names = [name for name, _ in model.named_parameters()]

    def loss(*values: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(
            model, dict(zip(names, values, strict=True)), (tokens[:, :-1], tokens[:, 1:]), strict=False
        )
        return out.loss

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-5)
