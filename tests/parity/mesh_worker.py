"""A rank of any layout, or one process alone by the plain Trainer, on a fixed global batch; writes what it saw. Started by test_layouts.py."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from abruzzi.contracts.training import ModelConfig as ContractModel
from abruzzi.contracts.training import ParallelConfig
from abruzzi.plan.layout import layer_ranges
from abruzzi_jobs.distributed import Layout, Mesh, Ranks, start_ranks, stop_ranks
from abruzzi_jobs.distributed.stages import build_stages, named_parameters
from abruzzi_jobs.distributed.zero1 import ShardedMuonClip
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import HeldOut, Rows
from abruzzi_jobs.train.parallel import ParallelTrainer
from abruzzi_jobs.train.trainer import Trainer

SEQUENCES = 16
LENGTH = 16
OPTIMIZER = OptimizerConfig(newton_schulz_precision="float32", qk_clip_threshold=0.2)
"""A threshold that some heads' logits exceed."""


def batches(steps: int, share: slice) -> list[Rows]:
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(steps):
        start = torch.randint(0, 64, (SEQUENCES, 1), generator=generator)
        tokens_BL = (start + 5 * torch.arange(LENGTH + 1)) % 64
        ends = torch.randint(1, LENGTH, (SEQUENCES, 1), generator=generator)  # a second document in each row
        segments_BL = (torch.arange(LENGTH + 1) >= ends).to(torch.int32)
        mine_BL = tokens_BL[share]
        found.append(Rows(mine_BL, segments_BL[share], target_bytes=mine_BL[:, 1:].numel()))
    return found


def alone(model_config: ModelConfig, dtype: torch.dtype, ranks: Ranks) -> tuple[Any, list[Any]]:
    model = KimiK2(model_config, seed=0, dtype=dtype)
    optimizer = build_optimizer(model.named_parameters(), OPTIMIZER, model=model_config)
    return Trainer(model, optimizer, ranks, micro_sequences=2, watch=DivergenceWatch()), [model]


def together(model_config: ModelConfig, dtype: torch.dtype, mesh: Mesh) -> tuple[Any, list[Any]]:
    given = ContractModel.model_validate(model_config.to_dict())
    ranges = layer_ranges(given, ParallelConfig(pp=mesh.layout.pp, vpp=mesh.layout.vpp))
    chunks = build_stages(KimiK2, model_config, mesh, layers=ranges, dtype=dtype, seed=0)
    layers = sorted(int(layer) for chunk in chunks.values() for layer in chunk.layers)
    optimizer = ShardedMuonClip(named_parameters(chunks), OPTIMIZER, model=model_config, layers=layers, mesh=mesh)
    trainer = ParallelTrainer(
        chunks, optimizer, mesh, dtype=dtype, micro_sequences=SEQUENCES // mesh.layout.dp // 4, watch=DivergenceWatch()
    )
    return trainer, list(chunks.values())


def main(directory: str, name: str, layout: str, dtype: str, steps: str) -> None:
    torch.set_num_threads(1)
    ranks = start_ranks(timeout_s=600)
    config = ModelConfig.from_dict(json.loads((Path(directory) / "model.json").read_text()))
    width = getattr(torch, dtype)
    if layout == "alone":
        share = slice(None)
        trainer, models = alone(config, width, ranks)
    else:
        mesh = Mesh(ranks, Layout(**json.loads(layout)))
        rows = SEQUENCES // mesh.layout.dp
        share = slice(mesh.data_rank * rows, (mesh.data_rank + 1) * rows)
        trainer, models = together(config, width, mesh)
    history = []
    for step, rows in enumerate(batches(int(steps), share)):
        result = trainer.step(step, rows, sequences=SEQUENCES, lr_scale=1.0, measure=step == 0)
        history.append(
            {
                "loss": result.loss, "aux": result.aux_loss, "norm": result.grad_norm, "bits": result.bits_per_byte,
                "max_logit": result.max_logit_YH.tolist(), "counts": result.expert_counts_ME.tolist(),
                "clip": asdict(result.clip),
            }
        )  # fmt: skip
    held_out = trainer.held_out_loss(HeldOut(batches(1, share)[0], targets=SEQUENCES * LENGTH))
    statistics = trainer.optimizer.statistics() if layout != "alone" else trainer._updates.optimizer.statistics()
    spectra = trainer.optimizer.spectra() if layout != "alone" else trainer._updates.optimizer.spectra()
    bias = {
        key: tensor.tolist() for model in models for key, tensor in model.state_dict().items() if "correction" in key
    }
    found = {
        "history": history, "bias": bias, "held_out": held_out, "statistics": asdict(statistics),
        "spectra": {layer: {side: asdict(s) for side, s in sides.items()} for layer, sides in spectra.items()},
    }  # fmt: skip
    (Path(directory) / f"{name}-rank-{ranks.rank}.json").write_text(json.dumps(found))
    stop_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
