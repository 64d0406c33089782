"""A step on two processes of one thread each, in three layouts, against one process with two threads: what pipeline, experts and data on ranks cost.

All stand ready and take turns. Each is at its best: of several sizes of micro-batch, the fastest.

    python bench/parallel_step.py --out parallel_step.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from interleaved import interleaved_seconds, report, summary
from parallel_ranks import SEQUENCES, Candidate, Processes, setting

from abruzzi_jobs.distributed import Layout

LAYOUTS = (Layout(pp=2, vpp=2), Layout(ep=2, dp=2), Layout(dp=2))
TARGET = 1.25
THREADS = 2
SIZES = (2, 4, 8)
"""Of a micro-batch, in sequences; as many as a rank has at most, and two micro-batches at least where a pipeline is to be filled."""
ALONE = (*SIZES, SEQUENCES)


def main() -> int:
    arguments = _arguments()
    ready = [
        Candidate(layout, size) for layout in LAYOUTS for size in SIZES if size * layout.pp * layout.dp <= SEQUENCES
    ]
    singles = [Candidate(None, size) for size in ALONE]
    laid_out, alone = Processes(ready), Processes(singles, threads=THREADS)
    steps = {c.name: partial(laid_out.step, c) for c in ready} | {c.name: partial(alone.step, c) for c in singles}
    seconds = interleaved_seconds(steps, rounds=arguments.rounds)
    for processes in (laid_out, alone):
        processes.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min((c.name for c in singles), key=medians.__getitem__)
    fastest = {
        layout: min((c.name for c in ready if c.layout == layout), key=medians.__getitem__) for layout in LAYOUTS
    }
    ratios = {name: medians[name] / medians[best] for name in fastest.values()}
    result: dict[str, Any] = {
        "bench": "parallel_step",
        **setting(threads=THREADS),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "fastest_alone": best,
        "ratios": ratios,
        "target_ratio": TARGET,
        "ok": all(ratio <= TARGET for ratio in ratios.values()),
    }
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
