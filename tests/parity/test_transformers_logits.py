"""Our model against transformers' DeepseekV3ForCausalLM, with weights that travelled through our Hugging Face export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from abruzzi_jobs.export import export_huggingface, import_huggingface
from abruzzi_jobs.models import KimiK2, ModelConfig, YarnConfig

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4

VARIANTS = {
    "plain": {},
    "yarn": {"yarn": YarnConfig(factor=4.0, original_max_position=64, beta_fast=32.0)},
    "yarn_k2_betas": {"yarn": YarnConfig(factor=32.0, original_max_position=64)},
    "tied": {"tie_embeddings": True},
    "two_shared_experts": {"num_shared_experts": 2},
    "weights_not_normalised": {"norm_topk_prob": False},
    "all_layers_sparse": {"num_dense_layers": 0},
    "other_epsilon": {"rms_norm_eps": 1e-5},
}


def build(config: ModelConfig) -> KimiK2:
    model = KimiK2(config, seed=1)
    for moe in model.moe_layers():
        moe.gate.e_score_correction_bias.normal_(0, 0.1, generator=torch.Generator().manual_seed(2))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_weights_give_transformers_the_same_logits_and_loss(
    small: ModelConfig, variant: str, tmp_path: Path
) -> None:
    model = build(replace(small, **VARIANTS[variant]))
    export_huggingface(model.state_dict(), model.config, tmp_path)
    peer = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, 512, (2, 201), generator=torch.Generator().manual_seed(3))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    with torch.no_grad():
        expected = peer(input_ids=inputs, labels=targets, shift_labels=targets)
    out = model(inputs, targets)

    assert expected.logits.abs().max() > 1
    assert (model.logits(inputs) - expected.logits).abs().max() <= TOLERANCE
    assert abs(float(out.loss_sum.detach() / out.num_targets) - float(expected.loss)) <= TOLERANCE


def test_gradients_equal_those_of_transformers(small: ModelConfig, tmp_path: Path) -> None:
    model = build(small)
    export_huggingface(model.state_dict(), small, tmp_path)
    peer = transformers.DeepseekV3ForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).train()
    tokens = torch.randint(0, 512, (2, 129), generator=torch.Generator().manual_seed(3))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    peer(input_ids=inputs, labels=targets, shift_labels=targets).loss.backward()
    out = model(inputs, targets)
    (out.loss_sum / out.num_targets).backward()

    theirs = dict(peer.named_parameters())
    pairs = {
        "layers.1.self_attn.q_b_proj.weight": "model.layers.1.self_attn.q_b_proj.weight",
        "layers.1.self_attn.kv_b_proj.weight": "model.layers.1.self_attn.kv_b_proj.weight",
        "layers.1.self_attn.kv_a_proj_with_mqa.weight": "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
        "layers.2.mlp.experts.gate_up_proj": "model.layers.2.mlp.experts.gate_up_proj",
        "layers.2.mlp.experts.down_proj": "model.layers.2.mlp.experts.down_proj",
        "layers.2.mlp.gate.weight": "model.layers.2.mlp.gate.weight",
        "embed_tokens.weight": "model.embed_tokens.weight",
        "lm_head.weight": "lm_head.weight",
        "norm.weight": "model.norm.weight",
    }
    ours = dict(model.named_parameters())
    for name, other in pairs.items():
        torch.testing.assert_close(ours[name].grad, theirs[other].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_an_exported_folder_comes_back_as_the_same_model(small: ModelConfig, tmp_path: Path) -> None:
    config = replace(small, yarn=YarnConfig(factor=32.0, original_max_position=64))
    model = build(config)
    files = export_huggingface(model.state_dict(), config, tmp_path, shard_bytes=200_000)

    imported, state = import_huggingface(tmp_path)

    assert len([file for file in files if file.suffix == ".safetensors"]) > 1
    assert imported == config
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_the_tokenizer_travels_with_the_export(small: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    export_huggingface(
        build(small).state_dict(),
        small,
        tmp_path / "out",
        tokenizer=tmp_path / "tokenizer",
        special_tokens={"eos_token_id": 3},
    )
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert '"eos_token_id": 3' in (tmp_path / "out" / "config.json").read_text()


def test_bfloat16_follows_float32(small: ModelConfig) -> None:
    model = build(small)
    narrow = KimiK2(small, dtype=torch.bfloat16)
    narrow.load_state_dict(model.state_dict())
    tokens = torch.randint(0, 512, (2, 65), generator=torch.Generator().manual_seed(3))
    wide_loss = model(tokens[:, :-1], tokens[:, 1:]).loss
    narrow_loss = narrow(tokens[:, :-1], tokens[:, 1:]).loss
    assert narrow.moe_layers()[0].gate.weight.dtype == torch.float32
    assert abs(float(wide_loss) - float(narrow_loss)) < 0.05
