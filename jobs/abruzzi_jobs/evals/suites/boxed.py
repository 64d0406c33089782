"""Answers that are programs, run in a box: what ended there because of the box, and not of the program, is nobody's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.environments.evaluating import Bounds, Evaluated, evaluate

A_TEST = Bounds(cpu_seconds=6, wall_seconds=30.0, box_seconds=None)
"""LiveCodeBench's six seconds a test."""
ALL_TESTS = Bounds(cpu_seconds=12, wall_seconds=60.0, box_seconds=None)
"""Of an owner's `check`, which is one expression."""


def run_boxed(files: Mapping[str, str], preamble: str, expressions: Sequence[str], bounds: Bounds) -> Evaluated:
    """Raises AbruzziError `no_sandbox`, `sandbox_failed`: the runner asks such an item again, and scores it nowhere."""
    found = evaluate(files, preamble, expressions, bounds)
    if found.cut:
        raise AbruzziError("sandbox_failed", f"The sandbox was cut off: {found.cut}.", status=503)
    return found
