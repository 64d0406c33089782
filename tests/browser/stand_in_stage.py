"""A stage for the browser tests: no training, but everything that a stage reports. Metrics and heartbeats by plain HTTP, artifacts by the SDK.

Environment: STEPS, BATCH (steps between two reports), PAUSE (seconds after each report), HOLD_FILE (stop at HOLD_AT until it exists),
EXIT_CODE (of FAIL_RANK alone, where there is one), SAY (a line to print, SAY_TIMES times), ROLE (`prepare`, `train`, `evaluate`), SEED, PEAK_LR, LAYERS, CLIP (1: logits stay at the threshold).
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from abruzzi.client.stage import StageContext
from abruzzi.contracts.states import ArtifactKind

ENV = os.environ
BASE = f"{ENV['ABRUZZI_URL']}/api/v1/attempts/{ENV['ABRUZZI_ATTEMPT']}"
HEADERS = {
    "Authorization": f"Bearer {Path(ENV['ABRUZZI_TOKEN']).read_text().strip()}",
    "Content-Type": "application/json",
}
STEPS, BATCH, PAUSE = int(ENV.get("STEPS", "100")), int(ENV.get("BATCH", "10")), float(ENV.get("PAUSE", "0.1"))
LAYERS, THRESHOLD = int(ENV.get("LAYERS", "4")), 100.0
TOKENS_PER_STEP = 16_384


def post(path: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(f"{BASE}/{path}", json.dumps(body).encode(), HEADERS)
    for patience in (0.2, 0.5, 1.0, 2.0, 4.0, 0.0):
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except OSError:
            time.sleep(patience)  # the test may just have killed the API


def heartbeat(step: int, phase: str, message: str = "") -> None:
    post(
        "heartbeats",
        {
            "rank": int(ENV["RANK"]),
            "step": step,
            "total_steps": STEPS,
            "phase": phase,
            "message": message,
            "at": time.time(),
        },
    )


def metrics(dice: random.Random, step: int) -> dict[str, float]:
    peak = float(ENV.get("PEAK_LR", "2e-3"))
    warm, decay = min(1.0, (step + 1) / (0.05 * STEPS)), min(1.0, (STEPS - step) / (0.3 * STEPS))
    loss = 2.1 + 6.2 * math.exp(-step / (0.12 * STEPS)) + 0.45 * math.exp(-step / (0.6 * STEPS)) - 80 * (peak - 2e-3)
    spike = 9.0 if dice.random() < 0.004 else 0.0
    point = {
        "train/loss": loss + dice.gauss(0, 0.05) + spike / 8,
        "train/lr": peak * warm * (0.1 + 0.9 * decay),
        "train/grad_norm": 0.45 + 2.5 * math.exp(-step / (0.05 * STEPS)) + abs(dice.gauss(0, 0.08)) + spike,
        "train/tokens_per_second": 21_500 + dice.gauss(0, 700),
        "train/tokens": float((step + 1) * TOKENS_PER_STEP),
        "train/step_seconds": TOKENS_PER_STEP / 21_500 + abs(dice.gauss(0, 0.01)),
    }
    clipped = 0
    for layer in range(LAYERS):
        grown = 12 + (60 + 28 * layer) * step / STEPS * (1 if ENV.get("CLIP", "1") == "1" else 2.4) + dice.gauss(0, 2)
        clipped += grown > THRESHOLD
        point[f"train/max_logit/layer.{layer:02d}"] = (
            min(grown, THRESHOLD + abs(dice.gauss(0, 1.5))) if ENV.get("CLIP", "1") == "1" else grown
        )
        point[f"train/expert_load/layer.{layer:02d}"] = (
            1.15 + 1.2 * math.exp(-step / (0.1 * STEPS)) + abs(dice.gauss(0, 0.05))
        )
    point["train/clipped_heads"] = float(clipped * 2)
    return point


def report(dice: random.Random, first: int, last: int) -> dict[str, float]:
    series: dict[str, dict[str, list[Any]]] = {}
    now, point = time.time(), {}
    for step in range(first, last):
        point = metrics(dice, step)
        for key, value in point.items():
            column = series.setdefault(key, {"steps": [], "values": [], "at": []})
            column["steps"].append(step)
            column["values"].append(value)
            column["at"].append(now - (last - step) * PAUSE / BATCH)
    post("metrics", {"series": series})
    return point


def checkpoint(context: StageContext, step: int, loss: float) -> None:
    folder = context.scratch
    (folder / "model.safetensors").write_bytes(random.Random(step).randbytes(200_000))
    (folder / "state.json").write_text(json.dumps({"step": step}))
    files = {name: folder / name for name in ("model.safetensors", "state.json")}
    context.commit(ArtifactKind.CHECKPOINT, f"step-{step:08d}", files, {"loss": round(loss, 4)}, step)


def evaluation(context: StageContext) -> None:
    def interval(value: float, width: float) -> dict[str, float]:
        return {"value": value, "low": value - width, "high": value + width}

    held_out, better = {}, 0.031 * (int(ENV.get("SEED", "1")) - 1)
    for domain, documents, mine, ngram in (
        ("all", 412, 1.873, 2.118),
        ("code", 220, 1.604, 1.871),
        ("knowledge", 96, 2.031, 2.304),
        ("web", 96, 2.217, 2.398),
    ):
        mine = round(mine - better, 3)
        held_out[domain] = {
            "documents": documents, "bytes": documents * 1900, "bits_per_byte": interval(mine, 0.03), "ngram_bits_per_byte": interval(ngram, 0.03),
            "better_by": interval(ngram - mine, 0.02),
        }  # fmt: skip
    report_json = {
        "step": 600, "tokens": 600 * TOKENS_PER_STEP, "overlap": 128, "window": 512, "ngram_order": 4, "held_out": held_out,
        "cloze": {"items": 200, "chance": 0.25, "accuracy": interval(0.415, 0.068),
                  "relations": {"capital": {"items": 120, "accuracy": interval(0.45, 0.09)}, "element": {"items": 80, "accuracy": interval(0.36, 0.1)}}},
        "samples": [{"prompt": "def ", "text": "parse(self, text):\n    return [line.strip() for line in text.splitlines() if line]"},
                    {"prompt": "In the beginning ", "text": "was the word, and the word was among the people of the land."}],
    }  # fmt: skip
    path = context.scratch / "report.json"
    path.write_text(json.dumps(report_json))
    context.commit(
        ArtifactKind.REPORT,
        "report",
        {"report.json": path},
        {
            "bits_per_byte": held_out["all"]["bits_per_byte"]["value"],
            "ngram_bits_per_byte": 2.118,
            "cloze_accuracy": 0.415,
        },
    )


def main() -> int:
    context, role, dice = StageContext.from_env(), ENV.get("ROLE", "prepare"), random.Random(int(ENV.get("SEED", "1")))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    leader = context.rank == 0
    hold_at, hold_file = int(ENV.get("HOLD_AT", "-1")), Path(ENV.get("HOLD_FILE", "/nonexistent"))
    print(f"stage {context.spec.stage_id}: rank {context.rank} of {context.world_size}", flush=True)
    if role == "train":
        print("\x1b[1mMuon owns 38 matrices\x1b[0m, AdamW owns 9 tensors (embedding, head, norms)", flush=True)
    if said := ENV.get("SAY"):
        times = int(ENV.get("SAY_TIMES", "1"))
        print("\n".join(f"{n} {said}" if times > 1 else said for n in range(times)), flush=True)
    loss = 0.0
    for first in range(0, STEPS, BATCH):
        last = min(STEPS, first + BATCH)
        if role == "train" and leader:
            point = report(dice, first, last)
            loss = point["train/loss"]
            print(
                f"step {last:>6}/{STEPS}  loss {loss:.4f}  lr {point['train/lr']:.2e}  grad {point['train/grad_norm']:.2f}  {point['train/tokens_per_second']:,.0f} tok/s",
                flush=True,
            )
            if last % max(BATCH, STEPS // 4) < BATCH:
                heartbeat(last, "save")
                checkpoint(context, last, loss)
                print(f"checkpoint step-{last:08d} committed", flush=True)
        else:
            print(f"{role}: {100 * last // STEPS} %\r{role}: {last} of {STEPS} documents", flush=True)
        heartbeat(last, "train" if role == "train" else role, f"loss {loss:.3f}" if role == "train" else "")
        while first <= hold_at < last and not hold_file.exists():
            time.sleep(0.05)
            heartbeat(last, "train" if role == "train" else role)
            time.sleep(0.2)
        time.sleep(PAUSE)
    if role == "evaluate" and leader:
        evaluation(context)
    code = int(ENV.get("EXIT_CODE", "0"))
    while code and context.rank != int(ENV.get("FAIL_RANK", context.rank)):
        time.sleep(0.1)  # until it is stopped
    if code:
        print(
            "Error: data/corpus.jsonl line 17: 'text' is missing. Name the field in stage.data.text_field.",
            file=sys.stderr,
            flush=True,
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
