"""SmolLM2 fine-tuned, all weights, by the stage `sft` itself: what a few minutes on two cores change, and what they take.

The task is small and its answers are known: questions about chemical elements, answered in the form `Answer: Fe`. Before: the original weights with
their own chat template. After: the stage's checkpoint with its template. Both on questions that were not learned from; the share of answers in the
form is behaviour, the share that is right is knowledge, of which so few steps teach little.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, report
from jinja2 import Environment

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import SftStage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.store import blob_key, list_manifests, open_store
from abruzzi_jobs.entrypoints import sft
from abruzzi_jobs.export.bases import SMOLLM2, build_model, read_base
from abruzzi_jobs.instruct.prompts import read_prompts
from abruzzi_jobs.models import Decoder, generate
from abruzzi_jobs.serve.engine import Engine
from abruzzi_jobs.sft.conversation import read_conversation

LEARNED, LOOKED_AT, ANSWER_TOKENS = 300, 30, 16
FORM = re.compile(r"Answer: \S+")
Rendered = Callable[[list[dict[str, str]]], list[int]]


def conversations() -> list[list[dict[str, str]]]:
    prompts, _ = read_prompts(["elements"], LEARNED + LOOKED_AT, seed=1)
    return [
        [{"role": "user", "content": p.text}, {"role": "assistant", "content": f"Answer: {p.answer}"}] for p in prompts
    ]


def look(
    model: Decoder, tokenizer: Any, render: Rendered, end: int, rows: Sequence[list[dict[str, str]]]
) -> dict[str, Any]:
    """Loss on the right answers (nats a token, the end of the turn included), and greedy answers."""
    losses: list[float] = []
    in_form = right = 0
    said = ""
    for messages in rows:
        prompt, expected = render(messages[:1]), messages[1]["content"]
        answer = [*tokenizer.encode(expected, add_special_tokens=False).ids, end]
        log_p_LV = torch.log_softmax(model.logits(torch.tensor([prompt + answer]))[0], -1)
        losses += [-float(log_p_LV[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]
        tokens = generate(model, torch.tensor([prompt]), max_new_tokens=ANSWER_TOKENS, temperature=0, end_token=end)[0]
        said = tokenizer.decode(tokens.tolist(), skip_special_tokens=True).strip()
        in_form += FORM.fullmatch(said) is not None
        right += said == expected
    return {"loss": sum(losses) / len(losses), "in_form": in_form, "right": right, "of": len(rows), "last_answer": said}


def before(rows: Sequence[list[dict[str, str]]]) -> dict[str, Any]:
    base = read_base(SMOLLM2)
    template = Environment().from_string(base.chat_template)

    def render(messages: list[dict[str, str]]) -> list[int]:
        text = template.render(messages=messages, add_generation_prompt=True)
        return base.tokenizer.encode(text, add_special_tokens=False).ids

    model = build_model(base).eval().requires_grad_(False)
    end = base.tokenizer.token_to_id(base.end_of_turn)
    return look(model, base.tokenizer, render, end, rows)


def train(folder: Path, rows: Sequence[list[dict[str, str]]], *, epochs: float, threads: int) -> dict[str, Any]:
    chats = folder / "chats.jsonl"
    chats.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    stage = SftStage.model_validate(
        {
            "id": "sft", "kind": "sft", "base": SMOLLM2,
            "data": {"sources": [str(chats)], "held_out_fraction": 0.1, "decontamination": {"against": ["humaneval"]}},
            "schedule": {"epochs": epochs, "warmup_steps": 2},
            "batch": {"sequences": 1, "sequence_length": 255},
            "optimizer": {"kind": "adamw", "peak_lr": 4e-4, "weight_decay": 0.0},
            "checkpoint": {"every": None, "min_free_bytes": 0},
            "telemetry": {"spectral_every_steps": 0, "held_out_every_steps": 8, "held_out_sequences": 4},
            "resources": {"threads": threads},
        }
    )  # fmt: skip
    store = DirectoryStore(root=str(folder / "store"))
    spec = StageSpec(
        project_id="p", run_id="0123456789", stage_id="sft", attempt_id="0123456789-sft-1", epoch=1, kind=stage.kind,
        config=stage.model_dump(mode="json"), inputs={}, store=store, output_prefix="projects/p/runs/0123456789/sft/",
    )  # fmt: skip
    attempt = folder / "attempt"
    attempt.mkdir()
    context = StageContext(spec, 0, 1, attempt, open_store(store))
    logged: dict[str, dict[int, float]] = {}
    with Reporter.from_context(context) as reporter:
        tell = reporter.log

        def log(metrics: dict[str, float], step: int) -> None:
            for name, value in metrics.items():
                logged.setdefault(name, {})[step] = value
            tell(metrics, step=step)

        reporter.log = log  # type: ignore[method-assign]
        began, processor = time.monotonic(), time.process_time()
        sft.run(context, reporter)
    losses, held = logged["train/loss"], logged.get("valid/loss", {})
    tokens = stage.batch.sequences * stage.batch.sequence_length
    seconds = [tokens / rate for rate in logged["train/tokens_per_second"].values()]
    return {
        "steps": len(losses),
        "tokens_a_step": tokens,
        "train_loss": [losses[min(losses)], losses[max(losses)]],
        "held_out_loss": {str(step): value for step, value in held.items()},
        "seconds": time.monotonic() - began,
        "processor_seconds": time.process_time() - processor,
        "median_seconds_a_step": sorted(seconds)[len(seconds) // 2],
        "most_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def after(folder: Path, rows: Sequence[list[dict[str, str]]]) -> dict[str, Any]:
    store, prefix = open_store(DirectoryStore(root=str(folder / "store"))), "projects/p/runs/0123456789/sft/"
    newest = {m.kind.value: m for _, m in sorted(list_manifests(store, prefix), key=lambda found: found[1].step or 0)}
    places = {}
    for kind in ("checkpoint", "tokenizer"):
        places[kind] = folder / kind
        places[kind].mkdir()
        for entry in newest[kind].files:
            if not entry.path.startswith("optimizer"):
                (places[kind] / entry.path).write_bytes(store.get(blob_key(prefix, entry.digest)))
    engine = Engine.load(places["checkpoint"], places["tokenizer"])
    template = engine.template
    assert template is not None

    def render(messages: list[dict[str, str]]) -> list[int]:
        return template.prompt(read_conversation({"messages": messages}))

    return look(engine.model, engine.tokenizer, render, template.end, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=float, default=0.67)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = machine(threads=arguments.threads)
    rows = conversations()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(Path(folder), rows[:LEARNED], epochs=arguments.epochs, threads=arguments.threads)
        changed = after(Path(folder), rows[LEARNED:])
    original = before(rows[LEARNED:])
    met = changed["loss"] < original["loss"] and changed["in_form"] > original["in_form"]
    result = {"before": original, "after": changed, "training": trained, "met": met, "machine": load}
    report(result, out=arguments.out)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
