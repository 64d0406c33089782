"""Llama's architecture (arXiv 2307.09288): grouped-query attention, dense SwiGLU layers. SmolLM2's is one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from abruzzi_jobs.models.config import LlamaConfig, config_from_table
from abruzzi_jobs.models.decoder import Decoder
from abruzzi_jobs.models.gqa import GroupedQueryAttention
from abruzzi_jobs.models.model import KimiK2


class Llama(Decoder):
    attention = GroupedQueryAttention


def model_from_table(
    values: Mapping[str, Any], *, device: Any = None, dtype: torch.dtype = torch.float32, seed: int | None = None
) -> Decoder:
    """A model of the architecture that a checkpoint's table names. Raises ValueError, TypeError where the table is of none."""
    config = config_from_table(values)
    kind = Llama if isinstance(config, LlamaConfig) else KimiK2
    return kind(config, device=device, dtype=dtype, seed=seed)
