"""MuonClip: who owns what, bounds of the update, state, masters, statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from abruzzi.contracts import training as contract
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import MuonClip, OptimizerConfig, build_optimizer, newton_schulz, plan_parameters

NANO = ModelConfig.from_dict(contract.ModelConfig(preset="nano").model_dump())


def build(
    config: OptimizerConfig | None = None, *, model: ModelConfig = NANO, dtype: torch.dtype = torch.float32
) -> tuple[KimiK2, MuonClip]:
    network = KimiK2(model, seed=0, dtype=dtype)
    return network, build_optimizer(network.named_parameters(), config or OptimizerConfig(), model=model)


def fill_gradients(network: KimiK2, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


@given(
    rows=st.integers(2, 48),
    cols=st.integers(2, 48),
    count=st.integers(1, 4),
    scale=st.floats(1e-5, 1e5),
    seed=st.integers(0, 1000),
    precision=st.sampled_from(["float32", "bfloat16"]),
)
@settings(max_examples=80, deadline=None)
def test_singular_values_and_update_rms_are_bounded(
    rows: int, cols: int, count: int, scale: float, seed: int, precision: str
) -> None:
    # A spread of at most ten between singular values, as five steps flatten; wider spreads are parity tests.
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(count, rows, cols, generator=generator), full_matrices=False)
    sigma = 1 + 9 * torch.rand(count, 1, min(rows, cols), generator=generator)
    result = newton_schulz((u * sigma) @ v * scale, precision=precision)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.35
    assert values.min() > 0.4
    rms = result.square().mean().sqrt() * 0.2 * max(rows, cols) ** 0.5
    assert 0.1 < rms < 0.3


@given(seed=st.integers(0, 1000), rows=st.integers(2, 24), cols=st.integers(2, 64))
@settings(max_examples=30, deadline=None)
def test_transposing_commutes_with_orthogonalising(seed: int, rows: int, cols: int) -> None:
    x = torch.randn(2, rows, cols, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        newton_schulz(x, precision="float32").transpose(1, 2),
        newton_schulz(x.transpose(1, 2).contiguous(), precision="float32"),
        atol=1e-4,
        rtol=1e-3,
    )


def test_every_matrix_of_the_layers_is_muons_and_nothing_else() -> None:
    network, optimizer = build()
    plans = {plan.name: plan for plan in optimizer.plans}
    assert {name for name, plan in plans.items() if plan.kind == "adamw"} == {
        name
        for name, p in network.named_parameters()
        if p.ndim == 1 or name in ("embed_tokens.weight", "lm_head.weight")
    }
    assert plans["layers.1.mlp.experts.gate_up_proj"].num_matrices == 2 * 8
    assert plans["layers.1.mlp.experts.down_proj"].num_matrices == 8
    assert plans["layers.0.mlp.gate_up_proj.weight"].num_matrices == 2
    assert plans["layers.1.mlp.gate.weight"].num_matrices == 1
    # 2 layers · 5 attention matrices, 3 dense, 3 shared, 1 router, 24 experts'.
    assert optimizer.num_matrices == 2 * 5 + 3 + 3 + 1 + 24
    assert optimizer.statistics().muon_parameters + optimizer.statistics().adamw_parameters == sum(
        p.numel() for p in network.parameters()
    )


def test_a_plan_splits_heads_on_request_and_counts_k2s_experts() -> None:
    shapes = {"layers.0.self_attn.q_b_proj.weight": (2 * 24, 32), "layers.0.self_attn.kv_b_proj.weight": (2 * 32, 32)}
    plans = plan_parameters(shapes, OptimizerConfig(muon_split="head"), model=NANO)
    assert [(plan.split, plan.num_matrices, plan.rows) for plan in plans] == [("heads", 2, 24), ("heads", 2, 32)]
    k2 = ModelConfig.from_dict(contract.ModelConfig(preset="k2").model_dump())
    stage = KimiK2(k2, layers=range(1, 3), device="meta")
    planned = plan_parameters({n: tuple(p.shape) for n, p in stage.named_parameters()}, OptimizerConfig(), model=k2)
    assert sum(plan.num_matrices for plan in planned) == 2 * (384 * 3 + 3 + 1 + 5)
    expert = next(plan for plan in planned if plan.name.endswith("experts.down_proj"))
    assert (expert.num_matrices, expert.rows, expert.cols) == (384, 7168, 2048)


def test_head_split_orthogonalises_each_head_by_itself() -> None:
    network, optimizer = build(OptimizerConfig(muon_split="head", newton_schulz_precision="float32", weight_decay=0.0))
    weight = network.layers["0"].self_attn.q_b_proj.weight
    before = weight.detach().clone()
    fill_gradients(network, 1)
    expected = newton_schulz(weight.grad.view(2, 24, 32).clone(), precision="float32") * 0.2 * 32**0.5
    optimizer.step()
    torch.testing.assert_close((before - weight.detach()) / 2e-3, expected.view(48, 32), atol=1e-3, rtol=1e-3)


def test_an_expert_without_gradient_still_decays_and_keeps_its_momentum() -> None:
    network, optimizer = build(OptimizerConfig(newton_schulz_precision="float32", peak_lr=0.1, weight_decay=0.5))
    experts = network.layers["1"].mlp.experts.down_proj
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    experts.grad[0] = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    before = experts.detach().clone()
    optimizer.step()
    torch.testing.assert_close(experts.detach()[1:], before[1:] * (1 - 0.1 * 0.5))
    experts.grad.zero_()
    moved = experts.detach()[0].clone()
    optimizer.step()
    assert (experts.detach()[0] - moved * (1 - 0.1 * 0.5)).abs().max() > 1e-3
    momentum = optimizer.state_dict()["momentum.layers.1.mlp.experts.down_proj"]
    assert momentum[0].abs().max() > 0
    assert momentum[1:].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["muonclip", "muon", "adamw"])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    config = OptimizerConfig(kind=kind)
    network, optimizer = build(config, dtype=dtype)
    for seed in range(3):
        fill_gradients(network, seed)
        optimizer.step(0.7)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    other, restored = build(config, dtype=dtype)
    other.load_state_dict(weights)
    restored.load_state_dict(saved)
    for model, rule in ((network, optimizer), (other, restored)):
        fill_gradients(model, 9)
        rule.step(0.5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for name, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name


def test_state_of_another_optimizer_is_refused() -> None:
    _, optimizer = build()
    _, other = build(OptimizerConfig(kind="adamw"))
    with pytest.raises(ValueError, match="missing"):
        optimizer.load_state_dict(other.state_dict())


def test_float32_masters_let_small_updates_add_up() -> None:
    network, optimizer = build(OptimizerConfig(peak_lr=1e-5, weight_decay=0.0), dtype=torch.bfloat16)
    start = {name: p.detach().clone() for name, p in network.named_parameters()}
    for _ in range(30):
        fill_gradients(network, 1)
        optimizer.step()
    name = "layers.0.self_attn.o_proj.weight"
    master = optimizer.state_dict()[f"master.{name}"]
    assert torch.equal(master.bfloat16(), dict(network.named_parameters())[name].detach())
    assert (master - start[name].float()).square().mean().sqrt() > 20 * 1e-5 * 0.15


def test_measured_updates_have_the_matched_rms() -> None:
    network, optimizer = build()
    fill_gradients(network, 1)
    optimizer.step(measure=True)
    statistics = optimizer.statistics()
    assert 0.1 < statistics.update_rms_muon < 0.3
    assert 0.5 < statistics.update_rms_adamw < 1.5


def test_gradient_scale_is_what_clipping_needs() -> None:
    config = OptimizerConfig(newton_schulz_precision="float32")
    networks = [build(config) for _ in range(2)]
    for network, _ in networks:
        fill_gradients(network, 1)
    assert float(networks[0][1].gradient_norm()) == pytest.approx(
        float(torch.nn.utils.get_total_norm([p.grad for p in networks[0][0].parameters()])), rel=1e-5
    )
    networks[0][1].step(grad_scale=0.25)
    for parameter in networks[1][0].parameters():
        parameter.grad.mul_(0.25)
    networks[1][1].step()
    for a, b in zip(networks[0][0].parameters(), networks[1][0].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_spectra_of_queries_and_keys() -> None:
    network, optimizer = build()
    with torch.no_grad():
        network.layers["0"].self_attn.q_b_proj.weight.copy_(torch.eye(48, 32) * 3)
        # Rank one keys; values must not count.
        kv_b = network.layers["0"].self_attn.kv_b_proj.weight.view(2, 32, 32)
        kv_b.fill_(100.0)
        kv_b[:, :16] = 0
        kv_b[0, 0, 0] = 5
    found = optimizer.spectra()
    assert found[0]["q"].spectral_norm == pytest.approx(3)
    assert found[0]["q"].singular_value_entropy == pytest.approx(1)
    assert found[0]["k"].spectral_norm == pytest.approx(5)
    assert found[0]["k"].singular_value_entropy == pytest.approx(0, abs=1e-6)
    assert set(found) == {0, 1}


def test_muon_learns_faster_than_nothing_and_clips_while_it_does() -> None:
    model = replace(NANO, init_std=0.05)
    network, optimizer = build(OptimizerConfig(peak_lr=1e-2, qk_clip_threshold=0.05), model=model)
    generator = torch.Generator().manual_seed(0)
    losses, clipped = [], 0
    for _ in range(15):
        tokens = (torch.randint(0, 512, (4, 1), generator=generator) + 7 * torch.arange(33)) % 512
        out = network(tokens[:, :-1], tokens[:, 1:])
        out.loss.backward()
        optimizer.step()
        clipped += optimizer.clip_qk(out.max_logit_per_layer).clipped_heads
        optimizer.zero_grad()
        losses.append(float(out.loss.detach()))
    assert losses[-1] < losses[0] - 0.3
    assert clipped > 0


def test_a_wrong_number_of_layers_is_refused_by_the_clip() -> None:
    _, optimizer = build()
    with pytest.raises(ValueError, match="3 layers"):
        optimizer.clip_qk(torch.zeros(3, 2))


def test_a_matrix_that_no_rule_splits_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"layers\.0\.odd"):
        build_optimizer([("layers.0.odd", nn.Parameter(torch.zeros(2, 2, 2, 2)))], OptimizerConfig(), model=NANO)
