"""Our Llama against transformers' LlamaForCausalLM, with weights that travelled through our Hugging Face export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from abruzzi_jobs.export import export_huggingface, import_huggingface
from abruzzi_jobs.models import Llama, LlamaConfig

pytestmark = pytest.mark.parity
transformers = pytest.importorskip("transformers")

CONFIG = LlamaConfig(
    vocab_size=512, hidden_size=64, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=16, intermediate_size=128, max_position=256,
    init_std=0.1, tie_embeddings=True, rms_norm_eps=1e-5,
)  # fmt: skip
VARIANTS = {
    "tied": {},
    "own_head": {"tie_embeddings": False},
    "one_key_a_query": {"num_kv_heads": 4},
    "theta": {"rope_theta": 1e5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_weights_give_transformers_the_same_logits_and_gradients(variant: str, tmp_path: Path) -> None:
    model = Llama(replace(CONFIG, **VARIANTS[variant]), seed=1)
    export_huggingface(model.state_dict(), model.config, tmp_path)
    peer = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.randint(0, 512, (2, 130), generator=torch.Generator().manual_seed(3))
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    expected = peer(input_ids=inputs, labels=targets, shift_labels=targets)
    expected.loss.backward()
    out = model(inputs, targets)
    out.loss.backward()

    assert expected.logits.abs().max() > 1
    assert (model.logits(inputs) - expected.logits).abs().max() <= 1e-4
    ours, theirs = dict(model.named_parameters()), dict(peer.named_parameters())
    for name in ("embed_tokens.weight", "layers.1.self_attn.v_proj.weight", "layers.2.mlp.down_proj.weight"):
        torch.testing.assert_close(ours[name].grad, theirs[f"model.{name}"].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_an_exported_folder_comes_back_as_the_same_model(tmp_path: Path) -> None:
    model = Llama(CONFIG, seed=1)
    export_huggingface(model.state_dict(), CONFIG, tmp_path)

    imported, state = import_huggingface(tmp_path)

    assert imported == CONFIG
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
