"""Fair timing: candidates take turns, so that a busy machine slows all of them alike; medians of what remains."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def interleaved_seconds(
    candidates: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every call, by candidate. The order turns around every round (A B, B A, …)."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for index in range(rounds):
        names = list(candidates) if index % 2 == 0 else list(reversed(candidates))
        for name in names:
            started = time.perf_counter()
            candidates[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def summary(seconds: list[float]) -> dict[str, Any]:
    return {
        "median_s": statistics.median(seconds),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "rounds": len(seconds),
    }


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """One value a seed: their mean with Student's 95 % interval, and themselves."""
    from abruzzi.contracts.interval import student  # here: a bare GPU machine times with torch and numpy alone

    found = student(values)
    return {"mean": found.value, "low": found.low, "high": found.high, "seeds": list(values)}


def machine(*, threads: int) -> dict[str, Any]:
    """What a reader needs to judge a figure; the load average tells whether the machine was busy with something else."""
    flags = ""
    if Path("/proc/cpuinfo").exists():
        flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": "avx512_bf16" in flags,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": list(os.getloadavg()),
    }


def report(result: dict[str, Any], *, out: Path | None) -> None:
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
