"""A data-parallel rank: train its share of a fixed global batch, write the losses. Started by test_data_parallel.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from abruzzi_jobs.distributed import GradientAccumulator, start_ranks, stop_ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer

STEPS = 8
SEQUENCES = 4


def main(directory: str, dtype: str, micro_batches: str) -> None:
    torch.set_num_threads(1)
    ranks = start_ranks(timeout_s=60)
    config = ModelConfig.from_dict(json.loads((Path(directory) / "model.json").read_text()))
    model = KimiK2(config, seed=0, dtype=getattr(torch, dtype))
    optimizer = build_optimizer(
        model.named_parameters(), OptimizerConfig(newton_schulz_precision="float32"), model=config
    )
    gradients = GradientAccumulator(model.named_parameters(), ranks=ranks)
    generator = torch.Generator().manual_seed(1)
    history = []
    for _ in range(STEPS):
        start = torch.randint(0, 64, (SEQUENCES, 1), generator=generator)
        tokens = (start + 5 * torch.arange(33)) % 64
        targets = tokens[:, 1:].clone()
        targets[0, :20] = -100
        total_targets = int((targets != -100).sum())
        mine = slice(ranks.rank * SEQUENCES // ranks.world_size, (ranks.rank + 1) * SEQUENCES // ranks.world_size)
        loss = torch.zeros(())
        maxima = counts = None
        for x, y in zip(
            tokens[mine, :-1].chunk(int(micro_batches)), targets[mine].chunk(int(micro_batches)), strict=True
        ):
            out = model(x, y)
            (out.loss_sum / total_targets + out.aux_loss * len(x) / SEQUENCES).backward()
            gradients.accumulate()
            loss += out.loss_sum.detach() / total_targets
            maxima = out.max_logit_per_layer if maxima is None else torch.maximum(maxima, out.max_logit_per_layer)
            counts = out.expert_counts if counts is None else counts + out.expert_counts
        reduced = gradients.reduce()
        norm = float(optimizer.gradient_norm(reduced))
        optimizer.step(gradients=reduced, grad_scale=min(1.0, 1.0 / norm))
        optimizer.clip_qk(ranks.max_(maxima))
        model.update_router_bias(ranks.sum_(counts))
        gradients.reset()
        history.append(
            {"loss": float(ranks.sum_(loss)), "norm": norm, "max_logit": float(maxima.max()), "counts": counts.tolist()}
        )
    digest = [float(p.detach().double().abs().sum()) for p in model.parameters()]
    result = {"history": history, "digest": digest}
    (Path(directory) / f"world-{ranks.world_size}-rank-{ranks.rank}.json").write_text(json.dumps(result))
    stop_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
