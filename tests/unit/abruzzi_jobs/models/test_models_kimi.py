"""The model as a whole: stages, packing, decoding, memory, and what it needs to import."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields, replace

import pytest
import torch

from abruzzi.contracts import training as contract
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import IGNORE, KimiK2, ModelConfig, generate
from abruzzi_jobs.models.loss import linear_cross_entropy
from abruzzi_jobs.optim import OptimizerConfig

NANO = ModelConfig.from_dict(contract.ModelConfig(preset="nano").model_dump())
DEEP = replace(NANO, num_layers=4, init_std=0.1)


def tokens(rows: int, length: int, vocab: int = 512) -> torch.Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(0))


def test_configurations_have_the_contracts_fields_and_defaults() -> None:
    for ours, theirs in ((ModelConfig, contract.ModelConfig), (OptimizerConfig, contract.OptimizerConfig)):
        names = set(theirs.model_fields) - {"preset"}
        assert {field.name for field in fields(ours)} == names
    assert OptimizerConfig.from_dict(contract.OptimizerConfig().model_dump()) == OptimizerConfig()
    given = contract.ModelConfig(preset="nano", yarn=contract.YarnConfig(factor=4.0)).model_dump()
    assert ModelConfig.from_dict(given).yarn is not None
    assert MemoryPolicy.from_dict(contract.MemoryConfig().model_dump()) == MemoryPolicy()


def test_a_memory_policy_that_is_not_executed_is_refused() -> None:
    with pytest.raises(ValueError, match="core_attention is none of layernorm, swiglu"):
        MemoryPolicy.from_dict({"recompute": ("layernorm", "core_attention")})
    with pytest.raises(ValueError, match="unknown field fp4_activations"):
        MemoryPolicy.from_dict({"fp4_activations": True})


def test_pipeline_stages_compute_what_the_whole_model_computes() -> None:
    whole = KimiK2(DEEP, seed=7)
    first = KimiK2(DEEP, layers=range(0, 2), seed=7)
    last = KimiK2(DEEP, layers=range(2, 4), seed=7)
    x, y = tokens(2, 32), tokens(2, 32).roll(-1, 1)

    expected = whole(x, y)
    middle = first(x)
    out = last(None, y, hidden_BLD=middle.hidden_BLD)

    assert middle.loss is None
    assert set(first.state_dict()) | set(last.state_dict()) == set(whole.state_dict())
    assert torch.equal(out.loss_sum, expected.loss_sum)
    assert torch.equal(torch.cat((middle.max_logit_per_layer, out.max_logit_per_layer)), expected.max_logit_per_layer)
    assert torch.equal(torch.cat((middle.expert_counts, out.expert_counts)), expected.expert_counts)


def test_a_stage_is_built_on_meta_and_filled_later() -> None:
    stage = KimiK2(DEEP, layers=range(1, 3), device="meta")
    assert all(p.is_meta for p in stage.parameters())
    stage.to_empty(device="cpu")
    stage.init_weights(7)
    whole = KimiK2(DEEP, seed=7).state_dict()
    for name, tensor in stage.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_another_seed_begins_with_other_weights_in_every_matrix() -> None:
    one, same, other = (KimiK2(DEEP, seed=seed).state_dict() for seed in (1, 1, 7))
    matrices = [name for name, tensor in one.items() if tensor.ndim > 1]
    assert len(matrices) > 10
    assert all(torch.equal(one[name], same[name]) for name in matrices)
    assert not any(torch.equal(one[name], other[name]) for name in matrices)


def test_an_impossible_range_of_layers_is_refused() -> None:
    for layers in (range(3, 3), range(2, 9), range(0, 4, 2)):
        with pytest.raises(ValueError, match="layers"):
            KimiK2(DEEP, layers=layers, device="meta")


def test_packed_documents_do_not_see_each_other() -> None:
    model = KimiK2(DEEP, seed=1)
    x = tokens(1, 24)
    segments = torch.tensor([[0] * 10 + [1] * 14])
    packed = model.logits(x, segments)
    torch.testing.assert_close(packed[:, :10], model.logits(x[:, :10]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(packed[:, 10:], model.logits(x[:, 10:]), atol=1e-5, rtol=1e-4)


def test_the_maximum_logit_counts_visible_pairs_only() -> None:
    model = KimiK2(DEEP, seed=1)
    x = tokens(1, 24)
    packed = model(x, segment_ids_BL=torch.tensor([[0] * 10 + [1] * 14])).max_logit_per_layer[0]
    parts = torch.maximum(model(x[:, :10]).max_logit_per_layer[0], model(x[:, 10:]).max_logit_per_layer[0])
    torch.testing.assert_close(packed, parts, atol=1e-5, rtol=1e-5)


def test_decoding_with_the_latent_cache_equals_the_full_forward() -> None:
    model = KimiK2(DEEP, seed=1)
    x = tokens(2, 40)
    logits, caches = model.prefill(x[:, :25])
    for position in range(25, 40):
        torch.testing.assert_close(logits, model.logits(x[:, :position], last_only=True), atol=1e-4, rtol=1e-4)
        logits = model.decode(x[:, position], caches)


def test_generation_is_repeatable_and_stops_at_the_end_token() -> None:
    model = KimiK2(DEEP, seed=1)
    prompt = tokens(2, 5)
    greedy = generate(model, prompt, max_new_tokens=8, temperature=0)
    assert greedy.shape == (2, 8)
    sampled = [
        generate(model, prompt, max_new_tokens=8, top_p=0.9, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(*sampled)
    end = int(greedy[0, 1])
    stopped = generate(model, prompt[:1], max_new_tokens=8, temperature=0, end_token=end)
    assert stopped.tolist() == [greedy[0, : greedy[0].tolist().index(end) + 1].tolist()]


def test_token_losses_add_up_to_the_loss() -> None:
    model = KimiK2(DEEP, seed=1)
    x, y = tokens(2, 32), tokens(2, 32).roll(-1, 1)
    y[0, :7] = IGNORE
    out = model(x, y)
    losses = model.token_losses(x, y)
    assert (losses[0, :7] == 0).all()
    assert int(out.num_targets) == 57
    torch.testing.assert_close(losses.sum(), out.loss_sum.detach(), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("ignored", [0, 5, 700])
def test_chunked_cross_entropy_is_torchs(ignored: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(700, 16, generator=generator, requires_grad=True)
    weight = torch.randn(5000, 16, generator=generator, requires_grad=True)  # several chunks
    targets = torch.randint(0, 5000, (700,), generator=generator)
    targets[:ignored] = IGNORE
    expected = torch.nn.functional.cross_entropy(x @ weight.T, targets, reduction="sum")
    expected_grads = torch.autograd.grad(expected * 0.5, (x, weight))
    loss = linear_cross_entropy(x, weight, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    for ours, theirs in zip(torch.autograd.grad(loss * 0.5, (x, weight)), expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_experts_without_tokens_get_zero_gradients() -> None:
    model = KimiK2(DEEP, seed=1)
    with torch.no_grad():
        for moe in model.moe_layers():
            moe.gate.e_score_correction_bias[2:] = -10
    out = model(tokens(2, 16), tokens(2, 16))
    out.loss.backward()
    for moe, counts in zip(model.moe_layers(), out.expert_counts, strict=True):
        assert counts[2:].sum() == 0
        assert (moe.experts.gate_up_proj.grad[2:] == 0).all()
        assert moe.experts.gate_up_proj.grad[:2].abs().max() > 0


def test_widths_that_grouped_mm_cannot_take_work_too() -> None:
    odd = replace(DEEP, moe_intermediate_size=30, hidden_size=62)
    model = KimiK2(odd, seed=1)
    out = model(tokens(2, 16), tokens(2, 16))
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_balancing_evens_out_the_experts() -> None:
    model = KimiK2(replace(NANO, num_dense_layers=0, num_layers=1), seed=1)
    with torch.no_grad():
        model.moe_layers()[0].gate.weight.mul_(30)
    x = tokens(4, 64)
    first = model(x).expert_counts[0].float()
    for _ in range(150):
        model.update_router_bias(model(x).expert_counts, rate=1e-2)
    last = model(x).expert_counts[0].float()
    assert last.max() / last.mean() < 0.5 * first.max() / first.mean() + 0.5


def test_forward_and_backward_give_the_same_bits_twice() -> None:
    runs = []
    for _ in range(2):
        model = KimiK2(DEEP, seed=1)
        out = model(tokens(4, 64), tokens(4, 64))
        out.loss.backward()
        runs.append([out.loss.detach()] + [p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_the_model_imports_torch_and_numpy_only() -> None:
    """By what lies in sys.modules afterwards: torch, numpy, what these two load themselves, and the standard library.

    Kernels import Triton, which comes with PyTorch's CUDA builds, and are imported where a tensor lies on a GPU.
    """
    code = """
