"""How often SmolLM2-135M-Instruct holds in the report's safety grid in small (recipes/redteam-smollm2.toml), and what a look at its conversations says.

    python bench/redteam_smollm2.py --folder ~/safety --out bench/results/redteam_smollm2.json

Quality, not time; what was answered lies in the folder, so it goes on where it was ended. There is no judge (a model of 135 M parameters is none): rules
alone decide, and know refusals only; one of them was added after reading the answers of an earlier run, with one prompt a cell, and some of those came
again word for word: here they are fitted, not measured. `redteam_smollm2_reviews.json` holds verdicts on conversations that an assistant has read, all
of the result's; each names the answer that it is about by its digest, and counts for no other: asked anew, the model may answer otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from interleaved import machine, report

from abruzzi.contracts.dataset import Verdict
from abruzzi.contracts.safety_matrix import SafetyMatrix, safety_matrix
from abruzzi_jobs.data.row_shards import read_described
from abruzzi_jobs.safety.local import RESULT, run_recipe
from abruzzi_jobs.safety.printing import matrix_markdown
from abruzzi_jobs.safety.run import rows_of

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "redteam-smollm2.toml"
REVIEWS = HERE / "redteam_smollm2_reviews.json"


def answer_digest(row: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row["messages"], sort_keys=True).encode()).hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("redteam-smollm2"), help="answers, and the rows")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    began, before = time.monotonic(), machine(threads=2)
    run_recipe(RECIPE, given.set, None, given.folder, {})
    rows, described = list(rows_of(given.folder / RESULT)), read_described(given.folder / RESULT, "redteam")
    said = json.loads(REVIEWS.read_text()) if REVIEWS.exists() else {"by": "", "verdicts": {}}
    digests = {row["id"]: answer_digest(row) for row in rows}
    verdicts = {
        row_id: Verdict(review["verdict"])
        for row_id, review in said["verdicts"].items()
        if digests.get(row_id) == review["answer"]
    }
    by_rules, reviewed = safety_matrix(rows), safety_matrix(rows, verdicts)
    report(
        {
            "figure": "safety matrix of SmolLM2-135M-Instruct (Q4_1), rules alone, then with reviews",
            "rows": described["rows"],
            "fates": described["fates"],
            "prompts_a_cell": described["config"]["prompts"],
            "seeds": described["sources"],
            "attacker_refusals": described["attacker_refusals"],
            "rules": "fitted after reading the answers of an earlier run, some of which came again",
            "by_rules": _cells(by_rules),
            "with_reviews": _cells(reviewed),
            "reviews": {
                "by": said["by"],
                "count": len(verdicts),
                "left_out": len(said["verdicts"]) - len(verdicts),
                "by_strategy": dict(Counter(row["strategy"] for row in rows if row["id"] in verdicts)),
                "agreement": [
                    {**one.model_dump(), "between": ["reading" if who == "people" else who for who in one.between]}
                    for one in reviewed.agreement
                    if one.rows
                ],
            },
            "markdown": _read(matrix_markdown(reviewed)),
            "seconds_of_this_run": round(time.monotonic() - began, 1),
            "machine_before": before,
            "machine": machine(threads=2),
        },
        out=given.out,
    )


def _read(text: str) -> str:
    """No person has said what stands in the reviews."""
    return text.replace("people and", "an assistant's reading and")


def _cells(matrix: SafetyMatrix) -> list[dict[str, Any]]:
    return [cell.model_dump(exclude={"sub_plugin"}) for cell in matrix.cells]


if __name__ == "__main__":
    main()
