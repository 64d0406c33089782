"""A stage for the browser tests that trains two checkpoints and evaluates them: curves, checkpoints, and a report of each with its answers as rows.

The second checkpoint is better at sums, cut off once, was not reached once, and was asked `calc` with tools, too.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.evaluation import SuiteSettings
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.evals.runner.tally import Tally

STEPS = (100, 200)
ITEMS = 12


def answer(suite: str, number: int, step: int, *, tools: bool) -> dict[str, Any]:
    """Sums up to the fourth are right at first, all but three later; one of those that were right is lost."""
    a, b = number + 3, 2 * number + 1
    right = (number < 5 if step == STEPS[0] else 0 < number < 10) or tools
    status = "ok"
    if suite == "sums@1" and step == STEPS[1]:
        status = {11: "infrastructure", 10: "truncated"}.get(number, "ok")
    score = None if status == "infrastructure" else float(right)
    said = f"The answer is {a + b if right else a * b}." if score is not None else None
    fate = status if score is None else "right" if right else "wrong"
    asked = {"role": "user", "content": f"What is {a} + {b}?"}
    return {
        "id": f"{suite}/{'tools/' if tools else ''}item-{number:02d}#0", "fate": fate, "suite": suite, "item": f"item-{number:02d}", "sample": 0,
        "subtask": "even" if number % 2 == 0 else "odd", "generator": f"checkpoint step-{step}", "is_llm": True,
        "messages": [asked, *([{"role": "assistant", "content": said}] if said else [])], "tools": [], "gold": str(a + b), "score": score, "parts": {},
        "status": status, "reason": "the service was away" if score is None else f"{'equals' if right else 'differs from'} {a + b}",
        "truncated": status == "truncated", "prompt_tokens": 9, "completion_tokens": 6, "seconds": 0.2, "call_ids": [],
    }  # fmt: skip


def report(context: StageContext, step: int, digest: str, *, suites: tuple[str, ...], tools: bool = False) -> None:
    folder = context.scratch / f"report-{step}-{tools}"
    folder.mkdir()
    writer = RowShardWriter(folder, "answers")
    summaries, scores, facts = [], {}, {}
    for suite in suites:
        tally = Tally(suite, SuiteSettings(max_tokens=64, tools=tools))
        scores[suite] = {}
        for number in range(ITEMS):
            row = answer(suite, number, step, tools=tools)
            writer.write(row)
            scores[suite][row["item"]] = tally.add([row], contaminated=number in (1, 2))
        summaries.append(tally.summary(knows_training_text=suite == "sums@1" and step == STEPS[1]))
        facts |= {f"{suite.partition('@')[0]}.{name}": value for name, value in summaries[-1].facts().items()}
    writer.close()
    (folder / "scores.json").write_text(json.dumps(scores))
    target = {
        "kind": "checkpoint", "endpoint": "target", "model": None, "digest": digest, "run_id": context.spec.run_id,
        "stage_id": context.spec.stage_id, "name": f"step-{step:08d}", "step": step,
    }  # fmt: skip
    meta = {"suites": [summary.model_dump(mode="json") for summary in summaries], "target": target, **facts}
    name = f"report-{step}{'-tools' if tools else ''}"
    context.commit(ArtifactKind.REPORT, name, {path.name: path for path in folder.iterdir()}, meta)


def checkpoint(context: StageContext, step: int) -> str:
    path = Path(context.scratch) / "model.safetensors"
    path.write_bytes(bytes([step % 251]) * 20_000)
    return context.commit(ArtifactKind.CHECKPOINT, f"step-{step:08d}", {path.name: path}, None, step).digest()


def main() -> int:
    context = StageContext.from_env()
    with Reporter.from_context(context) as reporter:
        for step in range(1, STEPS[-1] + 1, 2):
            reporter.log({"train/loss": 2 + 4 * math.exp(-step / 40), "train/tokens": step * 4096.0}, step=step)
        first, second = (checkpoint(context, step) for step in STEPS)
        report(context, STEPS[0], first, suites=("sums@1", "aime2025@1"))
        report(context, STEPS[1], second, suites=("calc@1",), tools=True)
        report(context, STEPS[1], second, suites=("sums@1", "aime2025@1", "calc@1"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
