"""Loading: the platform has picked and verified the manifest; here its files become tensors again."""

from __future__ import annotations

import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from abruzzi.client.stage import LocalArtifact
from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.models import KimiK2
from abruzzi_jobs.optim import MuonClip


def load_checkpoint(artifact: LocalArtifact, model: KimiK2, optimizer: MuonClip) -> dict[str, Any]:
    """state.json, after model, optimizer and random state are restored. Raises AbruzziError bad_data when they do not fit together."""
    try:
        state: dict[str, Any] = json.loads(artifact.path("state.json").read_text())
        weights = load_file(artifact.path("model.safetensors"))
        missing, unknown = model.load_state_dict(weights, strict=False)
        if missing or unknown:
            raise ValueError(
                f"missing {', '.join(missing[:3]) or 'nothing'}, unknown {', '.join(unknown[:3]) or 'nothing'}"
            )
        optimizer.load_state_dict(load_file(artifact.path("optimizer.safetensors")))
        torch.set_rng_state(load_file(artifact.path("rng.safetensors"))["torch"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data",
            f"Checkpoint {artifact.manifest.name} does not fit this stage: {error}.",
            hint="Model, optimizer kind and dtype must be those that it was saved with.",
        ) from error
    return state
