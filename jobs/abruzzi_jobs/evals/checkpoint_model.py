"""A model from a checkpoint artifact: its weights, in one file or in the parts of several ranks, and the configuration in state.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS, WEIGHTS_FILE, tensors_of_folder
from abruzzi_jobs.models import Decoder, DecoderConfig, model_from_table

STATE_FILE = "state.json"


def load_model(checkpoint: Path) -> tuple[Decoder, dict[str, Any]]:
    """(model in float32, ready to score; state.json).

    Raises AbruzziError bad_data when a file is missing, damaged or of another configuration.
    """
    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        tensors = tensors_of_folder(checkpoint, WEIGHTS)
        model = model_from_table(_model_table(state), device="meta").to_empty(device="cpu")
        missing, unknown = model.load_state_dict({n: t.float() for n, t in tensors.items()}, strict=False)
        if missing or unknown:
            raise ValueError(
                f"missing {', '.join(missing[:3]) or 'nothing'}, unknown {', '.join(unknown[:3]) or 'nothing'}"
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data",
            f"{checkpoint.name}: no model can be loaded from {WEIGHTS_FILE} and {STATE_FILE} ({error}).",
            hint="Give the stage the `checkpoint` output of a pretrain stage of this version.",
        ) from error
    return model.eval().requires_grad_(False), state


def training_window(state: Mapping[str, Any], config: DecoderConfig) -> int:
    """Positions that the model was trained on: the longest sequences of the phases up to the checkpoint's, where the state names them."""
    table = state.get("config", {})
    batch = table.get("batch", {})
    length = batch.get("sequence_length", config.max_position) if isinstance(batch, Mapping) else config.max_position
    phases = (table.get("schedule") or {}).get("anneal") or ()
    done = str(state.get("phase", "")).removeprefix("anneal-")
    begun = [phase.get("sequence_length") or 0 for phase in phases[: int(done) if done.isdigit() else 0]]
    return max(2, min(max(int(length), *begun, 0), config.max_position))


def threads(configured: int | None) -> None:
    """Sets torch's threads; absent leaves torch's choice."""
    if configured is not None:
        torch.set_num_threads(configured)


def _model_table(state: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's resolved table holds the model's, under "config"; a bare {"model": …} is read too."""
    table = state.get("config", state)
    return dict(table["model"])
