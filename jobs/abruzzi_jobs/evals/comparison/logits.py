"""The largest attention logit of a checkpoint on held-out text: what QK-Clip bounds (paper section 2.1)."""

from __future__ import annotations

from pathlib import Path

import torch

from abruzzi_jobs.data.tokens import TokenDataset
from abruzzi_jobs.evals.checkpoint_model import load_model, training_window

SEQUENCES = 16


@torch.no_grad()
def largest_logit(checkpoint: Path, dataset: Path) -> float:
    """Over layers, heads and positions, signed and scaled as the softmax takes it. Raises AbruzziError bad_data where nothing is held out."""
    model, state = load_model(checkpoint)
    held_out = TokenDataset(dataset, sequence_length=training_window(state, model.config), split="heldout")
    batch = held_out.rows(0, min(SEQUENCES, held_out.num_sequences))
    tokens_BL, segments_BL = torch.from_numpy(batch.tokens_BL[:, :-1]), torch.from_numpy(batch.segments_BL[:, :-1])
    return float(model(tokens_BL, segment_ids_BL=segments_BL).max_logit_per_layer.max())