import importlib, pkgutil, sys
import torch, numpy, torch.distributed, torch.optim.adamw, torch.nn.attention.flex_attention
before = set(sys.modules)
for package in ("models", "optim", "distributed", "memory"):
    parent = importlib.import_module(f"abruzzi_jobs.{package}")
    for module in pkgutil.walk_packages(parent.__path__, parent.__name__ + "."):
        if "kernels." not in module.name and not module.name.endswith("_kernels"):
            importlib.import_module(module.name)
ours = {name for name in sys.modules if name.startswith("abruzzi_jobs.")}
assert len(ours) > 20, ours
allowed = {"torch", "numpy", *sys.stdlib_module_names}
others = {name.split(".")[0] for name in set(sys.modules) - before - ours} - allowed - {"abruzzi_jobs"}
strange = {name for name in ours if name.split(".")[1] not in ("models", "optim", "distributed", "memory")}
assert not others and not strange, (others, strange)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_is_made_on_meta_and_takes_a_step_without_pytorchs_compiler() -> None:
    code = """
import sys
import torch
from abruzzi.contracts import training as contract
from abruzzi_jobs.models import KimiK2, ModelConfig
model = KimiK2(ModelConfig.from_dict(contract.ModelConfig(preset="nano").model_dump()), device="meta")
model.to_empty(device="cpu")
model.init_weights(0)
tokens_BL = torch.zeros(1, 8, dtype=torch.int64)
model(tokens_BL, tokens_BL).loss.backward()
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
