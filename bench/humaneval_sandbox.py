"""How long it takes to verify HumanEval's 164 canonical solutions in sandboxes, and whether all of them pass.

    python bench/humaneval_sandbox.py [--workers 2] [--items 164] [--out FILE]

Each solution runs with its tests in a box of its own (gVisor where runsc is on the PATH), as an answer of a model would. Target: 164 in 60 s on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from itertools import islice
from pathlib import Path

from interleaved import machine, report

from abruzzi_jobs.evals.suites.registry import open_suite
from abruzzi_jobs.evals.suites.suite import Transcript
from abruzzi_jobs.sandbox import isolators


async def verify(items: int, workers: int) -> tuple[list[str], float]:
    """(ids that do not pass, seconds)."""
    suite, free = open_suite("humaneval"), asyncio.Semaphore(workers)

    async def one(item) -> tuple[str, bool]:
        async with free:
            answer = suite.gold_answer(item)
            verdict = await suite.score(item, Transcript(messages=(), answer=answer), {})
            return item.id, verdict.score == 1.0

    chosen = list(islice(suite.items(), items))
    begun = time.perf_counter()
    done = await asyncio.gather(*(one(item) for item in chosen))
    return [identity for identity, passed in done if not passed], time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--items", type=int, default=164)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    failed, seconds = asyncio.run(verify(given.items, given.workers))
    result = {
        "figure": "HumanEval's canonical solutions verified in sandboxes",
        "isolator": next(iter(isolators()), None),
        "items": given.items,
        "passed": given.items - len(failed),
        "failed": failed,
        "seconds": round(seconds, 2),
        "target_seconds": 60,
        "workers": given.workers,
        "machine": machine(threads=given.workers),
    }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
