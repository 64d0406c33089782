"""What `abruzzi artifacts export` calls: a pulled checkpoint folder becomes a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from abruzzi_jobs.export.huggingface import export_huggingface
from abruzzi_jobs.models.config import ModelConfig


def export_checkpoint(checkpoint: Path, directory: Path, tokenizer: Path | None) -> list[Path]:
    """Files written. `checkpoint` holds model.safetensors and state.json; `tokenizer` a tokenizer artifact's files."""
    state = json.loads((checkpoint / "state.json").read_text())
    config = ModelConfig.from_dict(state["config"]["model"])
    special: dict[str, int] = {}
    if tokenizer is not None:
        vocabulary = {
            t["content"]: t["id"] for t in json.loads((tokenizer / "tokenizer.json").read_text())["added_tokens"]
        }
        if "<|endoftext|>" in vocabulary:
            special = {"bos_token_id": vocabulary["<|endoftext|>"], "eos_token_id": vocabulary["<|endoftext|>"]}
    return export_huggingface(
        load_file(checkpoint / "model.safetensors"), config, directory, tokenizer=tokenizer, special_tokens=special
    )
