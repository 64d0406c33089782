"""What a step is fed, and what is counted of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from abruzzi.contracts.training import MODEL_PRESETS, AnnealConfig, BatchConfig, ScheduleConfig
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


def test_after_a_divergence_the_batches_up_to_it_are_passed_over_and_the_rest_keeps_its_order(
    dataset_folder: Path,
) -> None:
    whole = feed(dataset_folder)
    batches = [whole.next(step)[1].tokens_BL for step in range(30)]
    before = feed(dataset_folder)
    for step in range(10):
        before.next(step)
    state = before.state_dict()

    back = feed(dataset_folder)
    back.load_state_dict(state)
    assert back.pass_over(10, 17) == 7
    assert back.pass_over(10, 17) == 0, "once"
    after = [back.next(step)[1].tokens_BL for step in range(10, 15)]
    again = feed(dataset_folder)
    again.load_state_dict(back.state_dict())
    after += [again.next(step)[1].tokens_BL for step in range(15, 20)]

    assert all(map(torch.equal, after, batches[17:27]))
    assert (again.data_step(20), again.pass_over(20, 25)) == (27, 0), "an older point is behind it already"


def test_a_later_phase_begins_after_the_batches_that_were_passed_over(dataset_folder: Path) -> None:
    config = ScheduleConfig(tokens=128 * 10, anneal=(AnnealConfig(tokens=128 * 10, sequence_length=16),))
    schedule = build_schedule(config, BATCH, world_size=1)
    plain, back = (Feed(dataset_folder, schedule, seed=3) for _ in range(2))
    later = [plain.next(step)[1].tokens_BL for step in range(10, 16)]
    back.pass_over(8, 12)
    assert torch.equal(back.next(10)[1].tokens_BL, later[4])


def test_ranks_share_the_bytes_of_the_global_batch(dataset_folder: Path) -> None:
    _, alone = feed(dataset_folder).next(0)
    shares = [feed(dataset_folder, rank=rank, world_size=2).next(0)[1] for rank in range(2)]
    assert sum(share.target_bytes for share in shares) == alone.target_bytes
    np.testing.assert_array_equal(np.concatenate([share.tokens_BL for share in shares]), alone.tokens_BL)
