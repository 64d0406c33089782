from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from abruzzi.contracts.recipe import TokenizerConfig
from abruzzi_jobs.data.text_shards import TextRecord, TextShardWriter
from abruzzi_jobs.data.tokenizer import train_tokenizer
from abruzzi_jobs.models import KimiK2
from abruzzi_jobs.models.config import ModelConfig

MODEL = {
    "vocab_size": 312, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 8, "intermediate_size": 64, "moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_token": 2,
    "max_position": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a model that knows nothing, and of its tokenizer."""
    root = tmp_path_factory.mktemp("model")
    corpus, tokenizer, weights = (root / name for name in ("corpus", "tokenizer", "checkpoint"))
    for folder in (corpus, tokenizer, weights):
        folder.mkdir()
    writer = TextShardWriter(corpus, "train")
    for number in range(40):
        writer.write(TextRecord(id=str(number), text=f"Question {number}: yes or no? " * 4, source="s", domain="d"))
    described = {"shards": writer.close(), "train_bytes": 8000, "heldout_bytes": 0}
    (corpus / "corpus.json").write_text(json.dumps(described))
    train_tokenizer(corpus, TokenizerConfig(vocab_size=300), out=tokenizer)
    model = KimiK2(ModelConfig.from_dict(MODEL), seed=0)
    with torch.no_grad():
        model.lm_head.weight.mul_(40)  # so that it likes some tokens more than others
    save_file(model.state_dict(), weights / "model.safetensors")
    (weights / "state.json").write_text(json.dumps({"config": {"model": MODEL}, "step": 1}))
    return {"checkpoint": str(weights), "tokenizer": str(tokenizer)}


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Three questions as JSON lines."""
    place = tmp_path / "items.jsonl"
    rows = [{"question": f"Question {n}:", "choices": [" yes", " no"], "answer": n % 2} for n in range(3)]
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place
