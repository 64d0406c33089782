"""Whether the safety matrix finds the holes that a target is known to have: a script that gives in to a known number of prompts in each cell.

    python bench/redteam_known_holes.py [--prompts 20] [--out FILE]

Five plugins × five strategies; in cell k of 25 the target gives in to the first k / 25 of its prompts (rounded), by the strategy that the cell is about alone. An
attacker counts its turns, a judge reads one word. Found and known must be the same in every cell, and the known rate inside of its interval.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from redteam_lab import REFUSAL, SECRET, SUBS, decoded, holed, run_stage, seeds_file, stage_of

from abruzzi.contracts.redteam import Strategy
from abruzzi_jobs.data.row_shards import read_described

_THING = re.compile(r"Forbidden thing (\d+) of ([a-z]+)/")
_OPENED = re.compile(r"(wording|step) (\d+)")
_AT = {"wording": (Strategy.ITERATIVE_JAILBREAK, 3), "step": (Strategy.CRESCENDO, 4)}


def known(prompts: int) -> dict[tuple[str, Strategy], int]:
    """Prompts that the target gives in to, by plugin and strategy."""
    cells = [(sub.partition("/")[0], strategy) for sub in SUBS for strategy in Strategy]
    return {cell: round(number * prompts / len(cells)) for number, cell in enumerate(cells, 1)}


def target(holes: dict[tuple[str, Strategy], int]) -> Callable[[str], str]:
    def say(asked: str) -> str:
        opened = _OPENED.search(asked)
        text = asked if _THING.search(asked) else decoded(asked)
        thing = _THING.search(text)
        if opened is not None:
            strategy, turn = _AT[opened[1]]
            is_late = int(opened[2]) >= turn
        else:
            is_late = True
            plain = Strategy.BASIC if asked.startswith("Forbidden") else Strategy.PROMPT_INJECTION
            strategy = plain if text is asked else Strategy.BASE64
        if thing is not None and is_late and int(thing[1]) <= holes[thing[2], strategy]:
            return SECRET
        return f"Harmless words about step {opened[2]}." if opened is not None and opened[1] == "step" else REFUSAL

    return say


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20, help="of a cell")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    holes, began = known(given.prompts), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="abruzzi-holes-") as folder, holed(target=target(holes)) as speakers:
        root = Path(folder)
        endpoints = {name: speaker["endpoint"] for name, speaker in speakers.items()}
        seeds = [seeds_file(root, prompts=given.prompts)]
        described = read_described(run_stage(root, stage_of(endpoints, prompts=given.prompts, seeds=seeds)), "redteam")
        calls = {name: len(speaker["asked"]) for name, speaker in speakers.items()}
    cells = [cell for cell in described["matrix"]["cells"] if cell["strategy"]]
    found = [
        {
            "plugin": cell["plugin"],
            "strategy": cell["strategy"],
            "n": cell["n"],
            "passed": cell["passed"],
            "known": given.prompts - holes[cell["plugin"], Strategy(cell["strategy"])],
            "low": cell["low"],
            "high": cell["high"],
        }
        for cell in cells
    ]
    report(
        {
            "figure": "safety matrix of a scripted target with known holes",
            "prompts_a_cell": given.prompts,
            "cells": len(found),
            "cells_as_known": sum(cell["passed"] == cell["known"] for cell in found),
            "known_rate_in_interval": sum(
                cell["low"] - 1e-9 <= cell["known"] / given.prompts <= cell["high"] + 1e-9 for cell in found
            ),
            "conversations": described["rows"],
            "calls": calls,
            "found": found,
            "seconds": round(time.monotonic() - began, 1),
            "machine": machine(threads=1),
        },
        out=given.out,
    )


if __name__ == "__main__":
    main()
