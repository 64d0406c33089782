"""A step of data-parallel ranks whose gradients and parameters travel in buckets, against one message for each owner of each tensor.

Both stand ready and take turns; all ranks have one thread.

    python bench/gradient_buckets.py --out gradient_buckets.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from interleaved import interleaved_seconds, report, summary
from parallel_ranks import SEQUENCES, Candidate, Processes, named, setting

from abruzzi_jobs.distributed import Layout

LAYOUTS = (Layout(dp=2), Layout(dp=4), Layout(dp=8), Layout(ep=2, dp=8))
TARGET = 1.0
"""Of the time with a message a piece, at most."""


def main() -> int:
    arguments = _arguments()
    steps, all_of_them = {}, []
    for layout in LAYOUTS:
        candidate = Candidate(layout, max(1, SEQUENCES // layout.dp // 4))
        for buckets in (True, False):
            processes = Processes([candidate], buckets=buckets)
            all_of_them.append(processes)
            steps[_name(layout, buckets)] = partial(processes.step, candidate)
    seconds = interleaved_seconds(steps, rounds=arguments.rounds)
    for processes in all_of_them:
        processes.close()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {named(layout): medians[_name(layout, True)] / medians[_name(layout, False)] for layout in LAYOUTS}
    result: dict[str, Any] = {
        "bench": "gradient_buckets",
        **setting(threads=1),
        "seconds": {name: summary(values) for name, values in seconds.items()},
        "ratios": ratios,
        "target_ratio": TARGET,
        "ok": all(ratio <= TARGET for ratio in ratios.values()),
    }
    report(result, out=arguments.out)
    return 0 if result["ok"] else 1


def _name(layout: Layout, buckets: bool) -> str:
    return f"{named(layout)}, {'in buckets' if buckets else 'a message a piece'}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
