"""kill -9 at moments that nobody chose: the same bits in the same layout, the same losses through any (bench/training_kills.py: 200 kills)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kill_lab import TOLERANCE, Killing

pytestmark = pytest.mark.slow


def test_killed_at_random_moments_it_ends_with_equal_bits_and_in_other_layouts_with_equal_losses(
    tmp_path: Path, dataset_folder: Path
) -> None:
    killing = Killing(
        tmp_path, dataset_folder, random.Random(3), [{"ranks": 1}, {"ranks": 2, "pp": 2}, {"ranks": 2, "ep": 2}]
    )
    kills = 0
    while kills < 3:
        chain, is_equal = killing.in_one_layout()
        assert is_equal, f"{chain.layouts[0]}, killed {chain.kills} times"
        kills += chain.kills
    while kills < 6:
        chain, loss, _ = killing.through_layouts()
        assert loss <= TOLERANCE, f"{chain.layouts}: a loss differs by {loss:.1e}"
        kills += chain.kills
