"""A data-parallel rank: the real Trainer on its share of a fixed global batch; writes what it saw. Started by test_data_parallel.py."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from abruzzi_jobs.distributed import start_ranks, stop_ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows
from abruzzi_jobs.train.trainer import Trainer

STEPS = 8
SEQUENCES = 4
LENGTH = 32


def main(directory: str, name: str, dtype: str, micro_sequences: str, threshold: str) -> None:
    torch.set_num_threads(1)
    ranks = start_ranks(timeout_s=600)
    config = ModelConfig.from_dict(json.loads((Path(directory) / "model.json").read_text()))
    model = KimiK2(config, seed=0, dtype=getattr(torch, dtype))
    optimizer = build_optimizer(
        model.named_parameters(),
        OptimizerConfig(newton_schulz_precision="float32", qk_clip_threshold=float(threshold)),
        model=config,
    )
    trainer = Trainer(model, optimizer, ranks, micro_sequences=int(micro_sequences), watch=DivergenceWatch())
    generator = torch.Generator().manual_seed(1)
    history = []
    for step in range(STEPS):
        start = torch.randint(0, 64, (SEQUENCES, 1), generator=generator)
        tokens = (start + 5 * torch.arange(LENGTH + 1)) % 64
        ends = torch.randint(1, LENGTH, (SEQUENCES, 1), generator=generator)  # a second document in each row
        segments = (torch.arange(LENGTH + 1) >= ends).to(torch.int32)
        share = SEQUENCES // ranks.world_size
        mine = slice(ranks.rank * share, (ranks.rank + 1) * share)
        rows = Rows(tokens[mine], segments[mine], target_bytes=tokens[mine, 1:].numel())
        result = trainer.step(step, rows, sequences=SEQUENCES, lr_scale=1.0)
        history.append(
            {
                "loss": result.loss, "norm": result.grad_norm, "max_logit": result.max_logit_YH.tolist(),
                "counts": result.expert_counts_ME.tolist(), "clip": asdict(result.clip), "bits": result.bits_per_byte,
            }
        )  # fmt: skip
    digest = hashlib.sha256()
    for key, tensor in sorted({**model.state_dict(), **optimizer.state_dict()}.items()):
        digest.update(key.encode() + tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    result_file = Path(directory) / f"{name}-rank-{ranks.rank}.json"
    result_file.write_text(json.dumps({"history": history, "digest": digest.hexdigest()}))
    stop_ranks()


if __name__ == "__main__":
    main(*sys.argv[1:])
