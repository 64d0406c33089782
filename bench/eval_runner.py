"""What the runner costs where the model costs nothing: items a second beside lm-eval and inspect-ai, and memory by the number of items.

    python bench/eval_runner.py [--items 1000] [--rounds 5] [--many 200000] [--out FILE]

The same items, the same answers, the same exact comparison, a process each time, in turns. Targets: 2000 items a second on two cores, five times lm-eval's and
inspect-ai's; memory that does not grow from 2000 items to 200 000.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from interleaved import machine, report

WORKER = Path(__file__).with_name("eval_runner_worker.py")
WHO = ("ours", "lm-eval", "inspect-ai")
WARMUP_ITEMS = 32


def write_items(place: Path, number: int) -> Path:
    with place.open("w", encoding="utf-8") as file:
        for n in range(number):
            row = {"id": f"q{n}", "question": f"Question {n}: what is {n % 7} + {n % 3}?", "answer": f"{n % 7 + n % 3}"}
            file.write(json.dumps(row) + "\n")
    return place


def once(who: str, place: Path, warmup: Path) -> dict[str, Any]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="abruzzi-bench-") as folder:
        argv = [sys.executable, str(WORKER), who, str(place), str(warmup), folder]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{who}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {who: [] for who in WHO}
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory() as name:
        warmup = write_items(Path(name) / "warmup.jsonl", WARMUP_ITEMS)
        place = write_items(Path(name) / "items.jsonl", given.items)
        for number in range(given.rounds):
            for who in WHO if number % 2 == 0 else reversed(WHO):
                found[who].append(once(who, place, warmup))
            load.append(os.getloadavg())
        memory = {
            count: once("ours", write_items(Path(name) / "many.jsonl", count), warmup)
            for count in (given.many // 100, given.many // 10, given.many)
        }
    scores = {run["score"] for runs in found.values() for run in runs}
    if len(scores) != 1:
        raise SystemExit(f"the harnesses disagree about the score: {scores}")
    rates = {who: statistics.median(given.items / run["seconds"] for run in runs) for who, runs in found.items()}
    cpu = {who: statistics.median(given.items / run["cpu_seconds"] for run in runs) for who, runs in found.items()}
    result = {
        "figure": "runner overhead at a model that answers at once",
        "items": given.items,
        "rounds": given.rounds,
        "versions": {name: version(name) for name in ("lm-eval", "inspect-ai")},
        "items_per_second": rates,
        "items_per_cpu_second": cpu,
        "ours_over": {who: rates["ours"] / rates[who] for who in WHO if who != "ours"},
        "ours_over_by_cpu": {who: cpu["ours"] / cpu[who] for who in WHO if who != "ours"},
        "targets": {"items_per_second": 2000, "ours_over": 5},
        "peak_mib": {who: statistics.median(run["peak_mib"] for run in runs) for who, runs in found.items()},
        "memory_of_ours": memory,
        "grown_mib": memory[given.many]["peak_mib"] - memory[given.many // 100]["peak_mib"],
        "runs": found,
        "load_averages": load,
        "machine": machine(threads=2),
    }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
