"""What a step is fed, and what is counted of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from abruzzi.contracts.training import MODEL_PRESETS, BatchConfig, ScheduleConfig
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Feed, HeldOut
from abruzzi_jobs.train.schedule import build_schedule
from abruzzi_jobs.train.trainer import Trainer

BATCH = BatchConfig(sequences=4, sequence_length=32)
ALONE = Ranks(0, 1, torch.device("cpu"))


def feed(folder: Path, *, rank: int = 0, world_size: int = 1) -> Feed:
    schedule = build_schedule(ScheduleConfig(tokens=128 * 64), BATCH, world_size=world_size)
    return Feed(folder, schedule, seed=3, rank=rank, world_size=world_size)


def test_training_and_held_out_bits_count_the_same_targets_and_bytes(dataset_folder: Path) -> None:
    config = ModelConfig.from_dict({**MODEL_PRESETS["nano"], "vocab_size": 64})
    model = KimiK2(config, seed=0)
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=config)
    trainer = Trainer(model, optimizer, ALONE, micro_sequences=2, watch=DivergenceWatch())
    phase, rows = feed(dataset_folder).next(0)
    targets = rows.tokens_BL[:, 1:]
    ends = int((targets == 0).sum())
    assert ends > 0, "a batch with ends of documents, which are targets of no byte"
    held_out = HeldOut(rows, targets.numel())

    loss, bits = trainer.held_out_loss(held_out)
    result = trainer.step(0, rows, sequences=phase.sequences, lr_scale=1.0)

    assert result.loss == pytest.approx(loss, rel=1e-6)
    assert result.bits_per_byte == pytest.approx(bits, rel=1e-6)
    assert bits == pytest.approx(loss * targets.numel() / math.log(2) / (targets.numel() - ends), rel=1e-6)


def test_ranks_share_the_bytes_of_the_global_batch(dataset_folder: Path) -> None:
    _, alone = feed(dataset_folder).next(0)
    shares = [feed(dataset_folder, rank=rank, world_size=2).next(0)[1] for rank in range(2)]
    assert sum(share.target_bytes for share in shares) == alone.target_bytes
    np.testing.assert_array_equal(np.concatenate([share.tokens_BL for share in shares]), alone.tokens_BL)
