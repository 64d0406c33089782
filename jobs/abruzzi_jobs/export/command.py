"""What `abruzzi artifacts export` calls: a pulled checkpoint folder becomes a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS, tensors_of_folder
from abruzzi_jobs.export.huggingface import export_huggingface
from abruzzi_jobs.models.config import config_from_table


def export_checkpoint(checkpoint: Path, directory: Path, tokenizer: Path | None) -> list[Path]:
    """Files written. `checkpoint` holds the weights, in one file or in several ranks' parts, and state.json; `tokenizer` a tokenizer artifact's files."""
    state = json.loads((checkpoint / "state.json").read_text())
    config = config_from_table(state["config"]["model"])
    special: dict[str, int] = {}
    if tokenizer is not None:
        numbers = {
            t["content"]: t["id"] for t in json.loads((tokenizer / "tokenizer.json").read_text())["added_tokens"]
        }
        settings = json.loads((tokenizer / "tokenizer_config.json").read_text())
        named = {f"{kind}_token_id": settings.get(f"{kind}_token") for kind in ("bos", "eos", "pad")}
        special = {key: numbers[token] for key, token in named.items() if token in numbers}
    return export_huggingface(
        tensors_of_folder(checkpoint, WEIGHTS), config, directory, tokenizer=tokenizer, special_tokens=special
    )
