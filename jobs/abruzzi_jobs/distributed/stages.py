"""A rank's chunks of the model: layers i to j each, with its part of the experts. Made on meta, so that nothing is allocated that is not kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    layers: Sequence[range],
    dtype: torch.dtype = torch.float32,
    seed: int | None = None,
) -> dict[int, Decoder]:
    """stage → chunk. `layers` of every stage of the pipeline, in order; some may have none, and pass on what they get. The weights of a seed are
    the whole model's, whatever the layout; `seed` None: they are loaded later. Raises ValueError where model and layout do not fit."""
    layout = mesh.layout
    experts = None
    if layout.ep > 1:
        count = getattr(config, "num_experts", 0)
        if not count:
            raise ValueError(f"parallel.ep: {layout.ep}, but the model has no experts")
        experts = layout.experts(count, mesh.ep_rank)
    if len(layers) != layout.stages or [layer for own in layers for layer in own] != list(range(config.num_layers)):
        raise ValueError(
            f"parallel: the stages' layers do not cover {config.num_layers} layers in {layout.stages} stages"
        )
    chunks = {}
    for stage in range(mesh.pp_rank, layout.stages, layout.pp):
        ends = (stage == 0, stage == layout.stages - 1)
        chunk = kind(config, layers=layers[stage], ends=ends, experts=experts, device="meta", dtype=dtype)
        chunk.to_empty(device=mesh.ranks.device)
        if seed is not None:
            chunk.init_weights(seed)
        share_experts(chunk, mesh)
        chunks[stage] = chunk
    return chunks


def named_parameters(chunks: Mapping[int, Decoder]) -> dict[str, nn.Parameter]:
    """Of all chunks, by their logical names."""
    return {name: parameter for chunk in chunks.values() for name, parameter in chunk.named_parameters()}
