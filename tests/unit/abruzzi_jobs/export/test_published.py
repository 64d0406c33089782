"""Folders as their makers publish them: Kimi K2's whole index without a weight, FP8 with its block scales, and what is wrong with a damaged one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.checkpoint_model import load_model
from abruzzi_jobs.export import export_huggingface, import_huggingface, inspect_huggingface
from abruzzi_jobs.export.checkpoints_command import app
from abruzzi_jobs.export.published import dequantise
from abruzzi_jobs.models import KimiK2, ModelConfig

K2 = {
    "model_type": "kimi_k2", "architectures": ["DeepseekV3ForCausalLM"], "torch_dtype": "bfloat16", "vocab_size": 163840, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 64, "num_key_value_heads": 64,
    "n_shared_experts": 1, "n_routed_experts": 384, "num_experts_per_tok": 8, "routed_scaling_factor": 2.827, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_group": 1, "topk_group": 1,
    "scoring_func": "sigmoid", "norm_topk_prob": True, "first_k_dense_replace": 1, "max_position_embeddings": 131072, "rms_norm_eps": 1e-6,
    "rope_theta": 50000.0, "tie_word_embeddings": False, "num_nextn_predict_layers": 0,
    "rope_scaling": {"type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
}  # fmt: skip
"""The published config.json of Kimi K2 (paper, table 2, has the same sizes)."""

ATTENTION = {"q_a_proj": True, "q_a_layernorm": False, "q_b_proj": True, "kv_a_proj_with_mqa": True, "kv_a_layernorm": False, "kv_b_proj": True, "o_proj": True}  # fmt: skip
"""Of a layer, in the published order, and whether it is in FP8."""

SMALL = ModelConfig(
    vocab_size=160, hidden_size=144, num_layers=3, num_heads=2, q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
    intermediate_size=136, moe_intermediate_size=20, num_experts=4, num_experts_per_token=2,
)  # fmt: skip
"""No dimension is a multiple of 128: the last blocks are cut."""


def run_checkpoints(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def k2_names() -> Iterator[str]:
    """As the published index lists them, written out here without the product's own names."""
    yield from ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    for layer in range(61):
        stem = f"model.layers.{layer}"
        yield from (
            f"{stem}.input_layernorm.weight",
            f"{stem}.post_attention_layernorm.weight",
            f"{stem}.self_attn.rotary_emb.inv_freq",
        )
        for part, is_fp8 in ATTENTION.items():
            yield f"{stem}.self_attn.{part}.weight"
            if is_fp8:
                yield f"{stem}.self_attn.{part}.weight_scale_inv"
        groups = ["mlp"] if layer == 0 else [*(f"mlp.experts.{expert}" for expert in range(384)), "mlp.shared_experts"]
        for group in groups:
            for part in ("gate_proj", "up_proj", "down_proj"):
                yield from (f"{stem}.{group}.{part}.weight", f"{stem}.{group}.{part}.weight_scale_inv")
        if layer:
            yield from (f"{stem}.mlp.gate.weight", f"{stem}.mlp.gate.e_score_correction_bias")


@cache
def k2_index() -> str:
    """Spread over 61 files."""
    files = (f"model-{number:05}-of-00061.safetensors" for number in itertools.cycle(range(1, 62)))
    return json.dumps({"metadata": {}, "weight_map": dict(zip(k2_names(), files, strict=False))})


@pytest.fixture
def k2(tmp_path: Path) -> Path:
    """Configuration and index, no weights."""
    (tmp_path / "config.json").write_text(json.dumps(K2))
    (tmp_path / "model.safetensors.index.json").write_text(k2_index())
    return tmp_path


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


def test_the_index_of_a_trillion_parameters_is_judged_without_a_weight(k2: Path) -> None:
    report = inspect_huggingface(k2)

    assert report.faults == ()
    assert not report.complete
    assert len(report.missing_files) == 61
    assert round(report.parameters / 1e9, 1) == 1026.4
    assert report.expected_bytes == pytest.approx(1.03e12, rel=0.01)  # a byte each, and embeddings in two
    assert report.config.max_position == 131072


