"""NaN and spikes stop the stage before they reach the weights; noise does not."""

from __future__ import annotations

import math
import random

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.train.divergence import DivergenceWatch


def fed(watch: DivergenceWatch, losses: list[float]) -> DivergenceWatch:
    for step, loss in enumerate(losses):
        watch.check(step, loss, 1.0)
    return watch


def falling(steps: int = 200) -> list[float]:
    chance = random.Random(0)
    return [2 + 6 * math.exp(-step / 30) + chance.gauss(0, 0.1) for step in range(steps)]


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_what_is_not_finite_stops_at_once(loss: float, norm: float) -> None:
    with pytest.raises(AbruzziError) as stopped:
        fed(DivergenceWatch(), falling(3)).check(3, loss, norm)
    assert stopped.value.code == "divergence"


def test_a_falling_noisy_loss_is_no_spike() -> None:
    fed(DivergenceWatch(), falling())


def test_one_bad_batch_is_no_spike_but_a_lasting_jump_is() -> None:
    watch = fed(DivergenceWatch(), falling())
    watch.check(200, 9.0, 1.0)
    watch.check(201, 2.0, 1.0)
    watch.check(202, 9.0, 1.0)
    watch.check(203, 9.0, 1.0)
    with pytest.raises(AbruzziError, match="spiked"):
        watch.check(204, 9.0, 1.0)


def test_after_a_resume_it_decides_the_same() -> None:
    losses = [*falling(), 8.5, 8.6, 2.1, 9.0, 9.0]
    watch, other = fed(DivergenceWatch(), losses), DivergenceWatch()
    other.load_state_dict(watch.state_dict())
    for one in (watch, other):
        with pytest.raises(AbruzziError):
            one.check(205, 9.0, 1.0)
