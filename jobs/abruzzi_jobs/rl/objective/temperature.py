"""Sampling temperature by iteration (paper 3.2.3: explore first, settle later). Pure."""

from __future__ import annotations

import math

from abruzzi.contracts.objective import TemperatureSchedule


def temperature_at(schedule: TemperatureSchedule, iteration: int) -> float:
    """Of iteration `iteration`, from 0; the same for every token drawn in it. `end` from iteration `iterations` on."""
    if schedule.end is None:
        return schedule.start
    share = min(1.0, iteration / schedule.iterations)
    if schedule.shape == "exponential":
        return schedule.start * (schedule.end / schedule.start) ** share
    if schedule.shape == "cosine":
        share = 0.5 * (1 - math.cos(math.pi * share))
    return schedule.start + (schedule.end - schedule.start) * share
