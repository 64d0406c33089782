"""kill -9 of an rl stage at random points (before and after writes to the object store, in engine steps and weight updates): trajectories lost, trained on
twice, whether weights and rollouts end as those of an undisturbed run, bit for bit, and seconds until the next process plays or trains again.

    python bench/rl_kills.py --kills 200        about forty minutes alone on two cores; most of it processes that start

A tiny policy in a tiny environment (tests/rl_lab.py): what is counted does not depend on their size. No peer publishes the like, so there is no rival.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from rl_lab import kill_at_random_points, make_policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    before = machine(threads=1)
    with tempfile.TemporaryDirectory(prefix="rl-kills-") as folder:
        (Path(folder) / "policy").mkdir()
        policy = make_policy(Path(folder) / "policy")
        found = kill_at_random_points(Path(folder), policy, kills=given.kills, seed=given.seed)
    seconds = sorted(found.recovery_seconds)
    result = {
        "bench": "rl_kills",
        "machine": before,
        "kills": found.kills,
        "runs": found.runs,
        "trajectories_lost": found.lost,
        "trajectories_trained_twice": found.trained_twice,
        "ends_with_the_same_bits": found.ends_alike,
        "recovery_p50_s": round(statistics.median(seconds), 2),
        "recovery_p99_s": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 2),
    }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