def test_a_tensor_that_such_an_index_lacks_or_adds_is_named(k2: Path) -> None:
    lost, added = "model.layers.40.mlp.experts.383.down_proj.weight", "model.layers.7.self_attn.q_proj.weight"

    def edit(table: dict[str, Any]) -> None:
        table["weight_map"][added] = table["weight_map"].pop(lost)
        table["metadata"]["total_size"] = 10**9

    change(k2 / "model.safetensors.index.json", edit)
    missing, unknown, size = inspect_huggingface(k2).faults
    assert missing == f"1 missing: {lost}"
    assert added in unknown
    assert size.startswith("its index promises 1,000,000,000 bytes")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A published folder of the small model: several shards, linear layers in FP8."""
    folder = tmp_path / "small"
    export_huggingface(KimiK2(SMALL, seed=1).state_dict(), SMALL, folder, shard_bytes=60_000)
    quantise(folder)
    return folder


def quantise(folder: Path) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        for name, weight_NC in list(tensors.items()):
            if name.endswith("_proj.weight") or "kv_a_proj" in name:
                tensors[name], tensors[name + "_scale_inv"] = blockwise_fp8(weight_NC)
                index["weight_map"][name + "_scale_inv"] = path.name
        save_file(tensors, path)
    index.pop("metadata")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def blockwise_fp8(weight_NC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight_NC.shape
    quantised = torch.empty_like(weight_NC, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-rows // 128), -(-columns // 128))
    for n in range(scales.shape[0]):
        for c in range(scales.shape[1]):
            block = (slice(128 * n, 128 * (n + 1)), slice(128 * c, 128 * (c + 1)))
            scales[n, c] = weight_NC[block].abs().max() / 448
            quantised[block] = (weight_NC[block] / scales[n, c]).to(torch.float8_e4m3fn)
    return quantised, scales


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**31))
def test_each_element_is_its_fp8_value_times_the_scale_of_its_block(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight_NC = torch.randn(rows, columns, generator=generator).to(torch.float8_e4m3fn)
    scale_nc = torch.rand(-(-rows // 128), -(-columns // 128), generator=generator)
    found = dequantise(weight_NC, scale_nc, dtype=torch.float32)
    for n, c in ((0, 0), (rows - 1, columns - 1), (rows // 2, columns // 3)):
        assert found[n, c] == weight_NC[n, c].float() * scale_nc[n // 128, c // 128]


def test_weights_in_fp8_come_within_their_rounding(small: Path) -> None:
    assert inspect_huggingface(small).complete
    config, state = import_huggingface(small)

    model = KimiK2(config, seed=2)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    original = KimiK2(SMALL, seed=1).state_dict()
    assert config == SMALL
    for name, tensor in model.state_dict().items():
        error = (tensor - original[name]).abs().max()
        assert error <= 2**-4 * original[name].abs().max(), name
    assert torch.equal(model.state_dict()["embed_tokens.weight"], original["embed_tokens.weight"])


def test_scales_that_do_not_fit_their_weight_are_refused(small: Path) -> None:
    path = next(path for path in small.glob("*.safetensors") if any("_scale_inv" in name for name in load_file(path)))
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("_scale_inv"))
    tensors[name] = torch.ones(7, 7)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=name.removesuffix("_scale_inv").replace(".", r"\.")):
        import_huggingface(small)


def test_what_is_wrong_with_the_files_is_said_tensor_by_tensor(small: Path) -> None:
    held = {path: [name for name in load_file(path) if name.endswith("weight")] for path in small.glob("*.safetensors")}
    path, (name, lost, *_) = next((path, names) for path, names in held.items() if len(names) > 1)
    tensors = {**load_file(path), name: torch.ones(3, 3)}
    del tensors[lost]
    save_file(tensors, path)

    told = " | ".join(inspect_huggingface(small).faults)
    assert f"1 not in the file that the index names: {lost}" in told
    assert f"{name} ([3, 3], the configuration says" in told


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: c.update(model_type="gpt2"), "model_type 'gpt2'"),
        (lambda c: c.update(n_group=8), "grouped routing"),
        (lambda c: c["rope_scaling"].update(mscale=0.7), "mscale"),
        (lambda c: c.pop("kv_lora_rank"), "it lacks 'kv_lora_rank'"),
    ],
)
def test_a_configuration_that_is_none_of_ours_says_why(
    k2: Path, edit: Callable[[dict[str, Any]], None], said: str
) -> None:
    change(k2 / "config.json", edit)
    with pytest.raises(AbruzziError, match=said):
        inspect_huggingface(k2)


def test_an_index_that_leads_out_of_its_folder_is_refused(k2: Path) -> None:
    change(
        k2 / "model.safetensors.index.json",
        lambda table: table["weight_map"].update({"model.norm.weight": "../x.safetensors"}),
    )
    with pytest.raises(AbruzziError, match=r"\.\./x"):
        inspect_huggingface(k2)


def test_a_file_that_is_cut_short_is_named(small: Path) -> None:
    path = sorted(small.glob("*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(AbruzziError, match=path.name):
        inspect_huggingface(small)


def test_the_commands_inspect_and_import(small: Path, tmp_path: Path) -> None:
    said = run_checkpoints("inspect", str(small), "--json")
    assert json.loads(said.stdout)["complete"] is True
    assert "whole" in run_checkpoints("inspect", str(small)).stdout

    out = tmp_path / "out"
    told = json.loads(run_checkpoints("import", str(small), str(out), "--json").stdout)
    assert told["files"]["model.safetensors"] == (out / "model.safetensors").stat().st_size
    assert load_model(out)[0].config == SMALL
    again = run_checkpoints("import", str(small), str(out))
    assert isinstance(again.exception, AbruzziError)
    assert "is not empty" in again.exception.message


def test_inspect_exits_with_1_where_a_model_is_not_whole_by_its_own_index(k2: Path) -> None:
    change(k2 / "model.safetensors.index.json", lambda table: table["weight_map"].pop("model.norm.weight"))
    said = run_checkpoints("inspect", str(k2))
    assert said.exit_code == 1
    assert "1 missing: model.norm.weight" in said.stdout
