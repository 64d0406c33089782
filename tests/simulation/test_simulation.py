"""The controller under 20 000 seeds of crashes, stale and lost observations, rivals and interventions. A failing seed replays:

python tests/simulation/replay.py SEED
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest
from simulation.simulate import FAULT_POINTS, simulate

SEEDS = 20_000
PROOF_SEEDS = 1_000_000
CHUNK = 250


def _chunk(first: int) -> tuple[Counter[str], Counter[str], list[str]]:
    """(faults met, ends of runs, broken rules) of CHUNK seeds."""
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    broken: list[str] = []
    for seed in range(first, first + CHUNK):
        try:
            outcome = simulate(seed)
        except AssertionError as error:
            broken.append(f"seed {seed}: {error}")
            continue
        faults += outcome.faults
        ends.update(run.state.value for run in outcome.runs.values())
    return faults, ends, broken


def _explore(first: int, count: int) -> tuple[Counter[str], Counter[str]]:
    faults: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for found, ended, wrong in pool.map(_chunk, range(first, first + count, CHUNK)):
            faults += found
            ends += ended
            broken += wrong
    assert not broken, "\n".join(broken[:5]) + "\nreplay: python tests/simulation/replay.py SEED"
    return faults, ends


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_no_seed_breaks_a_rule_and_every_fault_point_is_met() -> None:
    faults, ends = _explore(0, SEEDS)
    assert set(faults) == FAULT_POINTS, f"never met: {FAULT_POINTS - set(faults)}"
    assert min(faults.values()) >= 20, faults
    assert set(ends) == {"succeeded", "failed", "cancelled"}, ends


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 17, 101):
        first, second = simulate(seed), simulate(seed)
        assert first.trace.lines == second.trace.lines
        assert first.runs == second.runs


@pytest.mark.prove
@pytest.mark.timeout(12_000)
def test_a_million_seeds() -> None:
    faults, _ = _explore(SEEDS, PROOF_SEEDS)
    assert set(faults) == FAULT_POINTS
