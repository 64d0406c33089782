"""kill -9 of an rl stage at random points (before and after writes to the object store, in engine steps and weight updates): trajectories lost, trained on
twice, whether weights and rollouts end as those of an undisturbed run, bit for bit, and seconds until the next process plays or trains again.

    python bench/rl_kills.py --out bench/results/rl_kills.json [--seconds 240]      about forty minutes alone on two cores; most of it processes that start

And kill -9 of a served environment with all its sessions in it (`--service-kills`): episodes lost or counted twice, and seconds until a session goes on; and of
the processes that compute rewards (`--reward-kills`): rewards lost or computed wrongly, and seconds until the next one after a death.

Kills come in lots, each with other draws and, for the stage, beside an undisturbed run of its own. --out is written after each lot, and a further call with the same
--out goes on from it if it is of the same commit, and else begins anew: with --seconds no lot begins after so many.

A tiny policy in a tiny environment (tests/rl_lab.py): what is counted does not depend on their size. No peer publishes the like, so there is no rival.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from reward_lab import kill_workers_at_random
from rl_lab import kill_at_random_points, make_policy
from served_lab import kill_service_at_random_points

LOTS = {"service": 20, "rewards": 50, "stage": 5}
"""Kills of one lot."""
Lot = dict[str, Any]
"""Counts, which add up over lots; `recovery_s`, which are joined; `ends_with_the_same_bits`, which all must have."""


def main() -> int:
    given = _arguments()
    wanted = {"service": given.service_kills, "rewards": given.reward_kills, "stage": given.kills}
    head = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    result = begun(given.out, subprocess.check_output(head, text=True).strip())
    began = time.monotonic()
    for part, run in (("service", _service), ("rewards", _rewards), ("stage", _stage)):
        while (left := wanted[part] - result.get(part, {}).get("kills", 0)) > 0:
            if time.monotonic() - began > given.seconds:
                return 3
            found = run(min(left, LOTS[part]), given.seed + wanted[part] - left)
            result[part] = _added(result.get(part, {}), found)
            result["machine"] = machine(threads=1)
            report(result, out=given.out)
    return 0


def begun(out: Path | None, commit: str) -> dict[str, Any]:
    """What `out` holds, if it is of this commit: figures of other code are not added to."""
    if out is not None and out.exists():
        found = json.loads(out.read_text())
        if found.get("commit") == commit:
            return found
        sys.stderr.write(f"{out} is of commit {found.get('commit', 'unknown')}: begins anew.\n")
    return {"bench": "rl_kills", "commit": commit}


def _added(before: Lot, found: Lot) -> Lot:
    added = {
        key: value and before.get(key, True) if isinstance(value, bool) else before.get(key, type(value)()) + value
        for key, value in found.items()
    }
    return {**added, **_recovery(added["recovery_s"])}


def _stage(kills: int, seed: int) -> Lot:
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
        "recovery_s": _rounded(found.recovery_seconds),
    }


def _service(kills: int, seed: int) -> Lot:
    found = asyncio.run(kill_service_at_random_points(kills=kills, seed=seed))
    return {
        "kills": found.kills,
        "episodes": found.episodes,
        "episodes_lost": found.lost,
        "episodes_counted_twice": found.twice,
        "all_rewards_are_1": found.rewards == {1.0},
        "recovery_s": _rounded(found.recovery_seconds),
    }


def _rewards(kills: int, seed: int) -> Lot:
    found = asyncio.run(kill_workers_at_random(kills=kills, seed=seed))
    return {
        "kills": found.kills,
        "rewards_asked": found.asked,
        "rewards_lost_or_made_up": found.lost,
        "rewards_told_as_failed": found.errors,
        "processes_died": found.deaths,
        "recovery_s": _rounded(found.recovery_seconds),
    }


def _rounded(seconds: list[float]) -> list[float]:
    return [round(value, 3) for value in seconds]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--service-kills", type=int, default=200)
    parser.add_argument("--reward-kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="No lot begins after so many.")
    parser.add_argument("--out", type=Path, default=None)
    return parser.parse_args()


def _recovery(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    seconds = sorted(seconds)
    return {
        "recovery_p50_s": round(statistics.median(seconds), 3),
        "recovery_p99_s": round(seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))], 3),
    }


if __name__ == "__main__":
    sys.exit(main())
