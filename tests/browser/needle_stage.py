"""A stage for the browser tests that asks a checkpoint, trained on 1024 tokens, for needles: as it was trained, and with YaRN. The suite's own texts,
answered by rule: without YaRN right within the trained length alone; with it beyond, too, but for needles in the middle.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from abruzzi.client.stage import StageContext
from abruzzi.contracts.evaluation import Item, SuiteSettings
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.evals.runner.tally import Tally
from abruzzi_jobs.evals.suites.needle import Needle

LENGTHS, DEPTHS, ITEMS = (90, 700, 2600), (0.0, 0.5, 1.0), 5
TRAINED = 1024
TOKENS_A_WORD = 1.3
SUITE = "needle@1"


def answer(suite: Needle, item: Item, *, yarn: bool) -> dict[str, Any]:
    length, depth, number = item.id.split("-")
    tokens = round(int(length) * TOKENS_A_WORD)
    right = tokens <= TRAINED or (yarn and (depth != "0.5" or number == "0"))
    said = suite.gold_answer(item) if right else suite.perturbed_answer(item)
    return {
        "id": f"{SUITE}/{item.id}#0", "fate": "right" if right else "wrong", "suite": SUITE, "item": item.id, "sample": 0, "subtask": item.subtask,
        "generator": "checkpoint step-00000600", "is_llm": True, "messages": [{"role": "user", "content": item.prompt}, {"role": "assistant", "content": said}],
        "tools": [], "gold": item.gold, "score": float(right), "parts": {}, "status": "ok", "reason": "" if right else "It does not name the word.",
        "truncated": False, "prompt_tokens": tokens, "completion_tokens": 3, "seconds": 0.1, "call_ids": [],
    }  # fmt: skip


def report(context: StageContext, digest: str, *, yarn: bool) -> None:
    folder = context.scratch / f"report-{yarn}"
    folder.mkdir()
    options = {"lengths": list(LENGTHS), "depths": list(DEPTHS), "items": ITEMS}
    settings = SuiteSettings(max_tokens=16, options=options)
    suite, tally, writer, scores = Needle(settings), Tally(SUITE, settings), RowShardWriter(folder, "answers"), {}
    for item in suite.items():
        row = answer(suite, item, yarn=yarn)
        writer.write(row)
        scores[item.id] = tally.add([row])
    writer.close()
    (folder / "scores.json").write_text(json.dumps({SUITE: scores}))
    target = {
        "kind": "checkpoint", "endpoint": "target", "model": None, "digest": digest, "run_id": context.spec.run_id,
        "stage_id": context.spec.stage_id, "name": "step-00000600", "step": 600, "trained_length": TRAINED, "trained_yarn": None,
        **({"yarn": "4x1024"} if yarn else {}),
    }  # fmt: skip
    meta = {"suites": [tally.summary(knows_training_text=False).model_dump(mode="json")], "target": target}
    context.commit(
        ArtifactKind.REPORT, f"report-{'yarn' if yarn else 'plain'}", {p.name: p for p in folder.iterdir()}, meta
    )


def main() -> int:
    context = StageContext.from_env()
    path = Path(context.scratch) / "model.safetensors"
    path.write_bytes(b"needle" * 1000)
    digest = context.commit(ArtifactKind.CHECKPOINT, "step-00000600", {path.name: path}, None, 600).digest()
    report(context, digest, yarn=False)
    report(context, digest, yarn=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
