"""kill -9 of an rl stage at random points (before and after writes to the object store, in engine steps and weight updates): trajectories lost, trained on
twice, whether weights and rollouts end as those of an undisturbed run, bit for bit, and seconds until the next process plays or trains again.

    python bench/rl_kills.py --kills 200        about forty minutes alone on two cores; most of it processes that start

And kill -9 of a served environment with all its sessions in it (`--service-kills`): episodes lost or counted twice, and seconds until a session goes on.

A tiny policy in a tiny environment (tests/rl_lab.py): what is counted does not depend on their size. No peer publishes the like, so there is no rival.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from rl_lab import kill_at_random_points, make_policy
from served_lab import kill_service_at_random_points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--service-kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    result: dict[str, Any] = {"bench": "rl_kills", "machine": machine(threads=1)}
    if given.service_kills:
        result["service"] = _service(given.service_kills, given.seed)
    if given.kills:
        result["stage"] = _stage(given.kills, given.seed)
    result["load_average_after"] = list(os.getloadavg())
    report(result, out=given.out)


def _stage(kills: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rl-kills-") as folder:
        (Path(folder) / "policy").mkdir()
        policy = make_policy(Path(folder) / "policy")
        found = kill_at_random_points(Path(folder), policy, kills=kills, seed=seed)
    return {
        "kills": found.kills,
        "runs": found.runs,
        "trajectories_lost": found.lost,
        "trajectories_trained_twice": found.trained_twice,
        "ends_with_the_same_bits": found.ends_alike,
        **_recovery(found.recovery_seconds),
    }


def _service(kills: int, seed: int) -> dict[str, Any]:
    found = asyncio.run(kill_service_at_random_points(kills=kills, seed=seed))
    return {
        "kills": found.kills,
        "episodes": found.episodes,
        "episodes_lost": found.lost,
        "episodes_counted_twice": found.twice,
        "rewards": sorted(map(str, found.rewards)),
        **_recovery(found.recovery_seconds),
    }


def _recovery(seconds: list[float]) -> dict[str, float]:
    seconds = sorted(seconds)
    return {
        "recovery_p50_s": round(statistics.median(seconds), 3),
        "recovery_p99_s": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 3),
    }


if __name__ == "__main__":
    main()
