"""QK-Clip through the real model: one clip maps a head's maximum to the threshold exactly, on the same inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from abruzzi_jobs.models import KimiK2, ModelConfig, YarnConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

pytestmark = pytest.mark.parity


def first_layer(small: ModelConfig, **changes: object) -> KimiK2:
    """One layer: its input does not depend on what is clipped, so its logits can be compared before and after."""
    config = replace(small, num_layers=1, **changes)
    model = KimiK2(config, seed=3)
    with torch.no_grad():
        model.layers["0"].self_attn.q_b_proj.weight.mul_(20)
    return model


@pytest.mark.parametrize("alpha", [0.5, 0.0, 1.0, 0.3])
@pytest.mark.parametrize("yarn", [None, YarnConfig(factor=32.0, original_max_position=64)])
def test_one_clip_maps_every_exploding_head_to_tau(small: ModelConfig, alpha: float, yarn: YarnConfig | None) -> None:
    model = first_layer(small, yarn=yarn)
    tokens = torch.randint(0, 512, (3, 128), generator=torch.Generator().manual_seed(0))
    before = model(tokens).max_logit_per_layer
    tau = float(before.median())
    config = OptimizerConfig(qk_clip_threshold=tau, qk_clip_alpha=alpha)
    optimizer = build_optimizer(model.named_parameters(), config, model=model.config)
    values_before = model.layers["0"].self_attn.kv_b_proj.weight.detach().clone()

    statistics = optimizer.clip_qk(before)
    after = model(tokens).max_logit_per_layer

    exploding = before > tau
    assert 0 < int(exploding.sum()) < exploding.numel()
    assert statistics.clipped_heads == int(exploding.sum())
    assert statistics.gamma_min == pytest.approx(tau / float(before.max()))
    assert ((after[exploding] - tau).abs() / tau).max() <= 1e-5
    torch.testing.assert_close(after[~exploding], before[~exploding], rtol=1e-6, atol=0)
    # Values are untouched.
    per_head = (4, 32, 32)
    torch.testing.assert_close(
        model.layers["0"].self_attn.kv_b_proj.weight.detach().view(per_head)[:, 16:],
        values_before.view(per_head)[:, 16:],
        rtol=0,
        atol=0,
    )


def test_bfloat16_clips_master_and_compute_copy(small: ModelConfig) -> None:
    wide = first_layer(small)
    model = KimiK2(wide.config, dtype=torch.bfloat16)
    model.load_state_dict(wide.state_dict())
    tokens = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(0))
    before = model(tokens).max_logit_per_layer
    tau = float(before.max()) / 3
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(qk_clip_threshold=tau), model=model.config)
    optimizer.clip_qk(before)
    name = "layers.0.self_attn.q_b_proj.weight"
    master = optimizer.state_dict()[f"master.{name}"]
    assert master.dtype == torch.float32
    assert torch.equal(master.bfloat16(), model.layers["0"].self_attn.q_b_proj.weight.detach())
    assert float(model(tokens).max_logit_per_layer.max()) == pytest.approx(tau, rel=0.02)


def test_plain_muon_never_clips(small: ModelConfig) -> None:
    model = first_layer(small)
    optimizer = build_optimizer(
        model.named_parameters(), OptimizerConfig(kind="muon", qk_clip_threshold=1e-3), model=model.config
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert optimizer.clip_qk(torch.full((1, 4), 50.0)).clipped_heads == 0
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
