"""A rank's chunks of the model: layers i to j each, with its part of the experts. Made on meta, so that nothing is allocated that is not kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from abruzzi_jobs.distributed.exchange import share_experts
from abruzzi_jobs.distributed.mesh import Mesh
from abruzzi_jobs.models import Decoder, DecoderConfig


def build_stages(
    kind: type[Decoder],
    config: DecoderConfig,
    mesh: Mesh,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
) -> dict[int, Decoder]:
    """stage → chunk. The weights of a seed are the whole model's, whatever the layout; `seed` None: they are loaded later. Raises ValueError
    where model and layout do not fit."""
    layout = mesh.layout
    experts = None
    if layout.ep > 1:
        count = getattr(config, "num_experts", 0)
        if not count:
            raise ValueError(f"parallel.ep: {layout.ep}, but the model has no experts")
        experts = layout.experts(count, mesh.ep_rank)
    layers = layout.layers(config.num_layers)
    chunks = {}
    for stage in range(mesh.pp_rank, layout.stages, layout.pp):
        chunk = kind(config, layers=layers[stage], experts=experts, device="meta", dtype=dtype)
        chunk.to_empty(device=mesh.ranks.device)
        if seed is not None:
            chunk.init_weights(seed)
        share_experts(chunk, mesh)
        chunks[stage] = chunk
    return chunks


def named_parameters(chunks: Mapping[int, Decoder]) -> dict[str, nn.Parameter]:
    """Of all chunks, by their logical names."""
    return {name: parameter for chunk in chunks.values() for name, parameter in chunk.named_parameters()}
