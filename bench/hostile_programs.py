"""Hostile programs against the sandbox that grades HumanEval: how many escape, are not ended on time, or harm what is beside them.

    python bench/hostile_programs.py [--isolator gvisor] [--only KIND] [--out FILE]

Each program of tests/hostile_programs.toml runs in a box of its own, under every isolator that works here (gVisor where runsc is on the PATH). An escape is
what is seen from outside: the secret word in what it told, a listener reached, a guarded file changed, a right granted. A neighbour, of the same user and
outside of all boxes, is asked a sum after each. Target: no escape, all ended on time, nothing left running, the neighbour always answers.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from hostile_boxes import BOUNDS, GRACE_SECONDS, Outside, Peak, Program, attack, outside, programs

from abruzzi_jobs.sandbox import Isolator, box, isolators


def tried(there: Outside, prelude: str, program: Program) -> dict[str, Any]:
    begun = time.perf_counter()
    with Peak(there) as peak:
        told = attack(there, prelude, [program])
    seconds = time.perf_counter() - begun
    return {
        "kind": program.kind,
        "name": program.name,
        "seconds": round(seconds, 2),
        "harm": there.harm(told),
        "left": there.left(),
        "told": (told.values[0] or told.fault)[:200],
        "memory_mib": peak.memory_bytes >> 20,
    }


def against(isolator: Isolator, only: str | None) -> dict[str, Any]:
    prelude, found = programs()
    box.isolators = lambda: (isolator,)  # what a box without one takes
    with outside() as there:
        rows = [tried(there, prelude, program) for program in found if only in (None, program.kind)]
    allowed = BOUNDS.box_seconds + GRACE_SECONDS
    ending = [row for row in rows if row["kind"] in LINGERING]
    return {
        "programs": len(rows),
        "by_kind": dict(sorted(Counter(row["kind"] for row in rows).items())),
        "escapes": [row for row in rows if any("neighbour" not in harm for harm in row["harm"])],
        "neighbour_harmed": [row for row in rows if any("neighbour" in harm for harm in row["harm"])],
        "late": [row for row in rows if row["seconds"] > allowed],
        "left_running": [row for row in rows if row["left"]],
        "allowed_seconds": allowed,
        "seconds_median_of_those_that_linger": round(median(row["seconds"] for row in ending), 2) if ending else None,
        "seconds_max": max(row["seconds"] for row in rows),
        "slowest": max(rows, key=lambda row: row["seconds"])["name"],
        "memory_mib_max": max(row["memory_mib"] for row in rows),
        "hungriest": max(rows, key=lambda row: row["memory_mib"])["name"],
    }


LINGERING = {program.kind for program in programs()[1] if program.lingers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--isolator", choices=("gvisor", "namespaces"), help="one alone; default: all that work here")
    parser.add_argument("--only", help="programs of one kind")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    chosen: list[Isolator] = [given.isolator] if given.isolator else list(isolators())
    result = {
        "figure": "hostile programs against the sandbox of HumanEval",
        "isolators": {isolator: against(isolator, given.only) for isolator in chosen},
        "machine": machine(threads=1),
    }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
