"""The `[stage.model]` table that a checkpoint was trained with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.checkpoint.state import STATE_FILE
from abruzzi_jobs.data.tokenizer import load_tokenizer


def model_table(checkpoint: Path, tokenizer: Path) -> dict[str, Any]:
    """Of a checkpoint's folder. Raises AbruzziError bad_data where it names no model, or has fewer tokens than the tokenizer."""
    try:
        table = dict(json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))["config"]["model"])
        known, _ = int(table["vocab_size"]), int(table["max_position"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbruzziError(
            "bad_data",
            f"{STATE_FILE} of the input checkpoint names no model ({error}).",
            hint="Give the stage the `checkpoint` output of a stage that trains.",
        ) from error
    vocabulary = load_tokenizer(tokenizer).get_vocab_size()
    if vocabulary > known:
        raise AbruzziError(
            "bad_data",
            f"The tokenizer has {vocabulary} tokens, the checkpoint's model {known}.",
            hint="Give the stage the tokenizer that the checkpoint was trained with.",
        )
    return table
