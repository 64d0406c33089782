"""The loss under the paper's whole memory policy stays within what another order of data or other weights would change."""

from __future__ import annotations

import statistics

import pytest
import torch

from abruzzi.contracts import training as contract
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows
from abruzzi_jobs.train.trainer import Trainer

CONFIG = ModelConfig.from_dict(
    contract.ModelConfig(preset="nano", vocab_size=64, hidden_size=128, moe_intermediate_size=64).model_dump()
)
PAPER = MemoryPolicy(
    recompute=("layernorm", "swiglu", "mla_up_projection", "moe_down_projection"),
    fp8_activations=True,
    offload_activations=True,
)
ROWS, LENGTH = 8, 32


def language(steps: int, seed: int) -> list[Rows]:
    """Each token is one of three that may follow the one before, the first of them mostly."""
    successors = torch.randint(0, 64, (64, 3), generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(steps):
        tokens_BL = torch.randint(0, 64, (ROWS, LENGTH + 1), generator=generator)
        which_BL = torch.multinomial(
            torch.tensor([0.7, 0.2, 0.1]), ROWS * LENGTH, replacement=True, generator=generator
        )
        for place in range(LENGTH):
            tokens_BL[:, place + 1] = successors[tokens_BL[:, place], which_BL.view(ROWS, LENGTH)[:, place]]
        found.append(Rows(tokens_BL, torch.zeros(ROWS, LENGTH + 1, dtype=torch.int32), target_bytes=ROWS * LENGTH))
    return found


def curve(policy: MemoryPolicy, *, steps: int, seed: int) -> list[float]:
    model = KimiK2(CONFIG, seed=seed)
    model.activations.policy = policy
    optimizer = build_optimizer(model.named_parameters(), OptimizerConfig(), model=CONFIG)
    trainer = Trainer(model, optimizer, Ranks(0, 1, torch.device("cpu")), micro_sequences=None, watch=DivergenceWatch())
    return [
        trainer.step(step, rows, sequences=ROWS, lr_scale=1.0).loss for step, rows in enumerate(language(steps, seed))
    ]


def moved_and_spread(steps: int, seeds: int) -> tuple[float, float]:
    """Of means over the last quarter: by how much the policy moves one seed's, and the standard deviation among seeds."""
    last = steps // 4
    kept = [curve(MemoryPolicy(), steps=steps, seed=seed) for seed in range(seeds)]
    ours = curve(PAPER, steps=steps, seed=0)
    ends = [statistics.mean(losses[-last:]) for losses in kept]
    assert ours[0] == kept[0][0], "forward is untouched"
    assert ours != kept[0]
    assert ends[0] < 0.9 * kept[0][0], "it learns"
    return abs(statistics.mean(ours[-last:]) - ends[0]), statistics.stdev(ends)


def test_forty_steps_in_eight_bits_end_within_the_noise_of_seeds() -> None:
    moved, spread = moved_and_spread(40, 3)
    assert moved < spread


@pytest.mark.prove
def test_a_thousand_steps_in_eight_bits_end_within_the_noise_of_seeds() -> None:
    moved, spread = moved_and_spread(1000, 3)
    assert moved < spread
